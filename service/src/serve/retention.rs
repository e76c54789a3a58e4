//! Forgets ended tasks, and records of instants, once they are old, while the service runs
//! (`serve --keep`).
//!
//! Touches the records only. Wakes once in a tenth of that age, and every hour at the least.

use crate::store::{Error, Forgettable, Store};
use clutch_common::system::clock::now_ms;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The bounds of the pause between two runs.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60 * 60));

/// How many tasks, submissions and occurrences were forgotten.
#[derive(Default, PartialEq, Eq)]
struct ForgottenCounts {
    tasks: u64,
    submissions: u64,
    occurrences: u64,
}

/// Forgets tasks with an outcome that was recorded longer ago than `keep`, again and again,
/// until told to stop.
pub(super) async fn keep(store: Store, keep: Duration, stop: CancellationToken) {
    let pause = (keep / 10).clamp(PAUSE.0, PAUSE.1);
    loop {
        match forget(&store, keep, &stop).await {
            Ok(none) if none == ForgottenCounts::default() => {}
            Ok(ForgottenCounts { tasks, submissions, occurrences }) => {
                tracing::info!(tasks, submissions, occurrences, "ended tasks were forgotten");
            }
            Err(error) => tracing::error!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "ended tasks could not be forgotten; it is tried again"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn forget(
    store: &Store,
    keep: Duration,
    stop: &CancellationToken,
) -> Result<ForgottenCounts, Error> {
    let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    let before = now_ms().saturating_sub(keep);
    let which = Forgettable::EndedBefore(before);
    let (mut forgotten, mut next) = (ForgottenCounts::default(), Some(0));
    while let Some(from) = next.filter(|_| !stop.is_cancelled()) {
        let slice = store.forget(which, from, false).await?;
        forgotten.tasks += slice.tasks;
        forgotten.submissions += slice.submissions;
        next = slice.next;
    }
    let mut next = Some(String::new());
    while let Some(after) = next.filter(|_| !stop.is_cancelled()) {
        let slice = store.forget_occurrences(before, after).await?;
        forgotten.occurrences += slice.records;
        next = slice.next;
    }
    while !stop.is_cancelled() && store.release_pages().await? {}
    Ok(forgotten)
}
