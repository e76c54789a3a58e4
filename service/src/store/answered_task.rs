//! A task that results came for, as the statements that record them read it. Pure.

use super::Result;
use super::engine::{Columns, FromRow};
use super::stored_state::StoredState;

/// A task that results came for, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnsweredTask {
    pub(super) seq: i64,
    pub(super) submission: Option<i64>,
    /// The number of the endpoint that it was given to.
    pub(super) endpoint: i64,
    pub(super) state: StoredState,
    /// The attempt that decided the state by its result.
    pub(super) recorded: Option<u32>,
    /// The attempt that is under way: an earlier one's result does not end the task.
    pub(super) current: u32,
    /// The number of its topic, if it has one.
    pub(super) topic: Option<i64>,
    /// The members that earlier attempts were given to, as far as they were looked up.
    pub(super) earlier: Vec<(i64, u32)>,
    /// The attempts that have a result.
    pub(super) attempts: Vec<u32>,
}

impl AnsweredTask {
    /// Its row and its submission; none of an external task.
    pub(super) fn in_submission(&self) -> Option<(i64, i64)> {
        self.submission.map(|submission| (self.seq, submission))
    }

    /// Whether an endpoint may answer for an attempt. The attempts of an external task are
    /// not known; those of a task of a topic may be of several endpoints.
    pub(super) fn was_given(&self, endpoint: i64, attempt: u32) -> bool {
        let given = self.submission.is_none() || (1..=self.current).contains(&attempt);
        self.endpoint == endpoint && given || self.earlier.contains(&(endpoint, attempt))
    }

    /// Whether its earlier placements say if an endpoint was given an attempt.
    pub(super) fn asks_for_earlier(&self, endpoint: i64) -> bool {
        self.topic.is_some() && self.endpoint != endpoint && self.earlier.is_empty()
    }
}

impl FromRow for AnsweredTask {
    fn read(columns: &mut Columns<'_>) -> Result<Self> {
        Ok(Self {
            seq: columns.next()?,
            submission: columns.next()?,
            endpoint: columns.next()?,
            state: columns.next()?,
            recorded: columns.next()?,
            current: columns.next()?,
            topic: columns.next()?,
            earlier: Vec::new(),
            attempts: columns.next::<Option<u32>>()?.into_iter().collect(),
        })
    }
}
