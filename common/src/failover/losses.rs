//! The consequences of an attempt that an endpoint reports lost. Pure.

use crate::task::result::Loss;

/// The consequence of the loss of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consequence {
    /// The attempt is in doubt: the active instance is asked for it.
    Ask,
    /// The task is submitted again, as the next attempt.
    Resubmit,
    /// The task ends as interrupted: it must not run again.
    Interrupt,
    /// None: the attempt has its result, or another one is under way.
    Ignore,
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
}

/// Says what follows from the loss of an attempt of a task.
#[must_use]
pub fn consequence(loss: Loss, attempt: u32, task: TaskStanding) -> Consequence {
    if attempt != task.current_attempt || task.done {
        return Consequence::Ignore;
    }
    match loss {
        Loss::HandedBack => Consequence::Ask,
        Loss::Unknown | Loss::Delivered if task.rerun => Consequence::Resubmit,
        Loss::Unknown | Loss::Delivered => Consequence::Interrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let task = TaskStanding { current_attempt, done, rerun };
            assert_eq!(
                consequence(loss, attempt, task),
                expected,
                "{loss:?} of {attempt}: {task:?}"
            );
        }
    }
}
