//! Shows everything known about one endpoint.

use super::endpoints::age;
use super::moment;
use crate::api::types::EndpointAnswer;
use crate::cli::output;
use crate::client::Client;
use crate::model::{CancelsView, DrainView, EndpointDetail, EndpointStatus, InstanceView};
use clutch_common::system::clock::now_ms;
use clutch_common::text::counted::counted;
use clutch_common::wire::FunctionOffer;
use std::time::Duration;

/// The difference of clocks that is told, in milliseconds.
const CLOCK_TOLERANCE_MS: i64 = 2000;

/// Prints an endpoint, then its instances.
pub(super) async fn run(client: &Client, path: &str, json: bool) -> anyhow::Result<()> {
    let answer: EndpointAnswer = client.get(path, &[]).await?;
    if json {
        return output::json(&answer);
    }
    let now = now_ms();
    for (name, value) in lines(&answer, now) {
        output::line(&format!("{name:<12} {}", output::one_line(&value)))?;
    }
    for instance in &answer.endpoint.instances {
        output::line("")?;
        for (name, value) in instance_lines(instance, now) {
            output::line(&format!("{name:<12} {}", output::one_line(&value)))?;
        }
    }
    Ok(())
}

type Lines = Vec<(&'static str, String)>;

fn lines(answer: &EndpointAnswer, now: u64) -> Lines {
    let EndpointDetail { summary, queue, created_at_ms, lost_after_ms, tasks, .. } =
        &answer.endpoint;
    let mut lines = vec![
        ("endpoint", format!("{} ({})", summary.name, summary.id)),
        ("status", status(answer, now)),
    ];
    lines.extend(summary.drain.as_ref().map(|drain| ("drain", drain_words(drain))));
    let queued = summary.queued.map_or("not known".to_owned(), |n| counted(n, "message"));
    lines.push(("queued", queued));
    let states: Vec<String> = tasks.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let mut pending = counted(summary.pending, "task");
    if !states.is_empty() {
        pending.push_str(&format!(" without an outcome: {}", states.join(", ")));
    }
    if let Some(oldest) = summary.oldest_pending_ms {
        pending.push_str(&format!("; the oldest was recorded {} ago", age(oldest, now)));
    }
    lines.push(("pending", pending));
    if answer.endpoint.in_doubt > 0 {
        lines.push(("in doubt", doubt_words(&answer.endpoint)));
    }
    lines.extend(cancel_words(answer.endpoint.cancels).map(|words| ("cancelling", words)));
    lines.push(("queue kind", queue.as_str().to_owned()));
    lines.push(("provisioned", moment(*created_at_ms)));
    let lost_after = humantime::format_duration(Duration::from_millis(*lost_after_ms));
    lines.push(("lost after", format!("{lost_after} of silence, once another took over")));
    lines
}

/// How the endpoint is, and what a person may do about it.
fn status(answer: &EndpointAnswer, now: u64) -> String {
    let summary = &answer.endpoint.summary;
    let words = summary.status.words();
    let since = summary
        .since_ms
        .map_or(String::new(), |at| format!(" since {} ({} ago)", moment(at), age(at, now)));
    match (summary.status, &answer.fault) {
        (EndpointStatus::Offline, _) => {
            let name = &summary.name;
            format!(
                "{words}{since}. Start `clutch-endpoint run` on its host; if its state folder is \
                 gone, `clutch-service endpoint lost {name}` has its tasks run elsewhere"
            )
        }
        (EndpointStatus::NoQueue, _) => {
            format!("{words} at the broker: `clutch-service provision {}`", summary.name)
        }
        (EndpointStatus::Unknown, Some(fault)) => {
            format!("{words}: the service has no link to the broker ({fault})")
        }
        (EndpointStatus::Unknown, None) => format!("{words}: the broker did not answer in time"),
        _ => format!("{words}{since}"),
    }
}

fn drain_words(drain: &DrainView) -> String {
    let since = drain.since_ms.map_or(String::new(), |at| format!("since {}", moment(at)));
    let deadline = drain
        .deadline_ms
        .map_or(String::new(), |at| format!("; what still runs at {} is stopped", moment(at)));
    let told = if drain.confirmed { "" } else { "; the endpoint is not told yet" };
    format!("{since}{deadline}{told}")
}

fn doubt_words(endpoint: &EndpointDetail) -> String {
    let tasks = counted(endpoint.in_doubt, "task");
    match endpoint.unasked {
        0 => format!("{tasks} may be lost; the endpoint is asked for them"),
        unasked => format!(
            "{tasks} may be lost; {unasked} of them cannot be asked for yet: no instance is \
             active, or another one may still have them"
        ),
    }
}

/// The cancellations that are not done with; nothing if there are none.
fn cancel_words(cancels: CancelsView) -> Option<String> {
    let CancelsView { tasks, unsent, in_force } = cancels;
    if tasks + unsent + in_force == 0 {
        return None;
    }
    let mut words = counted(tasks, "task");
    if in_force > 0 {
        words += &format!("; {} in force", counted(in_force, "cancellation"));
    }
    if unsent > 0 {
        words += &format!("; {} not at the broker yet", counted(unsent, "cancellation"));
    }
    Some(words)
}

fn instance_lines(instance: &InstanceView, now: u64) -> Lines {
    let mut lines =
        vec![("state", instance.state.to_string()), ("role", instance.role.words().to_owned())];
    if let Some(details) = &instance.details {
        lines.push(("host", details.host.clone()));
        lines.push(("version", details.version.clone()));
        lines.push(("slots", details.slots.to_string()));
        let functions: Vec<String> = details.functions.iter().map(offer_words).collect();
        lines.extend((!functions.is_empty()).then(|| ("functions", functions.join(", "))));
        lines.push(("started", moment(details.started_at_ms)));
    }
    lines.extend(instance.active_since_ms.map(|at| ("active since", moment(at))));
    lines.extend(instance.superseded_at_ms.map(|at| ("superseded", moment(at))));
    lines.extend(instance.given_up_at_ms.map(|at| ("given up", moment(at))));
    let heard = instance.last_heard_ms;
    lines.push(("last heard", format!("{} ({} ago)", moment(heard), age(heard, now))));
    let pending = match instance.may_hold {
        true => format!("{} tasks and results when it said so last", instance.pending),
        false => "nothing".to_owned(),
    };
    lines.push(("pending", pending));
    lines.extend(instance.clock_offset_ms.and_then(clock_words).map(|words| ("warning", words)));
    lines
}

/// A function with its version, where it has one.
fn offer_words(offer: &FunctionOffer) -> String {
    match &offer.version {
        Some(version) => format!("{} {version}", offer.name),
        None => offer.name.clone(),
    }
}

/// The difference of a clock, if it is one to be told.
fn clock_words(offset_ms: i64) -> Option<String> {
    let seconds = offset_ms.unsigned_abs() / 1000;
    let words = match offset_ms {
        behind if behind > CLOCK_TOLERANCE_MS => format!("up to {seconds} s behind"),
        ahead if ahead < -CLOCK_TOLERANCE_MS => format!("at least {seconds} s ahead of"),
        _ => return None,
    };
    Some(format!(
        "its clock is {words} the service's: times it tells, and when tasks expire, are off by that"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancellations_are_told_while_there_are_any() {
        assert_eq!(cancel_words(CancelsView::default()), None);
        let words = cancel_words(CancelsView { tasks: 3, unsent: 0, in_force: 1 }).unwrap();
        assert_eq!(words, "3 tasks; 1 cancellation in force");
        let words = cancel_words(CancelsView { tasks: 1, unsent: 2, in_force: 0 }).unwrap();
        assert_eq!(words, "1 task; 2 cancellations not at the broker yet");
    }

    #[test]
    fn a_clock_is_warned_of_above_two_seconds() {
        assert_eq!(clock_words(2000), None);
        assert_eq!(clock_words(-2000), None);
        assert!(clock_words(3500).unwrap().contains("up to 3 s behind the"));
        assert!(clock_words(-90_000).unwrap().contains("at least 90 s ahead of the"));
    }
}
