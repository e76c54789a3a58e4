//! Calls of a Python function in warm workers, from `clutch-service submit` until
//! all are recorded: the function does nothing.

use super::Bench;
use super::submissions::submit_alike;
use crate::pair::Pair;
use crate::peers::Peers;
use crate::pipe;
use crate::report::{Row, Side};
use anyhow::Result;
use std::time::Instant;

/// What has to be reached, in calls per second, and of Celery.
const BARS: (f64, f64) = (5000.0, 10.0);
/// How many calls the daemon has in hand: what shares a commit.
const SLOTS: usize = 128;
/// How many workers there are: one for each core.
const WORKERS: usize = 2;
/// The worker, in full.
const WORKER: &str =
    "from clutch import function, serve\n\n@function\ndef nothing(n):\n    return n\n\nserve()\n";

/// The row `calls`.
///
/// # Errors
/// When the broker or a program cannot be used, Python among them.
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
    let (mut speed, mut pipe) = (Vec::new(), Vec::new());
    let (mut celery, mut alone, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..bench.scale.repetitions {
        let started = Instant::now();
        submit_alike(&pair, &format!("c{repetition}"), count, &["--call", "nothing"])?;
        let ours = count as f64 / started.elapsed().as_secs_f64();
        speed.push(ours);
        pipe.push(pipe::round_trips(WORKERS, count / WORKERS)?);
        if let Some(peers) = &bench.peers {
            let measured = with_celery(bench, peers)?;
            ratio.push(ours / measured.per_second);
            celery.push(measured.per_second);
            alone.push(measured.p50_ms);
        }
    }
    pair.stop()?;
    row.hold("clutch", "calls/s", &speed, (Side::AtLeast, BARS.0));
    row.add("a line to a bare Python loop and back, 2 processes", "round trips/s", &pipe);
    if bench.peers.is_some() {
        row.add("Celery, 2 processes, rpc results, acks late", "calls/s", &celery);
        row.add("Celery, one at a time, p50", "ms", &alone);
        row.hold("clutch to Celery", "ratio", &ratio, (Side::AtLeast, BARS.1));
    }
    Ok(row)
}

/// What the script of that name prints.
#[derive(serde::Deserialize)]
struct Celery {
    per_second: f64,
    p50_ms: f64,
}

fn with_celery(bench: &Bench, peers: &Peers) -> Result<Celery> {
    let vhost = bench.broker()?.vhost()?;
    let (count, alone) = (bench.scale.celery.to_string(), bench.scale.sequential.to_string());
    peers.run("celery_peer.py", &[&vhost.url(), &count, &alone])
}
