//! Ended tasks that are forgotten while others are recorded: how fast these come to be
//! recorded beside the same without it, and how large the database is afterwards.

use super::Bench;
use super::round_trips::SLOTS;
use super::submissions::{AT_ONCE, PATIENCE, submit};
use crate::pair::Pair;
use crate::report::{Row, Side};
use anyhow::{Context as _, Result, ensure};
use clutch_tests::world::SOON;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The least rate beside the undisturbed one, and the largest file beside a fresh one.
const BARS: (f64, f64) = (0.8, 1.2);
/// How many tasks are submitted every second meanwhile.
const LOAD: usize = 5000;
/// How many seconds the undisturbed rate is taken over.
const UNDISTURBED: usize = 20;

/// The row `forget`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let ended = bench.scale.finished;
    let load = LOAD.min(ended);
    let about = format!(
        "{ended} ended no-op tasks are forgotten while {load} others a second are submitted and \
         recorded; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("forget", about);
    let mut pair = begin(bench)?;
    let mut keys = Vec::new();
    let mut left = ended;
    while left > 0 {
        let some = left.min(AT_ONCE);
        keys.push(format!("f{left}"));
        submit(&pair, &format!("f{left}"), some, true)?;
        left -= some;
    }
    let full = size(&mut pair)?;
    pair.serve()?;
    let seconds = UNDISTURBED.min(ended / load);
    let undisturbed = record(&pair, "u", load, |second| second < seconds)?;
    let over = AtomicBool::new(false);
    let (took, disturbed) = std::thread::scope(|scope| -> Result<_> {
        let recording = scope.spawn(|| record(&pair, "d", load, |_| !over.load(Ordering::Acquire)));
        let started = Instant::now();
        let forgotten = keys
            .iter()
            .try_for_each(|key| pair.command(&["forget", "--key", key], PATIENCE).map(drop));
        let took = started.elapsed();
        over.store(true, Ordering::Release);
        let recorded = recording.join().map_err(|_| anyhow::anyhow!("recording panicked"))??;
        forgotten?;
        Ok((took, recorded))
    })?;
    let shrunk = size(&mut pair)?;
    pair.stop()?;
    let kept = undisturbed.tasks + disturbed.tasks;
    let fresh = fresh(bench, kept, load)?;
    row.add("forgotten", "tasks/s", &[ended as f64 / took.as_secs_f64()]);
    row.add("recorded alone", "tasks/s", &[undisturbed.rate]);
    row.add("recorded meanwhile", "tasks/s", &[disturbed.rate]);
    let rates = disturbed.rate / undisturbed.rate;
    row.hold("recorded meanwhile to alone", "ratio", &[rates], (Side::AtLeast, BARS.0));
    row.add("the database before", "MB", &[full as f64 / 1e6]);
    row.add(&format!("the database after, with {kept} tasks"), "MB", &[shrunk as f64 / 1e6]);
    let sizes = shrunk as f64 / fresh as f64;
    row.hold("the database after to a fresh one", "ratio", &[sizes], (Side::AtMost, BARS.1));
    Ok(row)
}

/// Tasks that were recorded, and how many a second.
struct Recorded {
    tasks: usize,
    rate: f64,
}

/// Submits so many tasks every second and waits until they are recorded, as long as there is
/// to be another second.
fn record(
    pair: &Pair,
    prefix: &str,
    load: usize,
    goes_on: impl Fn(usize) -> bool,
) -> Result<Recorded> {
    let started = Instant::now();
    let mut second = 0;
    while second == 0 || goes_on(second) {
        submit(pair, &format!("{prefix}{second}"), load, true)?;
        second += 1;
        let due = Duration::from_secs(second as u64);
        clutch_tests::poll::pause(due.saturating_sub(started.elapsed()));
    }
    let tasks = second * load;
    Ok(Recorded { tasks, rate: tasks as f64 / started.elapsed().as_secs_f64() })
}

fn begin(bench: &Bench) -> Result<Pair> {
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS)?;
    Ok(pair)
}

/// The size of the database that had no other tasks than so many.
fn fresh(bench: &Bench, tasks: usize, load: usize) -> Result<u64> {
    let mut pair = begin(bench)?;
    for number in 0..tasks / load {
        submit(&pair, &format!("u{number}"), load, true)?;
    }
    let size = size(&mut pair)?;
    pair.stop()?;
    Ok(size)
}

/// Stops the service, and returns the size of its database.
fn size(pair: &mut Pair) -> Result<u64> {
    let code = pair.service.as_mut().context("no service runs")?.stop(SOON)?;
    ensure!(code == 0, "the service ended with {code}");
    let database = pair.world.folder().join("service/clutch.db");
    Ok(std::fs::metadata(database)?.len())
}
