//! The steps of a task, in order, from its record, its last result and the last event of its
//! endpoint. Pure.

use super::TaskDetail;
use clutch_common::wire::Phase;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that happened to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepKind {
    /// The service recorded the task.
    Recorded,
    /// The task was due.
    Due,
    /// The service released it, as it was due.
    Released,
    /// The broker confirmed that it has the task.
    Confirmed,
    /// The endpoint accepted it.
    Accepted,
    /// Its process was started, or its call was sent to a worker.
    Started,
    /// It told progress.
    Progress,
    /// It ended.
    Finished,
    /// The endpoint handed its result to the link.
    Published,
    /// The service recorded its result.
    ResultRecorded,
}

impl StepKind {
    /// The words for people.
    #[must_use]
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Due => "due",
            Self::Released => "released",
            Self::Confirmed => "confirmed",
            Self::Accepted => "accepted",
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Finished => "finished",
            Self::Published => "published",
            Self::ResultRecorded => "result recorded",
        }
    }

    /// Whether the endpoint's clock told its time, and not the service's.
    #[must_use]
    pub(crate) fn by_endpoint(self) -> bool {
        match self {
            Self::Accepted | Self::Started | Self::Progress | Self::Finished | Self::Published => {
                true
            }
            Self::Recorded
            | Self::Due
            | Self::Released
            | Self::Confirmed
            | Self::ResultRecorded => false,
        }
    }
}

/// A step of a task's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TimelineStep {
    /// The step.
    pub(crate) step: StepKind,
    /// When, in milliseconds since the Unix epoch: by the endpoint's clock what happened
    /// there, by the service's clock the rest.
    pub(crate) at_ms: u64,
    /// How long after the step before; negative where the two clocks differ by more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after_ms: Option<i64>,
}

/// The timeline of a task: of its last attempt, from what is known. In the order of the times,
/// as an endpoint may have a task before its confirm is there; where the two clocks contradict
/// each other, in the order in which the steps happen to most tasks.
#[must_use]
pub(crate) fn timeline(detail: &TaskDetail) -> Vec<TimelineStep> {
    let mut steps = steps(detail);
    if !clocks_differ(&steps) {
        steps.sort_by_key(|(_, at_ms)| *at_ms);
    }
    let mut before: Option<u64> = None;
    let with_duration = |(step, at_ms): (StepKind, u64)| {
        let after = before.replace(at_ms).map(|then| i128::from(at_ms) - i128::from(then));
        let after_ms = after.map(|after| i64::try_from(after).unwrap_or_default());
        TimelineStep { step, at_ms, after_ms }
    };
    steps.into_iter().map(with_duration).collect()
}

/// The steps that are known, with their times.
fn steps(detail: &TaskDetail) -> Vec<(StepKind, u64)> {
    let summary = &detail.summary;
    let decisive = detail.results.iter().find(|one| Some(one.result.attempt) == summary.attempt);
    let result = decisive.map(|one| &one.result);
    let live = detail.live.as_ref();
    let running = live.filter(|live| live.phase == Phase::Running);
    let waiting = live.filter(|live| live.phase == Phase::Accepted);
    let accepted = result
        .and_then(|result| result.accepted_at_ms)
        .or_else(|| live.and_then(|live| live.accepted_at_ms))
        .or_else(|| waiting.map(|live| live.since_ms));
    let started = result
        .and_then(|result| result.started_at_ms)
        .or_else(|| running.map(|live| live.since_ms));
    let progress = live.and_then(|live| live.progress.as_ref()).map(|progress| progress.at_ms);
    let steps = [
        (StepKind::Recorded, Some(summary.created_at_ms)),
        (StepKind::Due, detail.released_at_ms.and(detail.due_at_ms)),
        (StepKind::Released, detail.released_at_ms),
        (StepKind::Confirmed, summary.submitted_at_ms),
        (StepKind::Accepted, accepted),
        (StepKind::Started, started),
        (StepKind::Progress, progress),
        (StepKind::Finished, result.map(|result| result.ended_at_ms)),
        (StepKind::Published, result.and_then(|result| result.published_at_ms)),
        (StepKind::ResultRecorded, decisive.map(|one| one.received_at_ms)),
    ];
    steps.into_iter().filter_map(|(step, at)| Some((step, at?))).collect()
}

/// Whether something happened at the endpoint before the task was recorded, or after its result
/// was.
fn clocks_differ(steps: &[(StepKind, u64)]) -> bool {
    let of = |step| steps.iter().find(|(found, _)| *found == step).map(|(_, at_ms)| *at_ms);
    let first = of(StepKind::Recorded).unwrap_or(0);
    let last = of(StepKind::ResultRecorded).unwrap_or(u64::MAX);
    let mut there = steps.iter().filter(|(step, _)| step.by_endpoint());
    there.any(|(_, at_ms)| !(first..=last).contains(at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, LiveTask, Recorded, TaskState, TaskSummary};
    use clutch_common::id::{Attempt, EndpointId, TaskId};
    use clutch_common::task::priority::Priority;
    use clutch_common::task::result::{Outcome, TaskResult};

    fn detail() -> TaskDetail {
        let summary = TaskSummary {
            id: TaskId::new(),
            endpoint: EndpointId::new(),
            endpoint_name: None,
            topic: None,
            key: None,
            index: None,
            name: None,
            command: None,
            state: TaskState::Submitted,
            attempt: None,
            created_at_ms: 1000,
            submitted_at_ms: Some(1040),
            ended_at_ms: None,
            priority: Priority::Normal,
            cores: 1,
            progress: None,
        };
        let (task, asked, results, live, why) = (None, None, Vec::new(), None, None);
        let (retry_at_ms, timeline) = (None, Vec::new());
        TaskDetail {
            summary,
            task,
            due_at_ms: None,
            released_at_ms: None,
            late_ms: None,
            placement: None,
            retry_at_ms,
            asked,
            results,
            live,
            why,
            ring: Vec::new(),
            kept_messages: 0,
            family: Family::default(),
            timeline,
        }
    }

    fn told(detail: &TaskDetail) -> Vec<(&'static str, u64, Option<i64>)> {
        let steps = timeline(detail);
        steps.iter().map(|one| (one.step.words(), one.at_ms, one.after_ms)).collect()
    }

    #[test]
    fn a_task_that_runs_has_come_as_far_as_its_endpoint_told() {
        let mut detail = detail();
        detail.live = Some(LiveTask {
            attempt: 1,
            phase: Phase::Running,
            since_ms: 1030,
            accepted_at_ms: Some(1020),
            progress: None,
            waits_for: None,
            waits: Vec::new(),
            heard_at_ms: 5000,
            stale: false,
        });
        let expected = [
            ("recorded", 1000, None),
            ("accepted", 1020, Some(20)),
            ("started", 1030, Some(10)),
            ("confirmed", 1040, Some(10)),
        ];
        assert_eq!(told(&detail), expected);
    }

    #[test]
    fn clocks_are_told_to_differ_only_where_they_contradict_each_other() {
        let mut detail = detail();
        let attempt = Attempt { task_id: detail.summary.id, attempt: 1 };
        let endpoint = detail.summary.endpoint;
        let result = |accepted, ended| TaskResult {
            accepted_at_ms: Some(accepted),
            ..TaskResult::not_run(attempt, Outcome::Succeeded, "".into(), endpoint, ended)
        };
        detail.summary.attempt = Some(1);
        let mut durations = |accepted, ended| -> Vec<(&'static str, i64)> {
            let result = result(accepted, ended);
            detail.results = vec![Recorded { result, duplicates: 0, received_at_ms: 1100 }];
            let told = told(&detail).into_iter();
            told.filter_map(|(step, _, after)| Some((step, after?))).collect()
        };
        let expected =
            [("accepted", 1), ("finished", 9), ("confirmed", 30), ("result recorded", 60)];
        assert_eq!(durations(1001, 1010), expected);
        let behind =
            [("confirmed", 40), ("accepted", -540), ("finished", 10), ("result recorded", 590)];
        assert_eq!(durations(500, 510), behind);
        let ahead =
            [("confirmed", 40), ("accepted", 960), ("finished", 10), ("result recorded", -910)];
        assert_eq!(durations(2000, 2010), ahead);
    }

    #[test]
    fn a_task_that_is_done_is_told_by_the_result_that_decided() {
        let mut detail = detail();
        let attempt = |attempt| Attempt { task_id: detail.summary.id, attempt };
        let result = |number, started| TaskResult {
            accepted_at_ms: Some(1999),
            started_at_ms: started,
            published_at_ms: Some(3002),
            ..TaskResult::not_run(
                attempt(number),
                Outcome::Succeeded,
                "".into(),
                detail.summary.endpoint,
                3000,
            )
        };
        let recorded = |result| Recorded { result, duplicates: 0, received_at_ms: 3007 };
        detail.results = vec![recorded(result(1, Some(7))), recorded(result(2, Some(2000)))];
        detail.summary.attempt = Some(2);
        let expected = [
            ("recorded", 1000, None),
            ("confirmed", 1040, Some(40)),
            ("accepted", 1999, Some(959)),
            ("started", 2000, Some(1)),
            ("finished", 3000, Some(1000)),
            ("published", 3002, Some(2)),
            ("result recorded", 3007, Some(5)),
        ];
        assert_eq!(told(&detail), expected);
    }
}
