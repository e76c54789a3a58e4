//! No-op tasks from `clutch-service submit` to the last outcome in the service's
//! database: service, broker and endpoint together, as people use them.

use super::Bench;
use super::round_trips::SLOTS;
use crate::pair::{NAME, Pair};
use crate::report::{Row, Side};
use anyhow::Result;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The rate to reach, in tasks per second.
const BAR: f64 = 25_000.0;
/// How many tasks one submission has at most.
pub(super) const AT_ONCE: usize = 100_000;
/// Longer than a measurement takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(1800);

/// The row `submissions`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.submitted;
    let about = format!(
        "`clutch-service submit --each-line` of {count} no-op tasks, from its start until all are \
         recorded, everything durable; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("submissions", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS)?;
    let mut speed = Vec::new();
    let mut cpu = [Vec::new(), Vec::new()];
    for repetition in 0..bench.scale.repetitions {
        let before = pair.cpu_time()?;
        let started = Instant::now();
        submit(&pair, &format!("k{repetition}"), count, true)?;
        speed.push(count as f64 / started.elapsed().as_secs_f64());
        for ((used, before), series) in pair.cpu_time()?.iter().zip(before).zip(&mut cpu) {
            series.push((*used - before).as_secs_f64() * 1e6 / count as f64);
        }
    }
    pair.stop()?;
    row.hold("submitted to recorded", "tasks/s", &speed, (Side::AtLeast, BAR));
    let [service, endpoint] = cpu;
    row.add("clutch-service serve, CPU time", "µs/task", &service);
    row.add("clutch-endpoint run, CPU time", "µs/task", &endpoint);
    Ok(row)
}

/// Submits so many tasks of the same work under a key, and waits for their outcomes.
pub(super) fn submit_alike(pair: &Pair, key: &str, count: usize, work: &[&str]) -> Result<()> {
    let array = format!("1-{count}");
    let submit = ["submit", NAME, "--key", key, "--wait", "--array", &array];
    pair.command(&[&submit[..], work].concat(), PATIENCE).map(drop)
}

/// Submits no-op tasks under a key, and waits for their outcomes if asked to.
pub(super) fn submit(pair: &Pair, key: &str, count: usize, wait: bool) -> Result<()> {
    let lines = pair.world.folder().join(format!("{key}.lines"));
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "{number}")?;
    }
    std::fs::write(&lines, text)?;
    let lines = lines.display().to_string();
    let mut arguments = vec!["submit", NAME, "--key", key, "--each-line", &lines];
    if wait {
        arguments.push("--wait");
    }
    arguments.extend(["--call", "clutch.echo", "--json-arg", "{}"]);
    pair.command(&arguments, PATIENCE)?;
    Ok(())
}

/// Waits for the outcomes of what was submitted under a key.
pub(super) fn wait(pair: &Pair, key: &str) -> Result<()> {
    pair.command(&["wait", "--key", key], PATIENCE).map(drop)
}
