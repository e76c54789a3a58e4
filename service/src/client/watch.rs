//! Shows how far tasks are, again and again: redrawn on a terminal, as lines elsewhere.

use super::moment;
use crate::cli::{TasksArgs, output};
use crate::client::Client;
use crate::model::ProgressRate;
use clutch_common::system::clock::now_ms;
use clutch_common::text::counted::counted;
use std::io::{self, IsTerminal as _};
use std::time::Duration;
use tokio::time::Instant;

/// The shortest pause between two looks, and how many times as long as a look it is at least.
const PAUSE: (Duration, u32) = (Duration::from_secs(1), 10);

/// Shows the progress of what the arguments select, until all tasks of a submission are done, or
/// for ever.
pub(crate) async fn run(client: Client, args: &TasksArgs, json: bool) -> anyhow::Result<()> {
    let client = client.reconnecting(None);
    let mut parameters = Vec::new();
    parameters.extend(args.key.clone().map(|key| ("key", key)));
    parameters.extend(args.endpoint.clone().map(|endpoint| ("endpoint", endpoint)));
    let what = match (&args.key, &args.endpoint) {
        (Some(key), _) => key.clone(),
        (None, Some(endpoint)) => endpoint.clone(),
        (None, None) => "all".to_owned(),
    };
    let terminal = io::stdout().is_terminal() && !json;
    let (mut shown, mut drawn) = (None, 0);
    loop {
        let begun = Instant::now();
        let rate: ProgressRate = client.get("/v1/progress", &parameters).await?;
        let took = begun.elapsed();
        let is_new = shown.as_ref() != Some(&rate);
        if json && is_new {
            output::json(&rate)?;
        } else if terminal {
            drawn = draw(&table(&what, &rate), drawn)?;
        } else if is_new {
            output::line(&format!("{}  {}", moment(now_ms()), line(&what, &rate)))?;
        }
        output::flush()?;
        if args.key.is_some() && rate.progress.complete() {
            return Ok(());
        }
        shown = Some(rate);
        tokio::time::sleep(PAUSE.0.max(took * PAUSE.1)).await;
    }
}

/// Writes lines over the `drawn` lines that were written before; returns how many they are.
fn draw(lines: &[String], drawn: usize) -> io::Result<usize> {
    if drawn > 0 {
        output::raw(format!("\x1b[{drawn}A\x1b[J").as_bytes())?;
    }
    lines.iter().try_for_each(|line| output::line(line))?;
    Ok(lines.len())
}

fn head(what: &str, rate: &ProgressRate) -> String {
    let progress = &rate.progress;
    let mut head = format!(
        "{}: {} of {} done",
        output::one_line(what),
        progress.done,
        counted(progress.total, "task")
    );
    head.extend(rate.per_second.map(|per_second| format!(", {per_second:.1}/s")));
    // A left time of more than a second is told in whole seconds.
    let left = rate.left_ms.map(|ms| Duration::from_secs(ms.div_ceil(1000)));
    head.extend(left.map(|left| format!(", about {} left", humantime::format_duration(left))));
    head
}

fn line(what: &str, rate: &ProgressRate) -> String {
    let states = &rate.progress.states;
    let states: Vec<String> =
        states.iter().map(|(state, tasks)| format!("{tasks} {state}")).collect();
    format!("{} ({})", head(what, rate), states.join(", "))
}

fn table(what: &str, rate: &ProgressRate) -> Vec<String> {
    let states = rate.progress.states.iter();
    let states = states.map(|(state, tasks)| format!("  {state:<14}{tasks:>10}"));
    std::iter::once(head(what, rate)).chain(states).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Progress, TaskState};
    use clutch_common::task::result::Outcome;

    #[test]
    fn counts_rate_and_time_left_are_told_on_a_line_and_in_a_table() {
        let states = [(TaskState::Submitted, 75), (TaskState::Done(Outcome::Succeeded), 25)];
        let progress = Progress::of(100, states);
        let rate = ProgressRate { progress, per_second: Some(0.5), left_ms: Some(150_000) };
        let expected =
            "k: 25 of 100 tasks done, 0.5/s, about 2m 30s left (75 submitted, 25 succeeded)";
        let mut words: Vec<&str> = expected.split([' ', '(', ')', ',']).collect();
        let told = line("k", &rate);
        let mut found: Vec<&str> = told.split([' ', '(', ')', ',']).collect();
        words.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, words, "{told}");
        let table = table("k", &rate);
        assert_eq!(table.len(), 3);
        assert!(table.iter().any(|line| line.trim_start().starts_with("submitted")), "{table:?}");
    }
}
