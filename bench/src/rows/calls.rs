//! Calls of a Python function in warm workers, from `clutch-service submit` until
//! all are recorded: the function does nothing.

use super::Bench;
use super::submissions::submit_alike;
use crate::pair::Pair;
use crate::peers::{CELERY, GLOBUS_COMPUTE, Peers};
use crate::pipe;
use crate::report::{Row, Side};
use anyhow::Result;
use std::time::Instant;

/// The rates to reach: calls per second, and relative to Celery.
const BARS: (f64, f64) = (5000.0, 10.0);
/// How many calls the daemon has in hand: what shares a commit.
const SLOTS: usize = 128;
/// How many workers there are: one for each core.
const WORKERS: usize = 2;
/// Globus Compute's engines with as many workers, and what each promises.
const ENGINES: [(&str, &str); 3] = [
    ("GlobusComputeEngine", "its default engine, tasks and results in memory"),
    ("ProcessPoolEngine", "process pool, tasks and results in memory"),
    ("ThreadPoolEngine", "threads of one process, tasks and results in memory"),
];
/// How many calls it is given one at a time: it looks for them twice a second.
const ALONE: usize = 20;
/// The worker, in full.
const WORKER: &str =
    "from clutch import function, serve\n\n@function\ndef nothing(n):\n    return n\n\nserve()\n";

/// The row `calls`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.calls;
    let about = format!(
        "{count} calls of a Python function that does nothing, {WORKERS} warm workers and {SLOTS} \
         slots, from `clutch-service submit` until all are recorded, everything durable; all \
         folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("calls", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    let script = pair.world.folder().join("worker.py");
    std::fs::write(&script, WORKER)?;
    pair.configure(&format!(
        "[functions.nothing]\ncommand = [\"python3\", \"{}\"]\nconcurrency = {WORKERS}\n",
        script.display()
    ))?;
    pair.serve()?;
    pair.run(SLOTS)?;
    let (mut speed, mut pipe, mut others) = (Vec::new(), Vec::new(), Others::default());
    for repetition in 0..bench.scale.repetitions {
        let started = Instant::now();
        submit_alike(&pair, &format!("c{repetition}"), count, &["--call", "nothing"])?;
        let ours = count as f64 / started.elapsed().as_secs_f64();
        speed.push(ours);
        pipe.push(pipe::round_trips(WORKERS, count / WORKERS)?);
        if let Some(peers) = &bench.peers {
            others.measure(bench, peers, ours)?;
        }
    }
    pair.stop()?;
    row.hold("clutch", "calls/s", &speed, (Side::AtLeast, BARS.0));
    row.add("a line to a bare Python loop and back, 2 processes", "round trips/s", &pipe);
    if bench.peers.is_some() {
        others.report(&mut row);
    }
    Ok(row)
}

/// The output of a peer's script.
#[derive(serde::Deserialize)]
struct Measured {
    per_second: f64,
    p50_ms: f64,
}

/// The rates that peers reach.
#[derive(Default)]
struct Others {
    celery: Series,
    /// By engine, as in [`ENGINES`].
    globus: [Series; ENGINES.len()],
    to_celery: Vec<f64>,
    /// To the quickest engine.
    to_globus: Vec<f64>,
}

#[derive(Default)]
struct Series {
    per_second: Vec<f64>,
    p50_ms: Vec<f64>,
}

impl Others {
    fn measure(&mut self, bench: &Bench, peers: &Peers, ours: f64) -> Result<()> {
        let scale = &bench.scale;
        let vhost = bench.broker()?.vhost()?;
        let (url, count, alone) = (vhost.url(), scale.peer.to_string(), scale.sequential);
        let celery: Measured = peers.run(&CELERY, &[&url, &count, &alone.to_string()])?;
        self.to_celery.push(ours / celery.per_second);
        self.celery.push(&celery);
        let mut best = f64::MIN;
        for ((engine, _), series) in ENGINES.iter().zip(&mut self.globus) {
            let alone = alone.min(ALONE).to_string();
            let measured: Measured = peers.run(&GLOBUS_COMPUTE, &[&url, engine, &count, &alone])?;
            best = best.max(measured.per_second);
            series.push(&measured);
        }
        self.to_globus.push(ours / best);
        Ok(())
    }

    fn report(&self, row: &mut Row) {
        let celery = "Celery, 2 processes, rpc results, acks late, durable messages";
        row.add(celery, "calls/s", &self.celery.per_second);
        row.add("Celery, one at a time, p50", "ms", &self.celery.p50_ms);
        for ((_, what), series) in ENGINES.iter().zip(&self.globus) {
            row.add(&format!("Globus Compute, {what}"), "calls/s", &series.per_second);
        }
        if let Some(series) = self.globus.first() {
            row.add("Globus Compute, one at a time, p50", "ms", &series.p50_ms);
        }
        row.hold("clutch to Celery", "ratio", &self.to_celery, (Side::AtLeast, BARS.1));
        row.add("clutch to Globus Compute, quickest engine", "ratio", &self.to_globus);
    }
}

impl Series {
    fn push(&mut self, measured: &Measured) {
        self.per_second.push(measured.per_second);
        self.p50_ms.push(measured.p50_ms);
    }
}
