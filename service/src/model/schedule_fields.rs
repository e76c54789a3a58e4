//! The fields of a schedule by the names of their options, and in which of them two specifications
//! differ. Pure.
//!
//! Fields are the members of the specification as JSON has it, so that none is forgotten.

use super::schedules::ScheduleSpec;
use crate::schedule::Zone;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The value of a field that a specification does not have.
const NONE: &str = "none";

/// The fields of a specification: the names of the options, each with its value in words.
pub(crate) fn fields(spec: &ScheduleSpec) -> Vec<(String, String)> {
    let members = members(spec);
    members.iter().map(|(path, value)| (option(path), shown(path, value))).collect()
}

/// In what a specification differs from the one before: the option, the value before, and the
/// value after.
pub(crate) fn differences(before: &ScheduleSpec, after: &ScheduleSpec) -> Vec<String> {
    let same = before == after;
    let (before, after) = (members(before), members(after));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let in_words = |members: &BTreeMap<String, Value>, path: &String| {
        members.get(path).map_or(NONE.to_owned(), |value| shown(path, value))
    };
    let mut differences: Vec<String> = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| {
            let (was, is) = (in_words(&before, path), in_words(&after, path));
            format!("{}: {was} → {is}", option(path))
        })
        .collect();
    if differences.is_empty() && !same {
        differences.push("a number in the arguments of the call is written otherwise".to_owned());
    }
    differences
}

/// The members of a specification by their paths. A list is one member.
fn members(spec: &ScheduleSpec) -> BTreeMap<String, Value> {
    fn add(path: &str, value: Value, members: &mut BTreeMap<String, Value>) {
        let Value::Object(object) = value else {
            members.insert(path.to_owned(), value);
            return;
        };
        for (name, value) in object {
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            add(&path, value, members);
        }
    }
    let mut all = BTreeMap::new();
    add("", serde_json::to_value(spec).unwrap_or_default(), &mut all);
    all
}

/// The option that says a member.
fn option(path: &str) -> String {
    let known = match path {
        "rule.zone" => Some("tz"),
        "rule.recurrence.after_end_ms" => Some("every, after the end"),
        "task.expires_in_ms" => Some("expires"),
        "retry.first_pause_ms" => Some("backoff, first"),
        "retry.longest_pause_ms" => Some("backoff, longest"),
        "retry.on" => Some("retry-on"),
        _ => None,
    };
    if let Some(known) = known {
        return known.to_owned();
    }
    let parts = ["rule.recurrence.", "rule.", "policy.", "task.", "retry."];
    let name = parts.iter().find_map(|part| path.strip_prefix(part)).unwrap_or(path);
    if name.starts_with("env.") || name.starts_with("call.") {
        return name.replacen('.', " ", 1);
    }
    name.strip_suffix("_ms").unwrap_or(name).replace('_', "-")
}

/// The value of a member in words.
fn shown(path: &str, value: &Value) -> String {
    match (path, value) {
        ("rule.from_ms" | "rule.until_ms", Value::Number(ms)) => {
            ms.as_i64().map_or(ms.to_string(), |ms| Zone::utc().utc_shown(ms))
        }
        (path, Value::Number(ms)) if path.ends_with("_ms") => {
            let span = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
            ms.as_u64().map_or(ms.to_string(), span)
        }
        (_, Value::String(text)) => text.clone(),
        (_, value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(rule: Value, others: Value) -> ScheduleSpec {
        let mut spec = json!({ "endpoint": "lab", "rule": rule, "task": { "argv": ["true"] } });
        let (Value::Object(all), Value::Object(others)) = (&mut spec, others) else {
            panic!("no objects");
        };
        all.extend(others);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_difference_has_the_option_and_both_values() {
        let every = |ms: i64| spec(json!({ "recurrence": { "every_ms": ms } }), json!({}));
        assert_eq!(differences(&every(1000), &every(1000)), Vec::<String>::new());
        assert_eq!(differences(&every(1000), &every(90_000)), ["every: 1s → 1m 30s"]);
        let cron = spec(
            json!({ "recurrence": { "cron": "0 3 * * *" }, "zone": "Europe/Berlin",
                    "from_ms": 1_796_025_600_000_i64, "max_runs": 5 }),
            json!({ "retry": { "retries": 2 }, "policy": { "pause_after": 3 },
                    "task": { "argv": ["a", "b"], "env": { "A": "1" }, "walltime_ms": 9000 } }),
        );
        assert_eq!(
            differences(&every(1000), &cron),
            [
                "pause-after: none → 3",
                "backoff, first: none → 1s",
                "backoff, longest: none → 1m",
                r#"retry-on: none → ["failed","timed_out"]"#,
                "retries: none → 2",
                "from: none → 2026-11-30T08:00:00Z",
                "max-runs: none → 5",
                "cron: none → 0 3 * * *",
                "every: 1s → none",
                "tz: UTC → Europe/Berlin",
                r#"argv: ["true"] → ["a","b"]"#,
                "env A: none → 1",
                "walltime: none → 9s",
            ]
        );
    }

    #[test]
    fn a_number_that_is_written_otherwise_is_a_difference() {
        let call = |args: &str| {
            let text = format!(
                r#"{{"endpoint":"lab","rule":{{"recurrence":{{"every_ms":1000}}}},
                   "task":{{"call":{{"function":"f","args":{args}}}}}}}"#
            );
            serde_json::from_str::<ScheduleSpec>(&text).unwrap()
        };
        assert_eq!(differences(&call("[1]"), &call("[2]")), ["call args: [1] → [2]"]);
        assert_eq!(differences(&call("[1.0]"), &call("[1.00]")).len(), 1);
        assert!(differences(&call("[1.0]"), &call("[1.0]")).is_empty());
    }

    #[test]
    fn every_field_of_a_schedule_is_named() {
        let spec = spec(json!({ "recurrence": { "after_end_ms": 1000 } }), json!({}));
        let names: Vec<String> = fields(&spec).into_iter().map(|(name, _)| name).collect();
        let expected = [
            "endpoint",
            "catch-up",
            "overlap",
            "window",
            "jitter",
            "every, after the end",
            "tz",
            "argv",
            "rerun",
        ];
        assert_eq!(names, expected);
    }
}
