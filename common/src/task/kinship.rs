//! Which tasks are related, and which may send each other messages. Pure.

use super::Task;
use crate::id::TaskId;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The facts about a task that tell its relations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kin {
    /// The task.
    pub task: TaskId,
    /// The number that the tasks of its submission share; 0 where there are no others.
    pub group: u64,
    /// The task that submitted it, if one did.
    pub parent: Option<TaskId>,
}

impl Kin {
    /// Whether two tasks are one, belong to one submission, or are parent and child.
    #[must_use]
    pub fn is_related(&self, other: &Self) -> bool {
        self.task == other.task
            || (self.group != 0 && self.group == other.group)
            || self.parent == Some(other.task)
            || other.parent == Some(self.task)
    }
}

impl From<&Task> for Kin {
    fn from(task: &Task) -> Self {
        Self { task: task.id, group: task.group, parent: task.parent }
    }
}

/// The rule which tasks may send messages to which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageRule {
    /// A task may reach the tasks of its submission, its parent and its children.
    #[default]
    Family,
    /// Each task may reach each other.
    Any,
    /// No task may reach another.
    None,
}

impl MessageRule {
    /// Whether one task may send to the other.
    #[must_use]
    pub fn permits(self, from: &Kin, to: &Kin) -> bool {
        match self {
            Self::Family => from.is_related(to),
            Self::Any => true,
            Self::None => false,
        }
    }
}

impl FromStr for MessageRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "family" => Ok(Self::Family),
            "any" => Ok(Self::Any),
            "none" => Ok(Self::None),
            _ => Err(format!("'{text}' is not one of family, any and none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_related_by_submission_and_by_parent_and_strangers_are_not() {
        let task = |group, parent| Kin { task: TaskId::new(), group, parent };
        let (one, sibling) = (task(3, None), task(3, None));
        let child = task(0, Some(one.task));
        let grandchild = task(0, Some(child.task));
        let (stranger, lonely) = (task(4, None), task(0, None));
        for (a, b, related) in [
            (one, one, true),
            (lonely, lonely, true),
            (one, sibling, true),
            (one, child, true),
            (child, grandchild, true),
            (sibling, child, false),
            (one, grandchild, false),
            (one, stranger, false),
            (lonely, task(0, None), false),
        ] {
            assert_eq!((a.is_related(&b), b.is_related(&a)), (related, related), "{a:?} {b:?}");
            assert_eq!(MessageRule::Family.permits(&a, &b), related);
            assert!(MessageRule::Any.permits(&a, &b) && !MessageRule::None.permits(&a, &b));
        }
    }

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for rule in [MessageRule::Family, MessageRule::Any, MessageRule::None] {
            let written = serde_json::to_string(&rule).unwrap();
            assert_eq!(written.trim_matches('"').parse(), Ok(rule));
        }
        assert!("all".parse::<MessageRule>().unwrap_err().contains("family, any and none"));
    }
}
