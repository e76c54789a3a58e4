//! The rule of which tasks here may reach each other, in words for those that it stops. Pure.

use clutch_common::task::Task;
use clutch_common::task::kinship::{Kin, MessageRule};

/// Why a task may not send to one that is here; `None` if it may.
pub(super) fn forbids(rule: MessageRule, source: &Task, target: &Task) -> Option<&'static str> {
    if rule == MessageRule::None {
        return closed(rule);
    }
    let permits = rule.permits(&Kin::from(source), &Kin::from(target));
    (!permits).then_some(
        "a task may send to tasks of its own submission, to its parent and to its children. \
         `allow = \"any\"` in [messages] of endpoint.toml lets the tasks of the endpoint send to all \
         that are there",
    )
}

/// Why a task may send to no other; `None` if it may.
pub(super) fn closed(rule: MessageRule) -> Option<&'static str> {
    (rule == MessageRule::None).then_some(
        "the endpoint lets its tasks send no messages: `allow = \"none\"` in [messages] of \
         endpoint.toml",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::Process;

    #[test]
    fn relatives_may_send_and_others_where_the_endpoint_says_so() {
        let task = || Task::new(TaskId::new(), Process::default());
        let (one, other) = (task(), task());
        let sibling = Task { group: 7, ..task() };
        let twin = Task { group: 7, ..task() };
        let child = Task { parent: Some(one.id), ..task() };
        for (source, target) in [(&one, &one), (&sibling, &twin), (&one, &child), (&child, &one)] {
            assert_eq!(forbids(MessageRule::Family, source, target), None);
            assert!(forbids(MessageRule::None, source, target).is_some());
        }
        assert!(forbids(MessageRule::Family, &one, &other).is_some());
        assert_eq!(forbids(MessageRule::Any, &one, &other), None);
    }
}
