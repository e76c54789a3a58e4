//! The consequences of an attempt that an endpoint reports lost. Pure.

use crate::task::result::Loss;

/// The consequence of the loss of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consequence {
    /// The attempt is in doubt: the active instance is asked for it.
    Ask,
    /// The task is submitted again, as the next attempt.
    Resubmit,
    /// The task ends as interrupted: it must not run again, or it was to be cancelled and ran
    /// to its end.
    Interrupt,
    /// The task ends as cancelled: that was requested, and it did not run to its end.
    Cancel,
    /// None: the attempt has its result, or another one is under way.
    Ignore,
    /// None: the service has not asked for the attempt, so that the report proves nothing.
    Unasked,
}

/// The task of a lost attempt, as the records have it.
#[derive(Clone, Copy, Debug)]
pub struct TaskStanding {
    /// The attempt that is under way, or was the last one.
    pub current_attempt: u32,
    /// Whether the task has ended.
    pub done: bool,
    /// Whether it may run more than once.
    pub rerun: bool,
    /// Whether the attempt is in doubt, so that the active instance is asked for it.
    pub in_doubt: bool,
    /// Whether it was placed by a topic.
    pub placed: bool,
    /// Whether the cancellation of the task was requested, and what a report of the attempt
    /// is worth then.
    pub cancel: Option<Evidence>,
}

/// The worth of a report that the attempt at a task that is to be cancelled is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// It comes from the state that a roll call goes to ([`to_ask`](super::to_ask)), or that
    /// one for this attempt went to: no other state has the attempt.
    Conclusive,
    /// Another state may have the attempt.
    Inconclusive,
}

/// Says what follows from the loss of an attempt of a task.
#[must_use]
pub fn consequence(loss: Loss, attempt: u32, task: TaskStanding) -> Consequence {
    if attempt != task.current_attempt || task.done {
        return Consequence::Ignore;
    }
    match (loss, task.cancel) {
        // Its endpoint was the only one that could start it.
        (Loss::NotStarted | Loss::NotOffered, _) if !task.placed => Consequence::Unasked,
        (Loss::NotStarted | Loss::NotOffered, Some(_)) => Consequence::Cancel,
        (Loss::NotStarted | Loss::NotOffered, None) => Consequence::Resubmit,
        (Loss::HandedBack, _) | (Loss::Unknown, Some(Evidence::Inconclusive)) => Consequence::Ask,
        (Loss::Unknown, Some(Evidence::Conclusive)) => Consequence::Cancel,
        (Loss::Delivered, Some(_)) => Consequence::Interrupt,
        (Loss::Unknown | Loss::Delivered, None) if !task.in_doubt => Consequence::Unasked,
        (Loss::Unknown | Loss::Delivered, None) if task.rerun => Consequence::Resubmit,
        (Loss::Unknown | Loss::Delivered, None) => Consequence::Interrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task with an attempt in doubt that may run again.
    const OPEN: TaskStanding = TaskStanding {
        current_attempt: 1,
        done: false,
        rerun: true,
        in_doubt: true,
        placed: false,
        cancel: None,
    };

    #[test]
    fn only_the_loss_of_the_attempt_under_way_has_consequences() {
        for (loss, attempt, done, current_attempt, rerun, expected) in [
            (Loss::HandedBack, 1, false, 1, true, Consequence::Ask),
            (Loss::HandedBack, 1, false, 1, false, Consequence::Ask),
            (Loss::HandedBack, 2, false, 2, true, Consequence::Ask),
            (Loss::HandedBack, 1, false, 2, true, Consequence::Ignore),
            (Loss::HandedBack, 1, true, 1, true, Consequence::Ignore),
            (Loss::Unknown, 1, false, 1, true, Consequence::Resubmit),
            (Loss::Unknown, 3, false, 3, false, Consequence::Interrupt),
            (Loss::Unknown, 1, false, 2, true, Consequence::Ignore),
            (Loss::Delivered, 1, false, 1, true, Consequence::Resubmit),
            (Loss::Delivered, 1, false, 1, false, Consequence::Interrupt),
            (Loss::Delivered, 1, true, 1, true, Consequence::Ignore),
            (Loss::Unknown, 2, false, 1, true, Consequence::Ignore),
            (Loss::Unknown, 1, true, 1, true, Consequence::Ignore),
        ] {
            let task = TaskStanding { current_attempt, done, rerun, ..OPEN };
            assert_eq!(
                consequence(loss, attempt, task),
                expected,
                "{loss:?} of {attempt}: {task:?}"
            );
        }
    }

    #[test]
    fn an_attempt_that_was_not_asked_for_is_lost_only_if_its_instance_gave_it_away() {
        let task = TaskStanding { in_doubt: false, ..OPEN };
        assert_eq!(consequence(Loss::HandedBack, 1, task), Consequence::Ask);
        assert_eq!(consequence(Loss::Unknown, 1, task), Consequence::Unasked);
        assert_eq!(consequence(Loss::Delivered, 1, task), Consequence::Unasked);
    }

    #[test]
    fn what_an_endpoint_did_not_start_is_placed_again_even_if_it_must_not_run_twice() {
        let placed = TaskStanding { placed: true, rerun: false, in_doubt: false, ..OPEN };
        for loss in [Loss::NotStarted, Loss::NotOffered] {
            assert_eq!(consequence(loss, 1, placed), Consequence::Resubmit);
            let cancel = Some(Evidence::Inconclusive);
            let cancelled = TaskStanding { cancel, ..placed };
            assert_eq!(consequence(loss, 1, cancelled), Consequence::Cancel);
            let later = TaskStanding { current_attempt: 2, ..placed };
            assert_eq!(consequence(loss, 1, later), Consequence::Ignore);
            let done = TaskStanding { done: true, ..placed };
            assert_eq!(consequence(loss, 1, done), Consequence::Ignore);
            let addressed = TaskStanding { placed: false, ..placed };
            assert_eq!(consequence(loss, 1, addressed), Consequence::Unasked);
        }
    }

    #[test]
    fn a_task_that_is_to_be_cancelled_is_never_submitted_again_and_cancelled_only_for_certain() {
        for (loss, report, expected) in [
            (Loss::Unknown, Evidence::Conclusive, Consequence::Cancel),
            (Loss::Unknown, Evidence::Inconclusive, Consequence::Ask),
            (Loss::HandedBack, Evidence::Conclusive, Consequence::Ask),
            (Loss::HandedBack, Evidence::Inconclusive, Consequence::Ask),
            (Loss::Delivered, Evidence::Conclusive, Consequence::Interrupt),
            (Loss::Delivered, Evidence::Inconclusive, Consequence::Interrupt),
        ] {
            for (rerun, in_doubt) in [(true, true), (true, false), (false, true), (false, false)] {
                let task = TaskStanding { rerun, in_doubt, cancel: Some(report), ..OPEN };
                assert_eq!(consequence(loss, 1, task), expected, "{loss:?}: {task:?}");
                let done = TaskStanding { done: true, ..task };
                assert_eq!(consequence(loss, 1, done), Consequence::Ignore);
                let later = TaskStanding { current_attempt: 2, ..task };
                assert_eq!(consequence(loss, 1, later), Consequence::Ignore);
            }
        }
    }
}
