//! The cost of a task that waits in a folder with many others, beside one that
//! waits with few: queueing it durably, and taking it and acknowledging it.

use super::Bench;
use crate::driver::{drain, fill};
use crate::report::{Row, Side};
use crate::site::{Site, folder_url};
use crate::stats::mean;
use anyhow::Result;
use std::time::Duration;

/// How much more a task may cost in the large backlog than in the small one.
const BAR: f64 = 1.25;

/// How long one large backlog may take where a file is slow.
const BUDGET: Duration = Duration::from_secs(20);
/// A backlog is large from here on.
const LEAST: usize = 10_000;

/// How tasks lie in the folder.
struct Layout {
    name: &'static str,
    /// The URL's options.
    options: &'static str,
    /// How many producers queue at once: syncs of several share the journal's
    /// commits.
    producers: usize,
    /// Most small backlogs between two large ones.
    rounds: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout { name: "groups", options: "", producers: 1, rounds: 25 },
    Layout { name: "one a file", options: "group=1", producers: 16, rounds: 3 },
];

/// The cost of each task, in microseconds.
#[derive(Default)]
struct Costs {
    queueing: Vec<f64>,
    taking: Vec<f64>,
}

/// The row `folder-backlog`.
pub(super) async fn folder(bench: &Bench) -> Result<Row> {
    let small = bench.scale.small;
    let about =
        format!("tasks queued, then drained; the folder is on {}", bench.folder_file_system()?);
    let mut row = Row::new("folder-backlog", about);
    for layout in &LAYOUTS {
        let (mut few, mut many, mut ratios) = (Costs::default(), Costs::default(), Vec::new());
        let mut before = rounds(bench, layout, &mut few).await?;
        let large = affordable(before, bench.scale.backlog);
        for _ in 0..bench.scale.repetitions {
            measure(bench, layout, large, &mut many).await?;
            let after = rounds(bench, layout, &mut few).await?;
            ratios.extend(many.sums().last().map(|cost| cost / mean(&[before, after])));
            before = after;
        }
        for (what, few, many) in
            [("queueing", &few.queueing, &many.queueing), ("taking", &few.taking, &many.taking)]
        {
            let of = |count| format!("{}: {what} each of {count}", layout.name);
            row.add(&of(small), "µs", few);
            row.add(&of(large), "µs", many);
        }
        let what = format!("{}: cost of {large} to {small}", layout.name);
        row.hold(&what, "ratio", &ratios, (Side::AtMost, BAR));
    }
    Ok(row)
}

/// Measures small backlogs, and returns what a task in them costs on average.
/// Another program that takes the processor for a moment hits few of the short
/// measurements and every long one: only their averages compare.
async fn rounds(bench: &Bench, layout: &Layout, few: &mut Costs) -> Result<f64> {
    let known = few.sums().len();
    for _ in 0..bench.scale.small_rounds.min(layout.rounds) {
        measure(bench, layout, bench.scale.small, few).await?;
    }
    Ok(mean(few.sums().get(known..).unwrap_or_default()))
}

/// As many tasks as can be measured in time at so many microseconds each, in
/// whole thousands and at least [`LEAST`], but no more than `wanted`.
fn affordable(each: f64, wanted: usize) -> usize {
    let fitting = (BUDGET.as_secs_f64() * 1e6 / each.max(1.0)) as usize;
    (fitting / 1000 * 1000).max(LEAST).min(wanted)
}

async fn measure(bench: &Bench, layout: &Layout, count: usize, costs: &mut Costs) -> Result<()> {
    let spool = bench.spool()?;
    let site = Site::prepare(&folder_url(&spool.path().join("spool"), layout.options)?).await?;
    let each = |took: Duration| took.as_secs_f64() * 1e6 / count as f64;
    costs.queueing.push(each(fill(&site, count, layout.producers).await?));
    costs.taking.push(each(drain(&site, count).await?));
    Ok(())
}

impl Costs {
    fn sums(&self) -> Vec<f64> {
        self.queueing.iter().zip(&self.taking).map(|(queueing, taking)| queueing + taking).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_gets_a_smaller_backlog_but_never_a_small_one() {
        for (each, wanted, expected) in [
            (30.0, 100_000, 100_000),
            (0.0, 100_000, 100_000),
            (500.0, 100_000, 40_000),
            (1100.0, 100_000, 18_000),
            (1e6, 100_000, LEAST),
            (1e6, 600, 600),
        ] {
            assert_eq!(affordable(each, wanted), expected, "{each} {wanted}");
        }
    }
}
