//! The memory of the daemons: an idle endpoint, one that works through a
//! long queue of middling tasks, and a service with very many finished tasks in
//! its database, which lists the newest of them.

use super::Bench;
use super::latency::ms;
use super::round_trips::SLOTS;
use super::submissions::{AT_ONCE, submit};
use crate::pair::Pair;
use crate::report::{Row, Side};
use crate::stats::quantile;
use anyhow::{Context as _, Result, ensure};
use clutch_tests::process::Daemon;
use clutch_tests::scenario::backlog;
use clutch_tests::world::{SOON, World};
use std::time::{Duration, Instant};

/// The most an idle endpoint may keep, one over a long queue, and a service, in
/// megabytes.
const BARS: (f64, f64, f64) = (15.0, 48.0, 100.0);
/// How long the first page of a listing may take, in milliseconds.
const PAGE: f64 = 50.0;
/// How large a middling task is, in bytes.
const MIDDLING: usize = 10_000;
/// How often the first page is asked for.
const ASKED: usize = 50;

/// The row `memory`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let (tasks, finished) = (bench.scale.middling, bench.scale.finished);
    let about = format!(
        "resident memory: an endpoint, idle and over {tasks} tasks of {MIDDLING} bytes, and a \
         service with {finished} finished tasks"
    );
    let mut row = Row::new("memory", about);
    let over_a_queue = backlog(&World::on(bench.broker()?)?, tasks, MIDDLING)?;
    ensure!(over_a_queue.succeeded == tasks, "{} tasks succeeded", over_a_queue.succeeded);
    row.hold("endpoint, idle", "MB", &[mb(over_a_queue.idle)], (Side::AtMost, BARS.0));
    row.hold("endpoint, at its peak", "MB", &[mb(over_a_queue.peak)], (Side::AtMost, BARS.1));

    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS)?;
    let mut left = finished;
    while left > 0 {
        let some = left.min(AT_ONCE);
        submit(&pair, &format!("f{left}"), some, true)?;
        left -= some;
    }
    pair.stop()?;
    let peak = service(&pair)?.peak_memory()?;
    let code = pair.service.as_mut().context("no service runs")?.stop(SOON)?;
    ensure!(code == 0, "the service ended with {code}");
    pair.serve()?;
    let pages = first_pages(&pair).await?;
    row.hold("service, while they came, at its peak", "MB", &[mb(peak)], (Side::AtMost, BARS.2));
    let now = mb(service(&pair)?.peak_memory()?);
    row.hold("service, started over them", "MB", &[now], (Side::AtMost, BARS.2));
    row.hold(
        "first page of `tasks`, p99",
        "ms",
        &[quantile(&ms(&pages), 0.99)],
        (Side::AtMost, PAGE),
    );
    Ok(row)
}

async fn first_pages(pair: &Pair) -> Result<Vec<Duration>> {
    let mut api = pair.api().await?;
    let mut times = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let started = Instant::now();
        let page = api.get("/v1/tasks").await?;
        times.push(started.elapsed());
        let listed = page["tasks"].as_array().map_or(0, Vec::len);
        ensure!(listed == 50, "the page lists {listed} tasks");
    }
    Ok(times)
}

fn service(pair: &Pair) -> Result<&Daemon> {
    pair.service.as_ref().context("no service runs")
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
