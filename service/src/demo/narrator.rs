//! Prints each step when it happens: a line on stdout with the time since the beginning, and a
//! progress bar on a terminal. A reader that is gone, or that does not read, neither ends
//! the demonstration nor delays it.

use clutch_common::log::sink::Sink;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines about progress where there is no terminal.
const NEWS: Duration = Duration::from_secs(2);
/// How long a line may take to come out before the demonstration goes on.
const LINE: Duration = Duration::from_millis(50);
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Prints the steps.
#[derive(Debug)]
pub(super) struct Narrator {
    begun: Instant,
    out: Sink,
    narrates: bool,
    coloured: bool,
    bar: Option<ProgressBar>,
    next_news: Instant,
}

impl Narrator {
    /// A narrator that prints steps and progress, or only a progress bar if not `narrates`.
    #[must_use]
    pub(super) fn new(narrates: bool) -> Self {
        let begun = Instant::now();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let coloured = std::io::stdout().is_terminal() && !no_colour;
        // A line that is lost here does no harm: the results are printed at the end.
        let out = Sink::before(std::io::stdout(), |_| {});
        Self { begun, out, narrates, coloured, bar: None, next_news: begun + NEWS }
    }

    /// Prints a step.
    pub(super) fn step(&mut self, text: &str) {
        self.line(' ', PLAIN, text);
    }

    /// Prints a fault that was caused.
    pub(super) fn fault(&mut self, text: &str) {
        self.line('✗', RED, text);
    }

    /// Prints something that holds.
    pub(super) fn right(&mut self, text: &str) {
        self.line('✓', GREEN, text);
    }

    /// Prints a line without a time.
    pub(super) fn plain(&mut self, text: &str) {
        if self.narrates {
            self.print(text);
        }
    }

    fn line(&mut self, mark: char, colour: &str, text: &str) {
        if !self.narrates {
            return;
        }
        let at = format!("{:6.2} s", self.begun.elapsed().as_secs_f64());
        if self.coloured {
            self.print(&format!("{DIM}{at}{PLAIN}  {colour}{mark} {text}{PLAIN}"));
        } else {
            self.print(&format!("{at}  {mark} {text}"));
        }
    }

    fn print(&mut self, text: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.next_news = Instant::now() + NEWS;
        self.out.say(format!("{text}\n").as_bytes());
        self.out.flush(LINE);
    }

    /// Shows how many of all results are recorded.
    pub(super) fn progress(&mut self, done: u64, total: u64) {
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| bar(total));
            bar.set_position(done);
        } else if Instant::now() >= self.next_news {
            self.step(&format!("{} of {} results recorded", count(done), count(total)));
        }
    }
}

impl Drop for Narrator {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: u64) -> ProgressBar {
    const TEMPLATE: &str = "            {bar:40} {human_pos} of {human_len} results recorded";
    let style = ProgressStyle::with_template(TEMPLATE);
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A number as people write it.
#[must_use]
pub(super) fn count(number: impl TryInto<u64>) -> String {
    HumanCount(number.try_into().unwrap_or(u64::MAX)).to_string()
}

/// So many of something that has a singular.
#[must_use]
pub(super) fn several(number: impl TryInto<u64>, one: &str) -> String {
    let number = count(number);
    if number == "1" { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// A time as people read it.
#[must_use]
pub(super) fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!((count(2000_u64), several(1, "task"), several(1234, "task")), {
            ("2,000".into(), "1 task".into(), "1,234 tasks".into())
        });
        assert_eq!(time(Duration::from_millis(35)), "35 ms");
        assert_eq!(time(Duration::from_millis(1260)), "1.3 s");
    }
}
