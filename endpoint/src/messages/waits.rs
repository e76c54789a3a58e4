//! The sends and receives of tasks that are open, as the service is told of them. Pure.

use clutch_common::id::Attempt;
use clutch_common::wire::MessageWait;
use std::collections::{BTreeMap, HashMap};

/// The open sends and receives.
#[derive(Debug, Default)]
pub(super) struct OpenWaits {
    all: HashMap<u64, (Attempt, MessageWait)>,
    next: u64,
}

impl OpenWaits {
    /// Adds one of an attempt; returns its number.
    pub(super) fn add(&mut self, attempt: Attempt, wait: MessageWait) -> u64 {
        self.next += 1;
        self.all.insert(self.next, (attempt, wait));
        self.next
    }

    /// Removes one by its number.
    pub(super) fn remove(&mut self, number: u64) {
        self.all.remove(&number);
    }

    /// All of them by attempt, the oldest first.
    pub(super) fn by_attempt(&self) -> BTreeMap<Attempt, Vec<MessageWait>> {
        let mut by_attempt: BTreeMap<Attempt, Vec<MessageWait>> = BTreeMap::new();
        let mut all: Vec<(&u64, &(Attempt, MessageWait))> = self.all.iter().collect();
        all.sort_by_key(|(number, _)| **number);
        for (_, (attempt, wait)) in all {
            by_attempt.entry(*attempt).or_default().push(wait.clone());
        }
        by_attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;

    #[test]
    fn what_is_open_is_told_by_attempt_in_order_until_it_ends() {
        let mut waits = OpenWaits::default();
        let [one, other] = [1, 2].map(|attempt| Attempt { task_id: TaskId::new(), attempt });
        let wait = |name: &str| MessageWait {
            since_ms: 1,
            addressees: vec![name.to_owned()],
            to: None,
            from: None,
        };
        let first = waits.add(one, wait("a"));
        waits.add(other, wait("b"));
        let last = waits.add(one, wait("c"));
        assert_eq!(waits.by_attempt()[&one], [wait("a"), wait("c")]);
        waits.remove(first);
        assert_eq!(waits.by_attempt()[&one], [wait("c")]);
        waits.remove(last);
        assert_eq!(waits.by_attempt().into_keys().collect::<Vec<_>>(), [other]);
    }
}
