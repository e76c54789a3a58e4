//! Output of running tasks: how long after a line is written `logs --follow` shows it, and how
//! much a task that prints 100 MB/s slows the others; their results must not wait for it.

use super::Bench;
use super::latency::ms;
use super::submissions::PATIENCE;
use crate::pair::{NAME, Pair};
use crate::report::{Row, Side};
use crate::stats::quantile;
use anyhow::{Context as _, Result, ensure};
use clutch_common::system::clock::now_ms;
use clutch_tests::world::SOON;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The 99th percentile from a line's writing to its showing, in milliseconds; the rate of other
/// tasks beside one that prints, to that without it.
const BARS: (f64, f64) = (500.0, 0.9);
/// How many tasks run at once, the one that prints not counted.
const SLOTS: usize = 16;
/// The program of the other tasks.
const PROGRAM: &str = "/bin/true";
/// How much the task that prints writes at a time, in bytes.
const CHUNK: usize = 10_000_000;
/// How long it pauses after that, in seconds.
const PAUSE: &str = "0.1";

/// The row `logs`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let (lines, count) = (bench.scale.sequential.min(LINES_MAX), bench.scale.processes);
    let about = format!(
        "{lines} lines of a task, ten a second, from the moment in each to its appearance at \
         `logs --follow`; {count} times {PROGRAM} and no-op calls beside a task that prints up to \
         100 MB/s, not followed and followed"
    );
    let mut row = Row::new("logs", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS + 1)?;
    let times = follow(&pair, lines)?;
    row.add("a line, p50", "ms", &[quantile(&times, 0.5)]);
    row.hold("a line, p99", "ms", &[quantile(&times, 0.99)], (Side::AtMost, BARS.0));
    std::fs::write(pair.world.folder().join("text"), text())?;

    let mut series: [Vec<f64>; 8] = Default::default();
    for repetition in 0..bench.scale.repetitions {
        let alone = others(bench, &pair, &format!("alone{repetition}")).await?;
        let printer = Printer::start(&pair, &format!("quiet{repetition}"))?;
        let quiet = others(bench, &pair, &format!("beside{repetition}")).await?;
        let printed = printer.stop()?;
        let printer = Printer::start(&pair, &format!("loud{repetition}"))?;
        let follower = Follower::start(&pair, &printer.task)?.drained();
        let followed = others(bench, &pair, &format!("followed{repetition}")).await?;
        drop(follower);
        printer.stop()?;
        let ratios = [quiet.rate / alone.rate, followed.rate / alone.rate];
        let rates = [alone.rate, quiet.rate, followed.rate];
        let waits = [alone.p99, followed.p99];
        for (figure, series) in
            [printed].into_iter().chain(rates).chain(ratios).chain(waits).zip(&mut series)
        {
            series.push(figure);
        }
    }
    pair.stop()?;
    let [printed, alone, quiet, followed, quiet_ratio, followed_ratio, wait_alone, wait_followed] =
        series;
    row.add("printed and read", "MB/s", &printed);
    row.add("other tasks, alone", "tasks/s", &alone);
    row.add("other tasks, beside it", "tasks/s", &quiet);
    row.add("other tasks, beside it while it is followed", "tasks/s", &followed);
    row.hold("beside it to alone", "ratio", &quiet_ratio, (Side::AtLeast, BARS.1));
    row.hold(
        "beside it while it is followed to alone",
        "ratio",
        &followed_ratio,
        (Side::AtLeast, BARS.1),
    );
    row.add("a no-op task, alone, p99", "ms", &wait_alone);
    row.add("a no-op task, beside it while it is followed, p99", "ms", &wait_followed);
    Ok(row)
}

/// The most lines that are waited for, ten a second.
const LINES_MAX: usize = 300;

/// Text of several lines.
fn text() -> Vec<u8> {
    let line = b"a line of sixty-four bytes, as a program prints of its progress\n";
    line.iter().copied().cycle().take(CHUNK).collect()
}

/// Follows a task that writes the present into each line; returns how late each came, in
/// milliseconds.
fn follow(pair: &Pair, lines: usize) -> Result<Vec<f64>> {
    let task = submit(pair, "lines", "while :; do date +%s%3N; sleep 0.1; done")?;
    until_running(pair, &task)?;
    let mut follower = Follower::start(pair, &task)?;
    let mut times = Vec::with_capacity(lines);
    let mut since = None;
    while times.len() < lines {
        let (written, seen) = (follower.line()?, now_ms());
        let written: u64 = written.trim().parse().context("a line is no time")?;
        // What was written before it was followed comes with the first line.
        let since = *since.get_or_insert(seen);
        if written > since {
            times.push(seen.saturating_sub(written) as f64);
        }
    }
    cancel(pair, "lines")?;
    Ok(times)
}

/// The rates of the other tasks.
struct Others {
    /// Tasks per second.
    rate: f64,
    /// The 99th percentile of single ones from submit to recorded, in milliseconds.
    p99: f64,
}

async fn others(bench: &Bench, pair: &Pair, key: &str) -> Result<Others> {
    let count = bench.scale.processes;
    let mut api = pair.api().await?;
    let started = Instant::now();
    api.run(NAME, key, PROGRAM, count).await?;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let mut times = Vec::with_capacity(bench.scale.sequential);
    for number in 0..bench.scale.sequential {
        times.push(api.echo(NAME, &format!("{key}.{number}"), &json!(number)).await?);
    }
    Ok(Others { rate, p99: quantile(&ms(&times), 0.99) })
}

/// A task that prints, until it is stopped.
struct Printer<'a> {
    pair: &'a Pair,
    key: String,
    task: String,
}

impl<'a> Printer<'a> {
    fn start(pair: &'a Pair, key: &str) -> Result<Self> {
        let text = pair.world.folder().join("text");
        let script = format!("while :; do cat {}; sleep {PAUSE}; done", text.display());
        let task = submit(pair, key, &script)?;
        until_running(pair, &task)?;
        Ok(Self { pair, key: key.to_owned(), task })
    }

    /// Stops it; returns how many megabytes it printed a second.
    fn stop(self) -> Result<f64> {
        cancel(self.pair, &self.key)?;
        let results = self.pair.world.results(&self.key)?;
        let result = &results.first().context("it has no result")?["result"];
        let ms = |name: &str| result[name].as_f64().with_context(|| format!("no {name}: {result}"));
        let took = (ms("ended_at_ms")? - ms("started_at_ms")?) / 1000.0;
        Ok(ms("stdout_omitted")? / 1e6 / took)
    }
}

/// `logs --follow`, of which something was shown; ended when this is dropped.
struct Follower {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
    /// Reads what is shown, once no line of it is asked for.
    drain: Option<JoinHandle<()>>,
}

impl Follower {
    fn start(pair: &Pair, task: &str) -> Result<Self> {
        let mut command: Command = pair.world.service_command(&["logs", task, "--follow"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("starting logs --follow")?;
        let lines = child.stdout.take().map(BufReader::new);
        let mut follower = Self { child, lines, drain: None };
        ensure!(!follower.lines()?.fill_buf()?.is_empty(), "`logs --follow` ended at once");
        Ok(follower)
    }

    fn lines(&mut self) -> Result<&mut BufReader<ChildStdout>> {
        self.lines.as_mut().context("its lines are read by another")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.lines()?.read_line(&mut line)? > 0, "`logs --follow` ended");
        Ok(line)
    }

    /// The same, with all that is shown read and left aside.
    fn drained(mut self) -> Self {
        let lines = self.lines.take();
        let drain = move || {
            // It ends with the process.
            drop(lines.map(|mut lines| std::io::copy(&mut lines, &mut std::io::sink())));
        };
        self.drain = Some(std::thread::spawn(drain));
        self
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Either fails only where it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(self.drain.take().map(JoinHandle::join));
    }
}

fn submit(pair: &Pair, key: &str, script: &str) -> Result<String> {
    let submit = ["submit", NAME, "--key", key, "--json", "--", "sh", "-c", script];
    let answer: Value = serde_json::from_str(&pair.command(&submit, SOON)?)?;
    Ok(answer["ids"][0].as_str().context("no task")?.to_owned())
}

fn until_running(pair: &Pair, task: &str) -> Result<()> {
    clutch_tests::poll::until("the task to run", SOON, || {
        let shown: Value = serde_json::from_str(&pair.command(&["show", task, "--json"], SOON)?)?;
        Ok((shown["state"] == "running").then_some(()))
    })
}

fn cancel(pair: &Pair, key: &str) -> Result<()> {
    pair.command(&["cancel", "--key", key], PATIENCE)?;
    // The outcome of a cancelled task is no success of `wait`.
    let wait = ["wait", "--key", key, "--timeout", "60s"];
    pair.world.service_within(&wait, Duration::from_secs(90)).map(drop)
}
