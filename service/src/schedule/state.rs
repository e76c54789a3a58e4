//! How far a schedule is, and what each record of an instant does to that. Pure.

use super::Policy;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a schedule is. It changes in the same transaction as what it tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleState {
    /// Every instant up to this one has its record; at first, when the schedule was added.
    pub(crate) cursor_ms: i64,
    /// How many tasks the rule made.
    pub(crate) tasks: u64,
    /// How many tasks of the schedule have no outcome, those of manual runs included.
    pub(crate) running: u64,
    /// How many occurrences failed in a row.
    pub(crate) failures: u32,
    /// When the last occurrence ended.
    pub(crate) last_ended_ms: Option<i64>,
    /// The instant that waits for the end of an earlier task.
    pub(crate) queued_ms: Option<i64>,
    /// Since when the schedule is paused.
    pub(crate) paused_ms: Option<i64>,
    /// Why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pause_cause: Option<PauseCause>,
    /// When the last pause ended: instants up to then are skipped.
    pub(crate) resumed_ms: Option<i64>,
}

/// Why a schedule is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum PauseCause {
    /// A person asked for it.
    ByHand {
        /// The reason that the person gave.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Occurrences failed in a row.
    Failures {
        /// How many.
        count: u32,
    },
}

/// Why an instant was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SkipReason {
    /// The service came to it too late, and the policy does not make up for it.
    Missed,
    /// An earlier task had no outcome.
    Overlap,
    /// The schedule was paused.
    Paused,
}

/// The decision on an instant that is due. The transaction that records it advances the
/// schedule's state by [`ScheduleState::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It becomes a task.
    Fire {
        instant_ms: i64,
        /// It was recorded as waiting by [`Decision::Queue`] before.
        queued: bool,
        /// The tasks of the schedule that have no outcome are cancelled.
        cancel_previous: bool,
    },
    /// It waits for the end of an earlier task.
    Queue { instant_ms: i64 },
    /// It is skipped.
    Skip { instant_ms: i64, reason: SkipReason },
    /// So many instants in a row are skipped for one reason, from the first to the last.
    SkipMany { first_ms: i64, last_ms: i64, count: u64, reason: SkipReason },
}

/// How an occurrence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The task succeeded.
    Succeeded,
    /// The task had another outcome, or could not be placed.
    Failed,
    /// The task was cancelled: neither a success nor a failure.
    Cancelled,
}

impl ScheduleState {
    /// The state of a schedule that is added.
    pub(crate) fn added(now_ms: i64) -> Self {
        Self { cursor_ms: now_ms, ..Self::default() }
    }

    /// The same state, behind the newest instant of which the record was forgotten with its task:
    /// no instant up to that one is done again.
    pub(crate) fn behind(mut self, forgotten_ms: Option<i64>) -> Self {
        self.cursor_ms = forgotten_ms.map_or(self.cursor_ms, |ms| ms.max(self.cursor_ms));
        self
    }

    /// Notes that an instant has its record.
    pub(crate) fn apply(&mut self, record: &Decision) {
        match *record {
            Decision::Fire { instant_ms, queued, .. } => {
                if queued {
                    self.queued_ms = None;
                } else {
                    self.cursor_ms = instant_ms;
                }
                self.tasks += 1;
                self.running += 1;
            }
            Decision::Queue { instant_ms } => {
                self.cursor_ms = instant_ms;
                self.queued_ms = Some(instant_ms);
            }
            Decision::Skip { instant_ms, .. } => self.cursor_ms = instant_ms,
            Decision::SkipMany { last_ms, .. } => self.cursor_ms = last_ms,
        }
    }

    /// Notes that the instant of a [`Decision::Fire`] could not become a task.
    pub(crate) fn apply_unplaced(&mut self, record: &Decision, policy: &Policy, now_ms: i64) {
        self.apply(record);
        self.tasks = self.tasks.saturating_sub(1);
        self.ended(End::Failed, policy, now_ms);
    }

    /// Notes that a person had a task made, beside the instants of the rule.
    pub(crate) fn run_by_hand(&mut self) {
        self.running += 1;
    }

    /// Notes the end of a task, and pauses the schedule after too many failures in a row.
    pub(crate) fn ended(&mut self, end: End, policy: &Policy, now_ms: i64) {
        self.running = self.running.saturating_sub(1);
        self.last_ended_ms = self.last_ended_ms.max(Some(now_ms));
        match end {
            End::Succeeded => self.failures = 0,
            End::Failed => self.failures = self.failures.saturating_add(1),
            End::Cancelled => {}
        }
        if policy.pause_after.is_some_and(|most| end == End::Failed && self.failures >= most) {
            self.pause(now_ms, PauseCause::Failures { count: self.failures });
        }
    }

    /// Notes that the schedule is paused. A schedule that is paused already stays as it is.
    pub(crate) fn pause(&mut self, now_ms: i64, cause: PauseCause) {
        if self.paused_ms.is_none() {
            self.paused_ms = Some(now_ms);
            self.pause_cause = Some(cause);
        }
    }

    /// Notes that the schedule goes on.
    pub(crate) fn resume(&mut self, now_ms: i64) {
        self.pause_cause = None;
        if self.paused_ms.take().is_some() {
            self.resumed_ms = self.resumed_ms.max(Some(now_ms));
            self.failures = 0;
        }
    }
}
