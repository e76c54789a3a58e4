//! The page that keeps what was measured, in Markdown. Pure.

use crate::report::{Bar, Figure, Row, short};

/// The measurements, and the machine.
pub(crate) struct About<'a> {
    /// The day, such as `2026-11-24`.
    pub(crate) date: &'a str,
    /// The machine and the versions, a line each.
    pub(crate) machine: &'a [String],
}

/// The page.
pub(crate) fn page(about: &About<'_>, rows: &[Row]) -> String {
    let mut text = String::from(HEAD);
    text.push_str(&format!("Measured on {}:\n\n", about.date));
    for line in about.machine {
        text.push_str(&format!("- {line}\n"));
    }
    for row in rows {
        text.push_str(&format!("\n## {}\n\n{}.\n\n", row.name, row.about));
        text.push_str(
            "| | unit | least | median | most | of | bar |\n|---|---|---:|---:|---:|---:|---|\n",
        );
        for figure in &row.figures {
            text.push_str(&line(figure, row.bars.iter().find(|bar| bar.is_of(figure))));
        }
    }
    text
}

const HEAD: &str = "# Benchmarks

Every figure stands beside a limit or a peer that was measured in the same run, in
turn with it. Everything of Clutch is durable throughout: tasks and results are synced
to disk at both ends, messages persistent and confirmed, programs as people run them.

```sh
cargo xtask bench                  # every row (--help lists them)
cargo xtask bench latency          # one
cargo xtask bench --peers --record # with what people use instead; writes this page
```

It brings its broker along. A bar is a ratio or a figure that we want to keep;
[bench/trials](bench/trials/README.md) and [design/0012](design/0012-gathering.md) say why
some are missed.

";

fn line(figure: &Figure, bar: Option<&Bar>) -> String {
    let Figure { what, unit, spread } = figure;
    let [least, median, most] = [spread.min, spread.median, spread.max].map(short);
    let bar = bar.map(Bar::words).unwrap_or_default();
    format!("| {what} | {unit} | {least} | {median} | {most} | {} | {bar} |\n", spread.of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Side;

    #[test]
    fn every_figure_has_a_line_and_its_bar() {
        let mut row = Row::new("speed", "here".to_owned());
        row.hold("ours", "1/s", &[3.0, 1.0, 2.0], (Side::AtLeast, 2.5));
        row.add("theirs", "1/s", &[1.0]);
        let machine = ["2 cores".to_owned()];
        let page = page(&About { date: "2026-01-02", machine: &machine }, &[row]);
        assert!(page.contains("Measured on 2026-01-02:\n\n- 2 cores\n"), "{page}");
        assert!(page.contains("| ours | 1/s | 1.00 | 2.00 | 3.00 | 3 | ≥ 2.50 missed |"), "{page}");
        assert!(page.contains("| theirs | 1/s | 1.00 | 1.00 | 1.00 | 1 |  |"), "{page}");
    }
}
