//! Shows everything known about one task.

use super::endpoints::{age, ring_words};
use super::{family, moment};
use crate::api::types::Health;
use crate::cli::ShowArgs;
use crate::cli::output;
use crate::client::Client;
use crate::model::{
    Asked, Recorded, TaskDetail, TaskState, TaskSummary, TimelineStep, progress_words,
};

use clutch_common::system::clock::now_ms;
use clutch_common::task::Work;
use clutch_common::task::result::TaskResult;
use clutch_common::text::counted::counted;
use clutch_common::text::printable;
use clutch_common::topology;
use clutch_common::wire::MessageWait;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Prints a task, its terms and the results of its attempts.
pub(crate) async fn run(client: &Client, args: &ShowArgs, json: bool) -> anyhow::Result<()> {
    let detail: TaskDetail = client.get(&format!("/v1/tasks/{}", args.task), &[]).await?;
    if json {
        return output::json(&detail);
    }
    let warnings = warnings(client, &detail.summary).await?;
    for (name, value) in lines(&detail).into_iter().chain(warnings) {
        output::line(&format!("{name:<12} {}", output::one_line(&value)))?;
    }
    for line in timeline(&detail) {
        output::line(&line)?;
    }
    for line in family::lines(detail.summary.id, detail.summary.state, &detail.family) {
        output::line(&line)?;
    }
    for recorded in &detail.results {
        attempt(recorded)?;
    }
    under_way(&detail)?;
    Ok(())
}

/// Why a task may have no outcome yet: what takes messages from the queues it, or its
/// result, goes through.
async fn warnings(
    client: &Client,
    task: &TaskSummary,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    if matches!(task.state, TaskState::Done(_)) {
        return Ok(Vec::new());
    }
    let health: Health = client.get("/v1/health", &[]).await?;
    let queues = [topology::tasks_queue(task.endpoint), topology::RESULTS_QUEUE.to_owned()];
    let hazards = health.policies.into_iter().filter(|hazard| queues.contains(&hazard.queue));
    Ok(hazards.map(|hazard| ("warning", hazard.words)).collect())
}

fn lines(detail: &TaskDetail) -> Vec<(&'static str, String)> {
    let summary = &detail.summary;
    let mut lines = vec![("task", summary.id.to_string()), ("state", state(summary.state))];
    lines.extend(recipient(detail));
    lines.extend(summary.name.clone().map(|name| ("name", name)));
    lines.extend(
        summary
            .key
            .as_ref()
            .zip(summary.index)
            .map(|(key, index)| ("submission", format!("{key}, task {index}"))),
    );
    lines.extend(detail.released_at_ms.zip(detail.late_ms).map(|(at, late)| {
        let late = humantime::format_duration(Duration::from_millis(late));
        ("released", format!("{}, {late} after its moment", moment(at)))
    }));
    lines.extend(detail.why.as_ref().map(|why| ("why", why.words.clone())));
    let progress = detail.live.as_ref().and_then(|live| live.progress.as_ref());
    lines.extend(progress.map(|progress| {
        ("progress", format!("{} ({})", progress_words(progress), moment(progress.at_ms)))
    }));
    let waits = detail.live.iter().flat_map(|live| &live.waits);
    lines.extend(waits.map(|wait| ("waits", wait_words(wait, now_ms()))));
    if detail.kept_messages > 0 {
        let kept = counted(detail.kept_messages, "message");
        lines.push(("mailbox", format!("{kept} kept until a process of the task takes them")));
    }
    if !detail.ring.is_empty() {
        lines.push(("ring", ring_words(&detail.ring)));
    }
    lines.extend(detail.asked.map(|asked| ("asked", words(asked))));
    if let Some(task) = &detail.task {
        lines.extend(work(&task.work));
        lines.extend(
            task.walltime().map(|time| ("walltime", humantime::format_duration(time).to_string())),
        );
        lines.extend(task.expires_at_ms.map(|at| ("expires", moment(at))));
        lines.extend((!task.priority.is_normal()).then(|| ("priority", task.priority.to_string())));
        lines.extend((task.cores != 1).then(|| ("cores", task.cores.to_string())));
        lines.extend((!task.rerun).then(|| ("rerun", "never".to_owned())));
        lines.extend((task.attempt > 1).then(|| ("attempt", task.attempt.to_string())));
    }
    lines
}

/// The topic of the task and its placements, and the endpoint that it is at.
fn recipient(detail: &TaskDetail) -> Vec<(&'static str, String)> {
    let summary = &detail.summary;
    let mut lines = Vec::new();
    if let Some(topic) = &summary.topic {
        lines.push(("topic", topic.clone()));
    }
    let endpoint = match (&summary.endpoint_name, &summary.topic) {
        (Some(name), _) => Some(format!("{name} ({})", summary.endpoint)),
        (None, None) => Some(summary.endpoint.to_string()),
        (None, Some(_)) => None,
    };
    lines.extend(endpoint.map(|endpoint| ("endpoint", endpoint)));
    let Some(placement) = &detail.placement else { return lines };
    if let Some(function) = &placement.function {
        let version = placement.version.as_ref().map(|version| format!(", version {version}"));
        lines.push(("asks for", format!("{function}{}", version.unwrap_or_default())));
    }
    let earlier = placement.earlier.iter().map(|one| {
        let ended = detail.results.iter().find(|result| result.result.attempt == one.attempt);
        let end = match ended {
            Some(recorded) => recorded.result.outcome.to_string(),
            None => "not started there, or lost with it".to_owned(),
        };
        ("placed", format!("attempt {} at {}: {end}", one.attempt, one.name))
    });
    lines.extend(earlier);
    let is_open = !matches!(summary.state, TaskState::Done(_));
    if let Some(member) = placement.member.as_ref().filter(|_| summary.endpoint_name.is_some()) {
        let at = placement.placed_at_ms.map(|at| format!(", {}", moment(at)));
        let claimed = match (is_open, placement.claimed, placement.start_by_ms) {
            (true, true, _) => ", claimed".to_owned(),
            (true, false, Some(by)) => format!(", not claimed yet (until {})", moment(by)),
            _ => String::new(),
        };
        let words = format!("attempt {} at {}", member.attempt, member.name);
        lines.push(("placed", format!("{words}{}{claimed}", at.unwrap_or_default())));
    }
    let by = placement.place_by_ms.filter(|_| is_open && summary.endpoint_name.is_none());
    lines.extend(by.map(|at| ("place by", moment(at))));
    lines
}

/// The steps of the task, each with the time since the one before. Where the clocks of service
/// and endpoint contradict each other, no time is told between a step by the one and a step by
/// the other.
fn timeline(detail: &TaskDetail) -> Vec<String> {
    let differ = detail.timeline.iter().any(|one| one.after_ms.is_some_and(|after| after < 0));
    let mut by_endpoint = false;
    let step = |TimelineStep { step, at_ms, after_ms }: &TimelineStep| {
        let other_clock = std::mem::replace(&mut by_endpoint, step.by_endpoint()) != by_endpoint;
        let after = match after_ms.map(|after| (after, u64::try_from(after))) {
            None => String::new(),
            Some((_, Ok(after))) if !(differ && other_clock) => {
                format!("after {}", humantime::format_duration(Duration::from_millis(after)))
            }
            Some((after, _)) => clock_words(by_endpoint, after < 0).to_owned(),
        };
        let words = format!("{:<16} {}  {after}", step.words(), moment(*at_ms));
        words.trim_end().to_owned()
    };
    let steps = detail.timeline.iter().map(step);
    std::iter::once("\ntimeline".to_owned()).chain(steps.map(|step| format!("  {step}"))).collect()
}

/// Names the clock that told a time, where the two clocks contradict each other.
fn clock_words(by_endpoint: bool, is_earlier: bool) -> &'static str {
    match (by_endpoint, is_earlier) {
        (true, true) => "by the endpoint's clock, which is behind",
        (true, false) => "by the endpoint's clock",
        (false, true) => "by the service's clock; the endpoint's is ahead",
        (false, false) => "by the service's clock",
    }
}

/// An open send or receive of a task.
fn wait_words(wait: &MessageWait, now_ms: u64) -> String {
    let since = age(wait.since_ms, now_ms);
    let addressees: Vec<String> =
        wait.addressees.iter().map(|one| format!("`{}`", output::one_line(one))).collect();
    let on = format!(
        "since {since} on {} {}",
        if addressees.len() == 1 { "addressee" } else { "addressees" },
        addressees.join(", ")
    );
    match (wait.to, wait.from) {
        (Some(to), _) => format!("{on}, for {to} to take a message"),
        (None, Some(from)) => format!("{on}, for a message from {from}"),
        (None, None) => format!("{on}, for a message"),
    }
}

/// Says that an attempt is under way, where the task has had others.
fn under_way(detail: &TaskDetail) -> std::io::Result<()> {
    let Some(task) = &detail.task else { return Ok(()) };
    let ended = detail.results.iter().any(|one| one.result.attempt >= task.attempt);
    if ended || detail.results.is_empty() {
        return Ok(());
    }
    output::line(&format!("\nattempt {}: {}", task.attempt, detail.summary.state))
}

fn work(work: &Work) -> Vec<(&'static str, String)> {
    let process = match work {
        Work::Process(process) => process,
        Work::Call(call) => return vec![("call", call.to_string())],
    };
    let mut lines = vec![("argv", format!("{:?}", process.argv))];
    lines.extend(process.env.iter().map(|(name, value)| ("env", format!("{name}={value}"))));
    lines.extend(process.cwd.as_ref().map(|cwd| ("cwd", cwd.to_string())));
    lines
}

/// Whether the endpoint was asked what became of the task, and what that told.
fn words(asked: Asked) -> String {
    match (asked.asked_at_ms, asked.answered_at_ms) {
        (Some(at), Some(_)) => {
            format!(
                "{}: the endpoint has it, waiting or running, or its result is on its way",
                moment(at)
            )
        }
        (Some(at), None) => {
            format!(
                "{}: the endpoint has not answered; it may be away, or have much to read first",
                moment(at)
            )
        }
        (None, _) => "not yet: no instance is active, or another one may still have it".to_owned(),
    }
}

/// A state, and what it means where the word does not say it.
fn state(state: TaskState) -> String {
    match state.meaning() {
        Some(meaning) => format!("{state}: {meaning}"),
        None => state.to_string(),
    }
}

fn attempt(recorded: &Recorded) -> std::io::Result<()> {
    let result = &recorded.result;
    let mut words = vec![format!("attempt {}: {}", result.attempt, result.outcome)];
    words.extend(result.exit_code.map(|code| format!("exit code {code}")));
    words.extend(result.signal.map(|signal| format!("signal {signal}")));
    words.extend(result.accepted_at_ms.map(|at| format!("accepted {}", moment(at))));
    words.extend(result.started_at_ms.map(|at| format!("started {}", moment(at))));
    words.push(format!("ended {}", moment(result.ended_at_ms)));
    words.extend(result.started_at_ms.map(|at| {
        let ran = Duration::from_millis(result.ended_at_ms.saturating_sub(at));
        format!("ran {}", humantime::format_duration(ran))
    }));
    words.extend(result.cpu_ms.map(|ms| format!("{ms} ms of CPU")));
    words.extend(result.peak_memory_bytes.map(|bytes| format!("{} KiB at most", bytes / 1024)));
    words.extend(
        (recorded.duplicates > 0)
            .then(|| format!("came {} more", counted(recorded.duplicates, "time"))),
    );
    output::line(&format!("\n{}", words.join(", ")))?;
    if let Some(reason) = &result.reason {
        output::line(reason)?;
    }
    if let Some(files) = &result.removed_files {
        output::line(&output::one_line(&files.to_string()))?;
    }
    error(result)?;
    value(result)?;
    stream("stdout", &result.stdout.0, result.stdout_omitted)?;
    stream("stderr", &result.stderr.0, result.stderr_omitted)
}

/// Prints what a function returned, under a heading; nothing for nothing.
pub(super) fn value(result: &TaskResult) -> std::io::Result<()> {
    result.value.as_ref().map_or(Ok(()), |value| stream("value", value.text().as_bytes(), 0))
}

/// Prints the type and the data of a failed call's error; nothing where it has none. Its
/// message is in the reason.
pub(super) fn error(result: &TaskResult) -> std::io::Result<()> {
    let Some(error) = &result.error else { return Ok(()) };
    output::line(&format!("error of type {}", output::one_line(&error.kind)))?;
    error.data.as_ref().map_or(Ok(()), |data| stream("error data", data.text().as_bytes(), 0))
}

/// Prints what a process wrote, under a heading; nothing for nothing. A terminal is
/// shown what it would act on, and does not act on it.
pub(super) fn stream(name: &str, bytes: &[u8], omitted: u64) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let left_out = if omitted > 0 { format!(", {omitted} more left out") } else { String::new() };
    output::line(&format!("--- {name} ({} bytes{left_out})", bytes.len()))?;
    if std::io::stdout().is_terminal() {
        return output::raw_line(
            printable::bytes(bytes.strip_suffix(b"\n").unwrap_or(bytes)).as_str(),
        );
    }
    output::raw(bytes)?;
    if bytes.ends_with(b"\n") { Ok(()) } else { output::raw(b"\n") }
}
