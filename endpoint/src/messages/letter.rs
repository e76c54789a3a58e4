//! A message as its endpoint has it. Pure.

use clutch_common::id::{Attempt, EndpointId, TaskId};
use std::sync::Arc;
use uuid::Uuid;

/// How a message came to its target's endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LetterOrigin {
    /// From a task that runs here.
    Here,
    /// Through the service.
    Service {
        /// The number of the last copy.
        copy: u32,
        /// The number of the first copy that came to this run of the daemon.
        since: u32,
        /// The endpoint to answer.
        answer_to: Option<EndpointId>,
    },
}

/// A message to a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Letter {
    /// Its id.
    pub(crate) id: Uuid,
    /// The attempt that sent it.
    pub(crate) source: Attempt,
    /// The task that it is for.
    pub(crate) to: TaskId,
    /// The attempt that alone may take it, where the sender names one.
    pub(crate) attempt: Option<u32>,
    /// The addressee.
    pub(crate) addressee: String,
    /// The bytes.
    pub(crate) body: Arc<[u8]>,
    /// How it came.
    pub(crate) origin: LetterOrigin,
}

/// The identity of a message: copies and repetitions have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LetterKey {
    /// The task that sent it.
    pub(crate) source: TaskId,
    /// The task that it is for.
    pub(crate) to: TaskId,
    /// Its id.
    pub(crate) id: Uuid,
}

impl Letter {
    /// The identity.
    pub(crate) fn key(&self) -> LetterKey {
        LetterKey { source: self.source.task_id, to: self.to, id: self.id }
    }

    /// Takes the copies that another one stands for.
    pub(crate) fn cover(&mut self, other: LetterOrigin) {
        match (&mut self.origin, other) {
            (
                LetterOrigin::Service { copy, since, answer_to },
                LetterOrigin::Service { copy: others, since: from, answer_to: other },
            ) => {
                if others >= *copy {
                    *answer_to = other;
                }
                (*copy, *since) = ((*copy).max(others), (*since).min(from));
            }
            (origin, other) => *origin = other,
        }
    }

    /// The number of the copy. One from here has none, and is as new as any.
    pub(crate) fn copy(&self) -> u32 {
        match self.origin {
            LetterOrigin::Here => u32::MAX,
            LetterOrigin::Service { copy, .. } => copy,
        }
    }
}
