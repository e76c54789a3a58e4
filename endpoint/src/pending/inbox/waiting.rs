//! The tasks of an inbox that have no slot, as they are told to the service. Pure.

use super::{Held, Inbox};
use crate::pending::look::WaitingTask;
use crate::storage::journal::Seq;

impl Inbox {
    /// At most `max` of the tasks without a slot, in order, from a sequence number on.
    /// Looks at few others, but for tasks that are not secured, or not claimed.
    pub(crate) fn waiting_from(&self, from: Seq, max: usize) -> Vec<WaitingTask> {
        let Self { waiting, suspected, unsecured, unclaimed, limited, .. } = self;
        let mut found = Vec::new();
        let mut add = |held: &Held, waits_for: Option<String>| {
            found.push(WaitingTask {
                seq: held.seq,
                attempt: held.task.attempt(),
                accepted_at_ms: held.accepted_at_ms,
                waits_for,
            });
        };
        waiting.from(from, max).for_each(|held| add(held, None));
        let alone = "for its turn: the endpoint died while it ran, so it runs beside few others";
        suspected.from(from, max).for_each(|held| add(held, Some(alone.to_owned())));
        for (name, function) in limited {
            let worker = function.is_busy().then(|| format!("for a worker of '{name}' to be free"));
            function.waiting.from(from, max).for_each(|held| add(held, worker.clone()));
        }
        let fence = "for the broker to confirm that no other instance has it";
        let of_others = unsecured.iter().flatten().filter(|other| other.held.seq >= from);
        of_others.take(max).for_each(|other| add(&other.held, Some(fence.to_owned())));
        let claim = "for its claim: the broker has to confirm that it will start here";
        let of_topics = unclaimed.iter().filter(|held| held.seq >= from);
        of_topics.for_each(|held| add(held, Some(claim.to_owned())));
        found.sort_unstable_by_key(|waiting| waiting.seq);
        found.truncate(max);
        found
    }
}
