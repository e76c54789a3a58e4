//! Tasks that are processes, `/bin/true` with both outputs captured, beside what
//! starts as many without us: the bare system call with pipes, and `xargs`. None has
//! an argument: with one, `true` reads its locale, and takes half as long again.

use super::Bench;
use crate::pair::{NAME, Pair};
use crate::peers::{self, HYPERQUEUE, Peers};
use crate::report::{Row, Side};
use anyhow::{Context as _, Result, ensure};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The rates to reach, relative to `xargs -P2`, to the bare start, and to HyperQueue.
const BARS: (f64, f64, f64) = (1.3, 0.9, 1.5);
/// The program of every task.
const PROGRAM: &str = "/bin/true";
/// How many start processes without us at the same time: one for each core.
const STARTERS: usize = 2;
/// How many tasks the daemon runs at once. One that has ended keeps its slot
/// until its result is on disk, and the more end meanwhile, the more share a sync.
const SLOTS: usize = 16;

/// The row `processes`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.processes;
    let about = format!(
        "{count} times {PROGRAM}, output captured: ours with {SLOTS} slots, from \
         the first request to the API until all are recorded; the others {STARTERS} at a time"
    );
    let mut row = Row::new("processes", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS)?;
    let mut series: [Vec<f64>; 7] = Default::default();
    let mut others = Others::default();
    for repetition in 0..bench.scale.repetitions {
        let spawned = per_second(count, || spawn(count))?;
        let before = pair.cpu_time()?;
        let key = format!("p{repetition}");
        let started = Instant::now();
        pair.api().await?.run(NAME, &key, PROGRAM, count).await?;
        let ours = count as f64 / started.elapsed().as_secs_f64();
        let after = pair.cpu_time()?;
        let [service, endpoint] =
            [0, 1].map(|who| (after[who] - before[who]).as_secs_f64() * 1e6 / count as f64);
        let xargs = per_second(count, || xargs(count))?;
        let figures = [ours, spawned, xargs, service, endpoint, ours / xargs, ours / spawned];
        for (figure, series) in figures.into_iter().zip(&mut series) {
            series.push(figure);
        }
        if let Some(peers) = &bench.peers {
            others.measure(peers, count, ours)?;
        }
    }
    pair.stop()?;
    let [ours, spawned, xargs, service, endpoint, to_xargs, to_spawned] = series;
    row.add("clutch", "tasks/s", &ours);
    row.add("posix_spawn with pipes, 2 threads", "processes/s", &spawned);
    row.add("xargs -P2", "processes/s", &xargs);
    row.add("clutch-service serve, CPU time", "µs/task", &service);
    row.add("clutch-endpoint run, CPU time", "µs/task", &endpoint);
    row.hold("clutch to xargs -P2", "ratio", &to_xargs, (Side::AtLeast, BARS.0));
    row.hold("clutch to posix_spawn", "ratio", &to_spawned, (Side::AtLeast, BARS.1));
    if bench.peers.is_some() {
        others.report(&mut row);
    }
    Ok(row)
}

/// The rate that HyperQueue reaches.
#[derive(Default)]
struct Others {
    python: Vec<f64>,
    /// Where it is installed.
    command_line: Vec<f64>,
    /// Ours to the quicker of both.
    ratio: Vec<f64>,
}

/// The output of its script.
#[derive(serde::Deserialize)]
struct HyperQueue {
    python: f64,
    command_line: Option<f64>,
}

impl Others {
    fn measure(&mut self, peers: &Peers, count: usize, ours: f64) -> Result<()> {
        let mut arguments = vec![count.to_string()];
        arguments.extend(peers::hq().map(|path| path.display().to_string()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let measured: HyperQueue = peers.run(&HYPERQUEUE, &arguments)?;
        self.python.push(measured.python);
        self.command_line.extend(measured.command_line);
        let best = measured.command_line.unwrap_or(measured.python).max(measured.python);
        self.ratio.push(ours / best);
        Ok(())
    }

    fn report(&self, row: &mut Row) {
        row.add("HyperQueue by its Python API, no journal", "tasks/s", &self.python);
        if !self.command_line.is_empty() {
            row.add("HyperQueue, `hq submit --array`, no journal", "tasks/s", &self.command_line);
        }
        let what = "clutch to HyperQueue, the quicker way";
        row.hold(what, "ratio", &self.ratio, (Side::AtLeast, BARS.2));
    }
}

fn per_second(count: usize, run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    run()?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// Starts processes with pipes for both outputs, and reads them to their end.
/// In a group of its own: that keeps the library on `posix_spawn`.
fn spawn(count: usize) -> Result<()> {
    let some = move || -> Result<()> {
        for _ in 0..count / STARTERS {
            let mut child = Command::new(PROGRAM)
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let mut bytes = Vec::new();
            child.stdout.take().context("no output")?.read_to_end(&mut bytes)?;
            child.stderr.take().context("no errors")?.read_to_end(&mut bytes)?;
            ensure!(child.wait()?.success(), "{PROGRAM} failed");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(some)).collect();
        starters.into_iter().try_for_each(|starter| {
            starter.join().map_err(|_| anyhow::anyhow!("a starter panicked"))?
        })
    })
}

/// `xargs` does not capture; it is the quickest way to start processes that
/// people have at hand.
fn xargs(count: usize) -> Result<()> {
    let line = format!("seq {count} | xargs -P{STARTERS} -I{{}} {PROGRAM}");
    let status = Command::new("sh").args(["-c", &line]).status().context("starting sh")?;
    ensure!(status.success(), "xargs: {status}");
    Ok(())
}
