//! Releases the tasks of scheduled submissions, and makes tasks of the instants of schedules, when
//! their moments by the wall clock come.
//!
//! Touches the records, and tells the placer. It runs beside the link, whether or not there is
//! one. Promises: nothing happens before its moment; it sleeps until the next moment, a change
//! of the clock, or news, and looks at nothing meanwhile. Only while tasks of schedules have no
//! outcome, it looks for their ends when results were recorded, at most ten times a second.

use super::alarm::Alarm;
use crate::api::Signals;
use crate::publishing::Placements;
use crate::store::{Error, Store};
use clutch_common::system::clock::now_ms;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The pause after the records could not be read or written.
const PAUSE: Duration = Duration::from_secs(5);
/// The shortest pause between two looks for ended tasks, and how many times longer than a look
/// it is.
const SETTLING: (Duration, u32) = (Duration::from_millis(100), 10);

/// Runs timers until told to stop.
pub(super) async fn run(
    store: Store,
    placements: Placements,
    signals: Signals,
    stop: CancellationToken,
) {
    let news = (signals.timers.subscribe(), signals.recorded.subscribe());
    let timers = Timers { store, placements, signals, may_settle_at: Instant::now() };
    tokio::select! {
        biased;
        () = stop.cancelled() => (),
        () = timers.tick(news) => (),
    }
}

struct Timers {
    store: Store,
    placements: Placements,
    signals: Signals,
    /// When ended tasks are looked for again at the earliest.
    may_settle_at: Instant,
}

impl Timers {
    async fn tick(
        mut self,
        (mut news, mut recorded): (watch::Receiver<u64>, watch::Receiver<u64>),
    ) {
        // What ended while the service was away is found at once.
        let mut settle_at = Some(Instant::now());
        let mut open = 0;
        loop {
            news.mark_unchanged();
            let rung = async {
                if settle_at.is_some_and(|at| at <= Instant::now()) {
                    settle_at = None;
                    recorded.mark_unchanged();
                    let (ended, left) = self.settle().await?;
                    open = left;
                    // What is due does not wait until all have been noted.
                    settle_at = (ended > 0).then(Instant::now);
                }
                let next = self.release().await?;
                let (due, fired) = self.fire().await?;
                open += usize::try_from(fired).unwrap_or(0);
                let next = [next, due].into_iter().flatten().min();
                let alarm = Alarm::new()?;
                tokio::select! {
                    rung = alarm.ring(next) => rung?,
                    changed = news.changed() => {
                        changed?;
                        // A run by hand has a task, too.
                        open += 1;
                    }
                    changed = recorded.changed(), if open > 0 && settle_at.is_none() => {
                        changed?;
                        settle_at = Some(self.may_settle_at);
                    }
                    () = tokio::time::sleep_until(settle_at.unwrap_or(self.may_settle_at)),
                        if settle_at.is_some() => (),
                }
                anyhow::Ok(())
            };
            if let Err(error) = rung.await {
                let error = format!("{error:#}");
                tracing::warn!(error, "what is due cannot be recorded for now; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Releases every task that is due; returns when the next one is.
    async fn release(&self) -> Result<Option<u64>, Error> {
        let mut place = None;
        loop {
            let now = now_ms();
            let slice = self.store.release_due(now, place).await?;
            place = slice.place;
            if slice.tasks > 0 {
                self.placements.tell();
                let (tasks, late_ms) = (slice.tasks, slice.late_ms);
                tracing::info!(tasks, late_ms, "scheduled tasks are due");
            }
            if slice.next_ms.is_none_or(|next| next > now) {
                return Ok(slice.next_ms);
            }
        }
    }

    /// Records what becomes of every instant that is due; returns when the next one is, and how
    /// many became tasks.
    async fn fire(&self) -> Result<(Option<u64>, u64), Error> {
        let mut tasks = 0;
        loop {
            let now = now_ms();
            let slice = self.store.fire_due(now).await?;
            tasks += slice.tasks;
            if slice.tasks > 0 {
                self.placements.tell();
            }
            if slice.cancelled {
                self.signals.news.send_modify(|count| *count += 1);
                self.signals.recorded.send_modify(|count| *count += 1);
            }
            if slice.tasks + slice.others > 0 {
                tracing::debug!(tasks = slice.tasks, others = slice.others, "schedules are due");
            }
            if slice.next_ms.is_none_or(|next| next > now) {
                return Ok((slice.next_ms, tasks));
            }
        }
    }

    /// Notes which tasks of schedules have ended; returns how many those were, and how many have
    /// not. There may be more of them.
    async fn settle(&mut self) -> Result<(usize, usize), Error> {
        let begun = Instant::now();
        let settled = self.store.settle_occurrences(now_ms()).await?;
        let took = begun.elapsed();
        self.may_settle_at = Instant::now() + SETTLING.0.max(took * SETTLING.1);
        Ok(settled)
    }
}
