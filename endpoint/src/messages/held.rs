//! The word that a message is held here, until it is told. Pure.
//!
//! A receiver that waits takes its message at once, and that it was held is then worth no message
//! of its own. So the word waits for [`PAUSE`], and is not told where another verdict comes before.

use super::letter::LetterKey;
use super::mailbox::Moment;
use clutch_common::wire::TargetVerdict;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How long the word waits.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The verdicts `held` that are not told, the last one about each message.
#[derive(Debug, Default)]
pub(super) struct HeldVerdicts {
    waiting: HashMap<LetterKey, TargetVerdict>,
    /// When each is to be told. The first of these waits, unless there is none.
    order: VecDeque<(Moment, LetterKey)>,
}

impl HeldVerdicts {
    /// Adds one, in the place of an earlier one about the same message.
    pub(super) fn add(&mut self, key: LetterKey, verdict: TargetVerdict, now: Moment) {
        if self.waiting.insert(key, verdict).is_none() {
            self.order.push_back((now + PAUSE, key));
        }
    }

    /// Notes that there is another verdict about a message.
    pub(super) fn forget(&mut self, key: &LetterKey) {
        self.waiting.remove(key);
        while let Some((_, first)) = self.order.front()
            && !self.waiting.contains_key(first)
        {
            self.order.pop_front();
        }
    }

    /// When the next one is to be told.
    pub(super) fn due(&self) -> Option<Moment> {
        self.order.front().map(|(due, _)| *due)
    }

    /// Takes one that is to be told.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<TargetVerdict> {
        let (_, key) = *self.order.front().filter(|(due, _)| *due <= now)?;
        let verdict = self.waiting.get(&key).cloned();
        self.forget(&key);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
    use clutch_common::wire::Judgement;
    use uuid::Uuid;

    fn held(id: u128, copy: u32) -> (LetterKey, TargetVerdict) {
        let [source, to] = [8, 9].map(|id| TaskId(Uuid::from_u128(id)));
        let verdict = TargetVerdict {
            endpoint_id: EndpointId::new(),
            state_id: StateId::new(),
            message: Uuid::from_u128(id),
            copy,
            since: 1,
            source: Attempt { task_id: source, attempt: 1 },
            answer_to: None,
            to,
            attempt: None,
            verdict: Judgement::Held,
        };
        (LetterKey { source, to, id: Uuid::from_u128(id) }, verdict)
    }

    fn ms(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    #[test]
    fn that_a_message_is_held_is_told_later_once_and_not_where_it_was_judged() {
        let mut all = HeldVerdicts::default();
        for (id, copy, at) in [(1, 1, 0), (2, 1, 1), (3, 1, 2), (2, 2, 3)] {
            let (key, verdict) = held(id, copy);
            all.add(key, verdict, ms(at));
        }
        all.forget(&held(1, 1).0);
        assert_eq!(all.due(), Some(ms(1) + PAUSE), "the first one was judged");
        assert_eq!(all.take_due(PAUSE), None);
        let told = |all: &mut HeldVerdicts| {
            all.take_due(ms(2) + PAUSE).map(|told| (told.message.as_u128(), told.copy))
        };
        assert_eq!([(); 3].map(|()| told(&mut all)), [Some((2, 2)), Some((3, 1)), None]);
        assert_eq!((all.due(), all.waiting.len()), (None, 0));
    }
}
