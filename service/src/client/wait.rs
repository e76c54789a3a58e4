//! Waits until tasks are done, by long poll.

use super::interrupt::unless_interrupted;
use super::results::never_submitted;
use crate::api::types::WaitRequest;
use crate::cli::output;
use crate::cli::{Selection, WaitArgs};
use crate::client::Client;
use crate::failure::{Failure, GENERAL, TIMEOUT};
use crate::model::Progress;
use clutch_common::text::counted::counted;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::time::Instant;

/// How long one request is held.
pub(super) const HELD: Duration = Duration::from_secs(300);
/// If the missing tasks of a submission do not become fewer within this time, it was cut off.
const GROWS_WITHIN: Duration = Duration::from_secs(2);
/// How long after the end of the time the service may take to say how far the tasks are.
const GRACE: Duration = Duration::from_secs(15);
/// The pause between two looks at the progress, for a bar.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for the selected tasks and prints how they ended; false if some did
/// not succeed.
///
/// # Errors
/// When the service cannot be asked or does not know the tasks; and, after what
/// is known has been printed as JSON, when the time is over.
pub(crate) async fn run(client: Client, args: &WaitArgs, json: bool) -> anyhow::Result<bool> {
    let client = client.reconnecting(args.reconnect.give_up_after);
    let Selection { tasks, key } = &args.selection;
    let request = WaitRequest { key: key.clone(), tasks: tasks.clone(), ..WaitRequest::default() };
    let selected = match key {
        Some(key) => format!("--key {key}"),
        None => tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    let waiting = until_done(&client, request, args.timeout, !json);
    let progress = unless_interrupted(waiting, &selected).await?;
    if json {
        output::json(&progress)?;
    }
    let Progress { total, done, .. } = progress;
    let cut_off = key.is_some() && progress.settled();
    if !progress.complete() && !cut_off {
        let message = format!("the time is over: {done} of {} done", counted(total, "task"));
        return Err(Failure::new(TIMEOUT, message).into());
    }
    if !json {
        output::line(&summary(&progress))?;
    }
    if !progress.complete() {
        output::note(&never_submitted(progress.unrecorded(), total, key.as_deref()));
    }
    Ok(progress.succeeded == total)
}

/// Waits, with a progress bar on a terminal if `bar`, until the tasks are done,
/// all that are recorded under a key are done, or `timeout` is over.
pub(crate) async fn until_done(
    client: &Client,
    mut request: WaitRequest,
    timeout: Option<Duration>,
    bar: bool,
) -> anyhow::Result<Progress> {
    // A moment that no clock comes to is none.
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let bar = (bar && std::io::stderr().is_terminal()).then(progress_bar);
    // More than there can be: the first answer comes at once.
    request.seen = bar.as_ref().map(|_| u64::MAX);
    let mut unrecorded = None;
    loop {
        let left = until.map_or(HELD, |until| until.saturating_duration_since(Instant::now()));
        request.timeout_ms = u64::try_from(left.min(HELD).as_millis()).unwrap_or(u64::MAX);
        let progress: Progress = match until {
            // While the service is away, no answer comes when the time is over.
            Some(until) => {
                let answer = client.post("/v1/wait", &request);
                tokio::time::timeout_at(until + GRACE, answer).await.map_err(|_| away())??
            }
            None => client.post("/v1/wait", &request).await?,
        };
        if let Some(bar) = &bar {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.tick();
            if request.seen == Some(u64::MAX) {
                bar.reset_eta(); // What was done before is no part of the rate.
            }
            request.seen = Some(progress.done);
        }
        let settled = request.key.is_some() && progress.settled();
        let growing = settled && unrecorded != Some(progress.unrecorded());
        unrecorded = Some(progress.unrecorded());
        let over = until.is_some_and(|until| Instant::now() >= until);
        if progress.complete() || (settled && !growing) || over {
            bar.inspect(|bar| bar.finish_and_clear());
            return Ok(progress);
        }
        if growing {
            tokio::time::sleep(left.min(GROWS_WITHIN)).await;
        } else if bar.is_some() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The error for a time that is over while the service is away.
fn away() -> Failure {
    Failure::new(
        TIMEOUT,
        "the time is over, and the service is away: how far the tasks are is not known",
    )
}

fn progress_bar() -> ProgressBar {
    const TEMPLATE: &str = "{bar:40} {human_pos} of {human_len}  {rate}  {elapsed}";
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        write!(out, "{:.1}/s", state.per_sec()).unwrap_or_default();
    };
    let style = ProgressStyle::with_template(TEMPLATE).map(|style| style.with_key("rate", rate));
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// How tasks ended, for people.
#[must_use]
pub(crate) fn summary(progress: &Progress) -> String {
    let states: Vec<String> =
        progress.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    format!("{}: {}", counted(progress.total, "task"), states.join(", "))
}

/// The exit code for how tasks ended.
#[must_use]
pub(crate) fn exit_code(succeeded: bool) -> u8 {
    if succeeded { 0 } else { GENERAL }
}
