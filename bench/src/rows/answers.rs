//! One no-op task at a time, from its submission through the service's API until
//! its recorded result is told, beside a bare sequential loop of four hops over
//! the same broker.

use super::Bench;
use super::latency::ms;
use crate::bare::Bare;
use crate::disk;
use crate::pair::{NAME, Pair};
use crate::report::{Row, Side};
use crate::stats::quantile;
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};

/// The limits of the median and the 99th percentile, relative to the bare loop's.
const BARS: (f64, f64) = (1.5, 2.0);
/// How many of the first round trips do not count.
pub(super) const WARM_UP: usize = 100;
/// How many tasks the command line submits one by one.
const COMMANDS: usize = 100;

/// The row `latency`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.sequential;
    let about = format!(
        "{count} no-op tasks, one at a time, everything durable; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("latency", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(2)?;
    let mut series: [Vec<f64>; 8] = Default::default();
    for repetition in 0..bench.scale.repetitions {
        let bare = ms(&without_us(bench, count).await?);
        let ours = ms(&through_the_api(&pair, repetition, count).await?);
        let typed = ms(&by_command(&pair, bench.scale.sequential.min(COMMANDS))?);
        let [p50, p99] = [0.5, 0.99].map(|share| quantile(&ours, share));
        let [bare50, bare99] = [0.5, 0.99].map(|share| quantile(&bare, share));
        let sync = quantile(&ms(&disk::syncs(&std::env::temp_dir(), bench.scale.probes)?), 0.5);
        let (typed, ratios) = (quantile(&typed, 0.5), [p50 / bare50, p99 / bare99]);
        let figures = [p50, p99, bare50, bare99, ratios[0], ratios[1], typed, sync];
        for (figure, series) in figures.into_iter().zip(&mut series) {
            series.push(figure);
        }
    }
    pair.stop()?;
    let [p50, p99, bare50, bare99, ratio50, ratio99, typed, sync] = series;
    row.add("through the API, p50", "ms", &p50);
    row.add("through the API, p99", "ms", &p99);
    row.add("`clutch-service submit --wait`, p50", "ms", &typed);
    row.add("the broker, a bare loop over lapin, p50", "ms", &bare50);
    row.add("the broker, a bare loop over lapin, p99", "ms", &bare99);
    row.add("the disk, a bare fdatasync, p50", "ms", &sync);
    row.hold("API to the bare loop, p50", "ratio", &ratio50, (Side::AtMost, BARS.0));
    row.hold("API to the bare loop, p99", "ratio", &ratio99, (Side::AtMost, BARS.1));
    Ok(row)
}

/// The times of round trips of a bare loop over the broker of this run.
pub(super) async fn without_us(bench: &Bench, count: usize) -> Result<Vec<Duration>> {
    let vhost = bench.broker()?.vhost()?;
    let mut bare = Bare::start(&vhost.url()).await?;
    bare.round_trips(WARM_UP, 1).await?;
    let times = bare.round_trips(count, 1).await?;
    bare.finish().await?;
    Ok(times)
}

async fn through_the_api(pair: &Pair, repetition: usize, count: usize) -> Result<Vec<Duration>> {
    let mut api = pair.api().await?;
    let mut times = Vec::with_capacity(count);
    for number in 0..WARM_UP + count {
        let key = format!("r{repetition}.{number}");
        times.push(api.echo(NAME, &key, &json!(number)).await?);
    }
    Ok(times.split_off(WARM_UP))
}

fn by_command(pair: &Pair, count: usize) -> Result<Vec<Duration>> {
    let submit = ["submit", NAME, "--wait", "--call", "clutch.echo", "--json-arg", "1"];
    let one = |_| {
        let started = Instant::now();
        let status =
            pair.world.service_command(&submit).stdout(std::process::Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "clutch-service submit: {status}");
        Ok(started.elapsed())
    };
    (0..count).map(one).collect()
}
