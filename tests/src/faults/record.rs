//! The outcomes of the faults, for people: a line each at the terminal, and the
//! table in `FAULTS.md`. Pure.

use super::judge::{Report, Verdict};
use super::{Queue, Row};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The head of the table; the lines below it are told apart by their first two
/// columns.
const HEAD: &str = "\
| fault | broker | submitted | recorded | lost | ran twice (may) | to recover | verdict | played |
|---|---|---:|---:|---:|---:|---:|---|---|";

const INTRODUCTION: &str = "\
# Faults

What happens to tasks when things break. Every row is one fault, played against
real processes and a real RabbitMQ, or a folder in its place; an oracle knows every task that was
submitted, what was recorded of it, and how often it started. A row that could
not be sure that its fault hit counts as failed.

```sh
cargo xtask faults                       # on the RabbitMQ of the system
cargo xtask faults --broker all          # and on 4.0 as well
cargo xtask faults --only half-open      # one row, or several
cargo xtask faults --list                # what there is
```

It brings its brokers along: processes of its own, on their own ports and
folders (root on Debian; RabbitMQ 4.0 runs in a Debian 13 that debootstrap puts
into `/var/cache/clutch`). The exit code is 0 only if every row keeps the
contract: 0 lost, no more run twice than may, and recovered in time. A row that
cannot be played on a machine says *skipped* and why. `--record` writes this
page.
";

/// When and with what the rows were played.
#[derive(Clone, Debug)]
pub struct About {
    /// The day, as 2026-01-31.
    pub date: String,
    /// Clutch's version, with its commit.
    pub clutch: String,
    /// The operating system.
    pub system: String,
}

/// A line for the terminal.
#[must_use]
pub fn line(report: &Report) -> String {
    let broker = match report.queue {
        Queue::Folder => report.queue.to_string(),
        Queue::Classic | Queue::Quorum => format!("{} {}", report.broker, report.queue),
    };
    let mut line = format!("{:26} {broker:15}", report.name);
    // Writing to a string does not fail.
    if let Some(seen) = &report.seen {
        let tasks = &seen.tasks;
        write!(
            line,
            " {:>6} submitted {:>6} recorded {:>2} lost {:>2} ran twice ({} may) {:>7} to recover",
            tasks.submitted,
            tasks.recorded,
            tasks.lost.len(),
            tasks.ran_again.len(),
            may(report),
            seconds(report),
        )
        .ok();
    }
    let words = report.verdict.to_string();
    let first = words.lines().next().unwrap_or_default();
    // The rest, such as logs, is in the folder that was kept.
    write!(line, "  {}", if report.kept.is_some() { first } else { &words }).ok();
    if let Some(notes) = report.seen.as_ref().map(|seen| seen.notes.join(", "))
        && !notes.is_empty()
    {
        write!(line, " ({notes})").ok();
    }
    if let Some(kept) = &report.kept {
        write!(line, "; see {}", kept.display()).ok();
    }
    line
}

fn may(report: &Report) -> usize {
    let seen = report.seen.as_ref().filter(|_| report.again.is_some());
    seen.map_or(0, |seen| seen.may_run_again)
}

fn seconds(report: &Report) -> String {
    let recovery = report.seen.as_ref().map(|seen| seen.recovery.as_secs_f64());
    recovery.map_or_else(String::new, |seconds| format!("{seconds:.1} s"))
}

/// The page: what is in `page` already, with the rows that were played anew
/// in their places. Lines of rows that are no more go.
#[must_use]
pub fn page(page: &str, rows: &[Row], reports: &[Report], about: &About) -> String {
    let mut lines = recorded(page);
    for report in reports {
        let key = (report.name.to_owned(), broker(report));
        lines.insert(key, cells(report, about));
    }
    let mut text = format!("{INTRODUCTION}\nOn {}.\n\n{HEAD}\n", about.system);
    for row in rows {
        for ((name, _), line) in &lines {
            if name == row.name {
                writeln!(text, "{line}").ok();
            }
        }
    }
    text.push_str("\n## What each does\n\n");
    text.push_str(
        "| fault | | tasks that may run twice | recovered within, from |\n|---|---|---|---|\n",
    );
    for row in rows {
        let again = row.again.map_or("none", |why| why);
        let within = row.within.as_secs();
        writeln!(text, "| {} | {} | {again} | {within} s, {} |", row.name, row.what, row.since)
            .ok();
    }
    text
}

/// The second column: release and, where it is not the usual one, kind of queue.
fn broker(report: &Report) -> String {
    match report.queue {
        Queue::Classic => report.release.to_string(),
        Queue::Quorum => format!("{}, quorum", report.release),
        Queue::Folder => "folder".to_owned(),
    }
}

fn cells(report: &Report, about: &About) -> String {
    let counts = report.seen.as_ref().map_or_else(
        || "| | | | | |".to_owned(),
        |seen| {
            let tasks = &seen.tasks;
            format!(
                "| {} | {} | {} | {} ({}) | {} |",
                thousands(tasks.submitted),
                thousands(tasks.recorded),
                tasks.lost.len(),
                tasks.ran_again.len(),
                may(report),
                seconds(report)
            )
        },
    );
    let verdict = match &report.verdict {
        Verdict::Held => "held".to_owned(),
        Verdict::Skipped(why) => format!("*skipped*: {why}"),
        Verdict::Broken(_) | Verdict::Failed(_) => {
            let words = report.verdict.to_string();
            let first = words.lines().next().unwrap_or_default().replace('|', "/");
            format!("**{first}**")
        }
    };
    let (broker, played) = (broker(report), format!("{}, {}", about.date, about.clutch));
    format!("| {} | {broker} {counts} {verdict} | {played} |", report.name)
}

/// The table's lines, by their first two columns.
fn recorded(page: &str) -> BTreeMap<(String, String), String> {
    let lines = page.split_once(HEAD).map_or("", |(_, below)| below).trim_start().lines();
    let table = lines.take_while(|line| line.starts_with('|'));
    let key = |line: &str| {
        let mut cells = line.split('|').skip(1).map(|cell| cell.trim().to_owned());
        Some((cells.next()?, cells.next()?))
    };
    table.filter_map(|line| Some((key(line)?, line.to_owned()))).collect()
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Release;
    use crate::faults::{Play, Seen};
    use crate::oracle;
    use std::time::Duration;

    fn report(name: &'static str, submitted: usize, verdict: Verdict) -> Report {
        let tasks = oracle::Verdict { submitted, recorded: submitted, ..Default::default() };
        let seen = Seen { tasks, recovery: Duration::from_millis(1234), ..Seen::default() };
        Report {
            name,
            release: Release::System,
            broker: "3.10.8".to_owned(),
            queue: Queue::Classic,
            verdict,
            seen: Some(seen.allowing(7)),
            again: None,
            since: "the end",
            took: Duration::ZERO,
            kept: None,
        }
    }

    #[test]
    fn a_page_keeps_what_was_not_played_and_replaces_what_was() {
        let row = |name| Row::new(name, "what it does", Play::Beside(|_| Ok(Seen::default())));
        let about = |date: &str| About {
            date: date.to_owned(),
            clutch: "0.1.0".to_owned(),
            system: "a system".to_owned(),
        };
        let rows = [row("a"), row("b"), row("c")];
        let reports = [report("a", 1000, Verdict::Held), report("b", 2, Verdict::Held)];
        let first = page("", &rows, &reports, &about("2026-01-01"));
        assert!(
            first.contains("| a | 3.10 | 1,000 | 1,000 | 0 | 0 (0) | 1.2 s | held |"),
            "{first}"
        );
        let broken = Verdict::Broken(vec!["1 lost".to_owned()]);
        let again = [report("b", 3, broken)];
        let second = page(&first, &rows[..2], &again, &about("2026-02-02"));
        assert!(second.contains("| held | 2026-01-01, 0.1.0 |"), "{second}");
        assert!(second.contains("**BROKEN: 1 lost** | 2026-02-02"), "{second}");
        assert_eq!(second.matches("| b | 3.10 |").count(), 1, "{second}");
        assert_eq!(page(&second, &rows[..1], &[], &about("x")).matches("| b |").count(), 0);
    }

    #[test]
    fn a_skipped_row_does_not_read_as_one_that_held() {
        let mut skipped = report("a", 0, Verdict::Skipped("no root".to_owned()));
        skipped.seen = None;
        let line = line(&skipped);
        assert!(line.contains("skipped: no root") && !line.contains("held"), "{line}");
    }
}
