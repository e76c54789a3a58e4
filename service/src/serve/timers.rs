//! Releases the tasks of scheduled submissions when their moments by the wall clock come.
//!
//! Touches the records, and tells the placer. It runs beside the link, whether or not there is
//! one. Promises: nothing is released before its moment; it sleeps until the next moment, a
//! change of the clock, or news, and looks at nothing meanwhile.

use super::alarm::Alarm;
use crate::publishing::Placements;
use crate::store::{Error, Store};
use clutch_common::system::clock::now_ms;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The pause after the records could not be read or written.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs timers until told to stop; `news` is bumped when something is scheduled.
pub(super) async fn run(
    store: Store,
    placements: Placements,
    news: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let ticking = tick(&store, &placements, news);
    tokio::select! {
        biased;
        () = stop.cancelled() => (),
        () = ticking => (),
    }
}

async fn tick(store: &Store, placements: &Placements, mut news: watch::Receiver<u64>) {
    loop {
        news.mark_unchanged();
        let rung = async {
            let next = release(store, placements).await?;
            let alarm = Alarm::new()?;
            tokio::select! {
                rung = alarm.ring(next) => rung?,
                changed = news.changed() => changed?,
            }
            anyhow::Ok(())
        };
        if let Err(error) = rung.await {
            let error = format!("{error:#}");
            tracing::warn!(error, "what is due cannot be released for now; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Releases every task that is due; returns when the next one is.
async fn release(store: &Store, placements: &Placements) -> Result<Option<u64>, Error> {
    let mut place = None;
    loop {
        let now = now_ms();
        let slice = store.release_due(now, place).await?;
        place = slice.place;
        if slice.tasks > 0 {
            placements.tell();
            tracing::info!(tasks = slice.tasks, late_ms = slice.late_ms, "scheduled tasks are due");
        }
        if slice.next_ms.is_none_or(|next| next > now) {
            return Ok(slice.next_ms);
        }
    }
}
