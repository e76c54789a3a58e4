//! Lists schedules, and shows one with its next instants and its last occurrences.

use super::path;
use super::words::{end, local, occurrence, options, state, work};
use crate::api::schedules::SchedulePage;
use crate::api::types::MAX_PAGE;
use crate::cli::output;
use crate::client::{Client, moment, table};
use crate::model::{ScheduleDetail, ScheduleSpec, ScheduleSummary};
use crate::schedule::{Recurrence, ScheduleId, Zone};
use clutch_common::system::clock::now_ms;
use clutch_common::text::counted::counted;

/// The names of the columns.
const COLUMNS: [&str; 6] = ["NAME", "RULE", "NEXT", "LAST", "END", "STATE"];

/// Prints schedules by name: a table, or one JSON object.
pub(super) async fn list(client: &Client, owner: Option<&str>, json: bool) -> anyhow::Result<()> {
    let all = all(client, owner).await?;
    if json {
        return output::json(&SchedulePage { schedules: all, next: None });
    }
    if all.is_empty() {
        let words = match owner {
            Some(owner) => format!("The owner '{owner}' declares no schedule."),
            None => "There is no schedule yet: `clutch-service schedule add`.".to_owned(),
        };
        return Ok(output::line(&words)?);
    }
    for line in table::lines(COLUMNS, all.iter().map(row)) {
        output::line(&line)?;
    }
    Ok(())
}

/// All schedules, or those of an owner.
pub(super) async fn all(
    client: &Client,
    owner: Option<&str>,
) -> anyhow::Result<Vec<ScheduleSummary>> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut parameters = vec![("limit", MAX_PAGE.to_string())];
        parameters.extend(owner.map(|owner| ("owner", owner.to_owned())));
        parameters.extend(after.map(|after| ("after", after)));
        let page: SchedulePage = client.get("/v1/schedules", &parameters).await?;
        all.extend(page.schedules);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

fn row(schedule: &ScheduleSummary) -> [String; COLUMNS.len()] {
    let none = || "-".to_owned();
    let zone = zone(schedule);
    let rule = schedule.spec.as_ref().map(|spec| spec.rule.words());
    let next = schedule.due_at_ms.and_then(|due| i64::try_from(due).ok());
    let last = schedule.last.as_ref();
    [
        schedule.name.clone(),
        rule.map_or_else(none, |rule| output::one_line(&rule)),
        next.map_or_else(none, |due| local(&zone, due)),
        last.map_or_else(none, |last| local(&zone, last.last_ms.unwrap_or(last.instant_ms))),
        last.map_or_else(none, end),
        output::one_line(&state(schedule)),
    ]
}

/// The zone of a schedule; UTC where that cannot be read.
fn zone(schedule: &ScheduleSummary) -> Zone {
    schedule.spec.as_ref().map_or_else(Zone::utc, |spec| spec.rule.zone.clone())
}

/// Prints everything known about one schedule.
pub(super) async fn show(client: &Client, name: &str, json: bool) -> anyhow::Result<()> {
    let detail: ScheduleDetail = client.get(&path(name, ""), &[]).await?;
    if json {
        return output::json(&detail);
    }
    for line in lines(&detail, now_ms()) {
        output::line(&line)?;
    }
    Ok(())
}

fn lines(detail: &ScheduleDetail, now_ms: u64) -> Vec<String> {
    let schedule = &detail.summary;
    let mut fields = vec![("schedule", schedule.name.clone())];
    fields.extend(schedule.owner.clone().map(|owner| ("owner", owner)));
    if let Some(spec) = &schedule.spec {
        fields.push(("rule", spec.rule.words()));
        fields.push(("task", work(spec)));
        fields.extend(options(spec).map(|options| ("options", options)));
    }
    fields.push(("state", state(schedule)));
    fields.push(("added", moment(schedule.added_at_ms)));
    let failures = counted(u64::from(schedule.failures), "failure");
    fields.push(("tasks", format!("{} by its rule; {failures} in a row", schedule.tasks)));
    let line = |(name, value): (&str, String)| format!("{name:<12} {}", output::one_line(&value));
    let mut lines: Vec<String> = fields.into_iter().map(line).collect();
    let zone = zone(schedule);
    let next = schedule.spec.as_ref().map_or_else(Vec::new, |spec| next(detail, spec, now_ms));
    lines.extend(titled("next", next));
    let last = detail.occurrences.iter().map(|one| output::one_line(&occurrence(&zone, one)));
    lines.extend(titled("last", last.collect()));
    lines
}

/// Lines under a title, of which the first stands beside it.
fn titled(title: &str, lines: Vec<String>) -> Vec<String> {
    let lines = if lines.is_empty() { vec!["none".to_owned()] } else { lines };
    let titles = std::iter::once(title).chain(std::iter::repeat(""));
    titles.zip(lines).map(|(title, line)| format!("{title:<12} {line}")).collect()
}

/// The next instants of a schedule, each with the start of its task where that is later.
fn next(detail: &ScheduleDetail, spec: &ScheduleSpec, now_ms: u64) -> Vec<String> {
    let schedule = &detail.summary;
    let (rule, id) = (&spec.rule, ScheduleId::of(&schedule.name));
    if schedule.paused_ms.is_some() {
        let resumed = rule.next_after(i64::try_from(now_ms).unwrap_or(i64::MAX));
        let resumed = resumed.map(|ms| format!("; resumed now, at {}", local(&rule.zone, ms)));
        return vec![format!("none while it is paused{}", resumed.unwrap_or_default())];
    }
    if matches!(rule.recurrence, Recurrence::AfterEndMs(_)) && schedule.running > 0 {
        return vec!["when the task that is under way has ended".to_owned()];
    }
    let line = |instant_ms: &i64| {
        let due_ms = rule.due_at(id, *instant_ms);
        let instant = local(&rule.zone, *instant_ms);
        if due_ms == *instant_ms {
            return instant;
        }
        format!("{instant}, its task {}", rule.zone.shown(due_ms, "%H:%M:%S%.f %:z"))
    };
    detail.next_ms.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schedule_is_shown_in_its_zone_with_its_next_instants_and_last_occurrences() {
        let detail = json!({
            "name": "nightly", "owner": "site", "broken": null, "added_at_ms": 0,
            "due_at_ms": 1_796_004_000_000_u64, "paused_ms": null, "pause_cause": null, "tasks": 1,
            "running": 0, "failures": 0, "last": null,
            "spec": { "endpoint": "lab", "task": { "argv": ["/opt/backup"] },
                      "rule": { "recurrence": { "cron": "0 3 * * *" }, "zone": "Europe/Berlin" } },
            "next_ms": [1_796_004_000_000_i64, 1_796_090_400_000_i64],
            "occurrences": [{
                "instant_ms": 1_795_917_600_000_i64, "instants": 1, "end": "failed",
                "reason": "there is no endpoint 'lab'", "by_hand": false, "recorded_at_ms": 0,
            }],
        });
        let detail: ScheduleDetail = serde_json::from_value(detail).unwrap();
        let expected = [
            "schedule     nightly",
            "owner        site",
            "rule         cron 0 3 * * * in Europe/Berlin",
            "task         /opt/backup, at lab",
            "state        active",
            "added        1970-01-01T00:00:00Z",
            "tasks        1 by its rule; 0 failures in a row",
            "next         Mon 2026-11-30 03:00:00 +01:00",
            "             Tue 2026-12-01 03:00:00 +01:00",
            "last         Sun 2026-11-29 03:00:00 +01:00  failed: there is no endpoint 'lab'",
        ];
        assert_eq!(lines(&detail, 0), expected);
        let mut paused = detail;
        paused.summary.paused_ms = Some(0);
        paused.next_ms.clear();
        let shown = lines(&paused, 1_796_025_600_000);
        let words =
            "next         none while it is paused; resumed now, at Tue 2026-12-01 03:00:00 +01:00";
        assert!(shown.iter().any(|line| line == words), "{shown:#?}");
    }
}
