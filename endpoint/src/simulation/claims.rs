//! The claims of attempts of topics in a run: which the broker has, by the service's records and
//! for the oracle, and what the service fences. Pure.

use super::oracle::{Broken, name};
use clutch_common::id::Attempt;
use clutch_common::task::Task;
use clutch_common::task::topic::{CLOCK_MARGIN, is_fenced};
use std::collections::BTreeSet;

/// How far an instance's clock is off, at most, in milliseconds.
pub(super) const SKEW_MS: u64 = 15_000;

/// The claims that have reached the broker, each with the instance that made it.
#[derive(Default)]
pub(super) struct Claimed(BTreeSet<(Attempt, usize)>);

impl Claimed {
    /// Claims of an instance have reached the results queue.
    pub(super) fn arrive(&mut self, instance: usize, attempts: &[Attempt]) {
        self.0.extend(attempts.iter().map(|attempt| (*attempt, instance)));
    }

    /// A task starts: one of a topic has been claimed there.
    pub(super) fn starts(&self, on: usize, task: &Task) -> Result<(), Broken> {
        let attempt = task.attempt();
        if task.topic.is_none() || self.0.contains(&(attempt, on)) {
            return Ok(());
        }
        Err(format!("{} starts on instance {on}, and the broker has no claim of it", name(attempt)))
    }
}

/// Whether an attempt, not claimed in all that was sent to the service until `read_ms`, never
/// starts.
pub(super) fn never_starts(task: &Task, read_ms: u64) -> bool {
    let terms = task.topic.as_ref();
    terms.is_some_and(|terms| is_fenced(terms.start_by_ms, read_ms, CLOCK_MARGIN))
}
