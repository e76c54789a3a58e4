//! No-op round trips with one message a task: the endpoint's daemon, all of it,
//! beside a bare loop of four hops over the same broker.

use super::Bench;
use crate::bare::Bare;
use crate::driver::Driver;
use crate::pair::Pair;
use crate::report::{Row, Side};
use crate::site::{Site, WINDOW};
use anyhow::Result;
use std::time::Instant;

/// The share of the bare loop's rate that the daemon has to reach.
const BAR: f64 = 0.9;
/// As many deliveries under way as the bare loop has: with a message a task, they
/// are what shares a commit.
const SETTINGS: &str = "[inbox]\nprefetch = 500\n";
/// How many tasks the daemon may have in hand. A no-op keeps its slot until its
/// result is on disk, so this is how many share a commit at most.
pub(super) const SLOTS: usize = 512;

/// The row `round-trips`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.round_trips;
    let about = format!(
        "{count} no-op round trips, a message each, up to {WINDOW} under way, prefetch 500 on both \
         sides, everything durable; the state folder is on {}",
        bench.file_system()?
    );
    let mut row = Row::new("round-trips", about);
    let (mut bare, mut ours, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.scale.repetitions {
        let limit = without_us(bench, count).await?;
        let measured = through_the_daemon(bench, count).await?;
        bare.push(limit);
        ours.push(measured);
        ratio.push(measured / limit);
    }
    row.add("clutch-endpoint", "round trips/s", &ours);
    row.add("the broker, a bare loop over lapin", "round trips/s", &bare);
    row.hold("clutch-endpoint to the bare loop", "ratio", &ratio, (Side::AtLeast, BAR));
    Ok(row)
}

async fn without_us(bench: &Bench, count: usize) -> Result<f64> {
    let vhost = bench.broker()?.vhost()?;
    let mut bare = Bare::start(&vhost.url()).await?;
    let started = Instant::now();
    bare.round_trips(count, WINDOW).await?;
    let seconds = started.elapsed().as_secs_f64();
    bare.finish().await?;
    Ok(count as f64 / seconds)
}

async fn through_the_daemon(bench: &Bench, count: usize) -> Result<f64> {
    let mut pair = Pair::provision(bench.broker()?, SETTINGS)?;
    pair.run(SLOTS)?;
    let site = Site::new(&pair.world.broker(), pair.id()?)?;
    let mut driver = Driver::start(&site).await?;
    let started = Instant::now();
    driver.round_trips(count, WINDOW).await?;
    driver.acknowledge().await?;
    let seconds = started.elapsed().as_secs_f64();
    driver.close().await;
    pair.stop()?;
    Ok(count as f64 / seconds)
}
