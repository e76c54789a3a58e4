//! The cost of a task that waits at the broker with very many others, beside one that
//! waits with few: submitting it, and all from the moment the endpoint takes it to
//! its recorded result.
//!
//! The endpoint's daemon is frozen while tasks are queued, so that all of them wait.

use super::Bench;
use super::round_trips::SLOTS;
use super::submissions::{AT_ONCE, submit, wait};
use crate::pair::Pair;
use crate::report::{Row, Side};
use crate::stats::mean;
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// How much more a task may cost in the deep queue than in the shallow one.
const BAR: f64 = 1.15;

/// The time of each task, in microseconds.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Of the clock, until it was submitted.
    queueing: f64,
    /// Of the clock, from then until it was recorded.
    taking: f64,
    /// Of the processor, by service and endpoint.
    cpu: f64,
}

impl Cost {
    fn clock(&self) -> f64 {
        self.queueing + self.taking
    }
}

/// The row `queue-depth`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let (small, large) = (bench.scale.small, bench.scale.deep);
    let about = format!(
        "no-op tasks, all queued while the endpoint is frozen, then taken: {large} at once beside \
         {} rounds of {small} before and after; everything durable; all folders are on {}",
        bench.scale.small_rounds,
        bench.file_system()?
    );
    let mut row = Row::new("queue-depth", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS)?;
    let (mut few, mut many, mut ratios) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    // The first tasks find everything cold.
    once(&mut pair, "warm", small)?;
    let mut before = rounds(bench, &mut pair, 0)?;
    few.push(before);
    for repetition in 0..bench.scale.deep_rounds {
        let cost = once(&mut pair, &format!("d{repetition}"), large)?;
        let after = rounds(bench, &mut pair, repetition + 1)?;
        ratios[0].push(cost.cpu / mean(&[before.cpu, after.cpu]));
        ratios[1].push(cost.clock() / mean(&[before.clock(), after.clock()]));
        many.push(cost);
        few.push(after);
        before = after;
    }
    pair.stop()?;
    type Part = fn(&Cost) -> f64;
    let parts: [(&str, Part); 3] = [
        ("queueing each", |cost| cost.queueing),
        ("taking each", |cost| cost.taking),
        ("service and endpoint, CPU time of each", |cost| cost.cpu),
    ];
    for (what, part) in parts {
        for (count, costs) in [(small, &few), (large, &many)] {
            let costs: Vec<f64> = costs.iter().map(part).collect();
            row.add(&format!("{what} of {count}"), "µs", &costs);
        }
    }
    let [cpu, clock] = ratios;
    let of = |what| format!("{what}, {large} to {small}");
    row.hold(&of("CPU time"), "ratio", &cpu, (Side::AtMost, BAR));
    row.hold(&of("time"), "ratio", &clock, (Side::AtMost, BAR));
    Ok(row)
}

/// The average cost of a task in several small rounds: their processor time is too
/// short to be told of each.
fn rounds(bench: &Bench, pair: &mut Pair, series: usize) -> Result<Cost> {
    let count = bench.scale.small_rounds;
    let mut costs = Vec::with_capacity(count);
    for number in 0..count {
        costs.push(once(pair, &format!("s{series}.{number}"), bench.scale.small)?);
    }
    let of = |part: fn(&Cost) -> f64| mean(&costs.iter().map(part).collect::<Vec<_>>());
    Ok(Cost {
        queueing: of(|cost| cost.queueing),
        taking: of(|cost| cost.taking),
        cpu: of(|cost| cost.cpu),
    })
}

/// Queues so many tasks, and has them taken.
fn once(pair: &mut Pair, key: &str, count: usize) -> Result<Cost> {
    let each = |took: Duration| took.as_secs_f64() * 1e6 / count as f64;
    let cpu_before: Duration = pair.cpu_time()?.iter().sum();
    signal(pair, "STOP")?;
    let started = Instant::now();
    let mut keys = Vec::new();
    for first in (0..count).step_by(AT_ONCE) {
        keys.push(format!("{key}.{first}"));
        submit(pair, &format!("{key}.{first}"), AT_ONCE.min(count - first), false)?;
    }
    let queueing = started.elapsed();
    let started = Instant::now();
    signal(pair, "CONT")?;
    for key in &keys {
        wait(pair, key)?;
    }
    let taking = started.elapsed();
    let cpu: Duration = pair.cpu_time()?.iter().sum();
    Ok(Cost { queueing: each(queueing), taking: each(taking), cpu: each(cpu - cpu_before) })
}

fn signal(pair: &mut Pair, name: &str) -> Result<()> {
    pair.daemon.as_mut().context("no endpoint runs")?.signal(name)
}
