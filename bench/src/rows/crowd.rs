//! Clients that each wait for the outcome of one task before they submit the next,
//! several at once, beside a bare loop that has as many round trips under way.

use super::Bench;
use super::answers::WARM_UP;
use super::latency::ms;
use crate::bare::Bare;
use crate::pair::{NAME, Pair};
use crate::report::Row;
use crate::stats::quantile;
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many clients there are.
const CLIENTS: [usize; 3] = [4, 8, 32];
/// How many tasks the daemon runs at once, as the README advises for short calls.
const SLOTS: usize = 64;

/// The figures of one number of clients, one for each repetition.
#[derive(Default)]
struct Series {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    bare: Vec<f64>,
    ratio: Vec<f64>,
}

/// The row `crowd`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.crowd;
    let about = format!(
        "{count} no-op tasks by several clients, each of which waits for the outcome of one before \
         it submits the next, {SLOTS} slots, everything durable; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("crowd", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS)?;
    let mut all: [Series; CLIENTS.len()] = Default::default();
    for repetition in 0..bench.scale.repetitions {
        for (clients, series) in CLIENTS.into_iter().zip(&mut all) {
            let bare = without_us(bench, count, clients).await?;
            let key = format!("c{repetition}.{clients}");
            let started = Instant::now();
            let times = ms(&through_the_api(&pair, &key, clients, count).await?);
            let rate = times.len() as f64 / started.elapsed().as_secs_f64();
            series.rate.push(rate);
            series.p50.push(quantile(&times, 0.5));
            series.p99.push(quantile(&times, 0.99));
            series.bare.push(bare);
            series.ratio.push(rate / bare);
        }
    }
    pair.stop()?;
    for (clients, series) in CLIENTS.iter().zip(&all) {
        row.add(&format!("{clients} clients"), "tasks/s", &series.rate);
        row.add(&format!("{clients} clients, p50"), "ms", &series.p50);
        row.add(&format!("{clients} clients, p99"), "ms", &series.p99);
        row.add(&format!("a bare loop over lapin, {clients} under way"), "tasks/s", &series.bare);
        row.add(&format!("{clients} clients to the bare loop"), "ratio", &series.ratio);
    }
    Ok(row)
}

async fn without_us(bench: &Bench, count: usize, window: usize) -> Result<f64> {
    let vhost = bench.broker()?.vhost()?;
    let mut bare = Bare::start(&vhost.url()).await?;
    bare.round_trips(WARM_UP, window).await?;
    let started = Instant::now();
    bare.round_trips(count, window).await?;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    bare.finish().await?;
    Ok(rate)
}

/// How long each task took; all clients share the tasks.
async fn through_the_api(
    pair: &Pair,
    key: &str,
    clients: usize,
    count: usize,
) -> Result<Vec<Duration>> {
    let mut running = JoinSet::new();
    for client in 0..clients {
        let mut api = pair.api().await?;
        let key = format!("{key}.{client}");
        running.spawn(async move {
            let mut times = Vec::with_capacity(count / clients);
            for number in 0..count / clients {
                times.push(api.echo(NAME, &format!("{key}.{number}"), &json!(number)).await?);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::with_capacity(count);
    while let Some(one) = running.join_next().await {
        times.extend(one??);
    }
    Ok(times)
}
