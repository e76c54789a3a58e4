//! Schedules and their occurrences in words for people. Pure.

use crate::client::moment;
use crate::model::{
    Occurrence, ScheduleSpec, ScheduleSummary, TaskSpec, TaskState, fields, quoted,
};
use crate::schedule::{PauseCause, Policy, Zone};
use clutch_common::text::counted::counted;
use std::time::Duration;

/// A task that was recorded no later than this after its moment is not called late, in
/// milliseconds.
const LATE_MS: u64 = 1000;

/// A moment as the clocks of a schedule's zone show it.
pub(super) fn local(zone: &Zone, ms: i64) -> String {
    zone.shown(ms, "%a %Y-%m-%d %H:%M:%S%.f %:z")
}

/// The work of the tasks of a schedule, and their endpoint.
pub(super) fn work(spec: &ScheduleSpec) -> String {
    let work = match &spec.task.call {
        Some(call) => call.to_string(),
        None => {
            let words = spec.task.argv.iter().map(|word| quoted(&word.shown()).into_owned());
            words.collect::<Vec<_>>().join(" ")
        }
    };
    format!("{work}, at {}", spec.endpoint)
}

/// The options that were given beside the rule and the work.
pub(super) fn options(spec: &ScheduleSpec) -> Option<String> {
    let task = TaskSpec {
        name: spec.task.name.clone(),
        argv: spec.task.argv.clone(),
        call: spec.task.call.clone(),
        ..TaskSpec::plain()
    };
    let none = ScheduleSpec { policy: Policy::default(), task, retry: None, ..spec.clone() };
    let none = fields(&none);
    let given = fields(spec).into_iter().filter(|field| !none.contains(field));
    let given: Vec<String> = given.map(|(name, value)| format!("{name} {value}")).collect();
    (!given.is_empty()).then(|| given.join("; "))
}

/// How a schedule is.
pub(super) fn state(schedule: &ScheduleSummary) -> String {
    if let Some(reason) = &schedule.broken {
        return format!("broken: {reason}");
    }
    let running = match schedule.running {
        0 => String::new(),
        running => format!(", {} under way", counted(running, "task")),
    };
    let state = match schedule.paused_ms {
        Some(since) => {
            let cause = match &schedule.pause_cause {
                Some(PauseCause::ByHand { reason: Some(reason) }) => format!("by hand: {reason}"),
                Some(PauseCause::Failures { count }) => {
                    format!("{} in a row", counted(u64::from(*count), "failure"))
                }
                Some(PauseCause::ByHand { reason: None }) | None => "by hand".to_owned(),
            };
            format!("paused since {} ({cause})", moment(u64::try_from(since).unwrap_or(0)))
        }
        None if schedule.due_at_ms.is_none() && schedule.running == 0 => "over".to_owned(),
        None => "active".to_owned(),
    };
    state + &running
}

/// How an occurrence ended, in few words.
pub(super) fn end(occurrence: &Occurrence) -> String {
    match (occurrence.end.as_str(), &occurrence.reason) {
        ("task", _) => occurrence.state.map_or("forgotten", TaskState::as_str).to_owned(),
        ("skipped", Some(reason)) => format!("skipped ({reason})"),
        (end, _) => end.to_owned(),
    }
}

/// An occurrence in a line: its instant, and how it ended.
pub(super) fn occurrence(zone: &Zone, occurrence: &Occurrence) -> String {
    let mut line = format!("{}  {}", local(zone, occurrence.instant_ms), end(occurrence));
    if let Some(task) = &occurrence.task {
        line.push_str(&format!("  {task}"));
    }
    if occurrence.by_hand {
        line.push_str(", by hand");
    }
    if let Some(late_ms) = occurrence.late_ms.filter(|late_ms| *late_ms > LATE_MS) {
        let late = humantime::format_duration(Duration::from_millis(late_ms));
        line.push_str(&format!(", {late} late"));
    }
    let reason = match (occurrence.end.as_str(), occurrence.reason.as_deref()) {
        ("skipped", Some("missed")) => "the service came to it too late",
        ("skipped", Some("overlap")) => "an earlier task had no outcome",
        ("skipped", Some("paused")) => "the schedule was paused",
        ("skipped", Some("removed")) => "the schedule was removed",
        ("skipped", Some("replaced")) => "the schedule got another rule",
        ("queued", _) => "it waits for the end of an earlier task",
        (_, reason) => reason.unwrap_or_default(),
    };
    if !reason.is_empty() {
        line.push_str(&format!(": {reason}"));
    }
    if let Some(last_ms) = occurrence.last_ms {
        let count = occurrence.instants;
        line.push_str(&format!("; {count} instants, up to {}", local(zone, last_ms)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ScheduleDetail;
    use serde_json::{Value, json};

    fn schedule(others: Value) -> ScheduleSummary {
        let mut all = json!({
            "name": "a", "owner": null, "broken": null, "added_at_ms": 0, "due_at_ms": 9000,
            "paused_ms": null, "pause_cause": null, "tasks": 0, "running": 0, "failures": 0,
            "last": null, "spec": { "endpoint": "lab", "rule": { "recurrence": { "every_ms": 1000 } },
                                    "task": { "argv": ["echo", "a b"] } },
            "next_ms": [], "occurrences": [],
        });
        let (Value::Object(all_members), Value::Object(others)) = (&mut all, others) else {
            panic!("no objects");
        };
        all_members.extend(others);
        serde_json::from_value::<ScheduleDetail>(all).unwrap().summary
    }

    #[test]
    fn the_state_of_a_schedule_tells_why_it_makes_no_tasks() {
        for (others, told) in [
            (json!({}), "active"),
            (json!({ "running": 2 }), "active, 2 tasks under way"),
            (json!({ "due_at_ms": null, "running": 1 }), "active, 1 task under way"),
            (json!({ "due_at_ms": null }), "over"),
            (
                json!({ "paused_ms": 1000, "pause_cause": { "kind": "failures", "count": 3 } }),
                "paused since 1970-01-01T00:00:01Z (3 failures in a row)",
            ),
            (
                json!({ "paused_ms": 0, "pause_cause": { "kind": "by_hand", "reason": "full" } }),
                "paused since 1970-01-01T00:00:00Z (by hand: full)",
            ),
            (json!({ "broken": "spec: no", "spec": null }), "broken: spec: no"),
        ] {
            assert_eq!(state(&schedule(others)), told);
        }
    }

    #[test]
    fn the_work_is_shown_as_a_command_line_and_only_options_that_are_given() {
        let spec = schedule(json!({})).spec.unwrap();
        assert_eq!((work(&spec), options(&spec)), ("echo 'a b', at lab".to_owned(), None));
        let mut given = spec;
        given.task.walltime_ms = Some(90_000);
        given.policy.pause_after = Some(3);
        assert_eq!(options(&given).as_deref(), Some("pause-after 3; walltime 1m 30s"));
    }

    #[test]
    fn an_occurrence_is_its_instant_and_its_end() {
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let shown = |others: Value| {
            let mut all = json!({
                "instant_ms": 0, "instants": 1, "end": "task", "by_hand": false,
                "recorded_at_ms": 0,
            });
            let (Value::Object(members), Value::Object(others)) = (&mut all, others) else {
                panic!("no objects");
            };
            members.extend(others);
            occurrence(&zone, &serde_json::from_value(all).unwrap())
        };
        let at = "Thu 1970-01-01 01:00:00 +01:00";
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        for (others, told) in [
            (json!({ "task": id, "state": "succeeded" }), format!("succeeded  {id}")),
            (json!({ "task": id, "late_ms": 61_000 }), format!("forgotten  {id}, 1m 1s late")),
            (
                json!({ "task": id, "state": "running", "by_hand": true }),
                format!("running  {id}, by hand"),
            ),
            (
                json!({ "end": "skipped", "reason": "overlap" }),
                "skipped (overlap): an earlier task had no outcome".to_owned(),
            ),
            (
                json!({ "end": "failed", "reason": "there is no endpoint 'x'" }),
                "failed: there is no endpoint 'x'".to_owned(),
            ),
            (
                json!({ "end": "skipped", "reason": "missed", "instants": 7, "last_ms": 60_000 }),
                "skipped (missed): the service came to it too late; 7 instants, up to Thu \
                 1970-01-01 01:01:00 +01:00"
                    .to_owned(),
            ),
        ] {
            assert_eq!(shown(others), format!("{at}  {told}"));
        }
    }
}
