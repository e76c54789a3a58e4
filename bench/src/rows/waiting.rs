//! Tasks that are submitted while the service has no link, and wait in its records: how fast
//! they are recorded, how fast they are placed and run once the link is there, and how much
//! memory the service takes.

use super::Bench;
use super::round_trips::SLOTS;
use super::submissions::{submit, wait};
use crate::pair::Pair;
use crate::report::{Row, Side};
use anyhow::Result;
use clutch_tests::proxy::{Carry, Proxy};
use clutch_tests::world::SOON;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The most memory the service may use, in megabytes.
const BAR: f64 = 100.0;
/// How much more it may use for four times as many tasks.
const GROWTH: f64 = 1.15;

/// One measurement.
struct Waited {
    recorded: Duration,
    placed: Duration,
    /// The service's peak memory before the link was there, in bytes.
    waiting: u64,
    peak: u64,
}

/// The row `waiting`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.submitted;
    let about = format!(
        "{count} no-op tasks are submitted while the service has no link to the broker, and are \
         placed once it has one; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("waiting", about);
    let times = play(bench, count)?;
    let more = play(bench, count * 4)?;
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    row.add("recorded without a link", "tasks/s", &[rate(times.recorded)]);
    row.add("placed, run and recorded, from the link on", "tasks/s", &[rate(times.placed)]);
    row.add("service, while they wait, at its peak", "MB", &[times.waiting as f64 / 1e6]);
    row.hold("service, at its peak", "MB", &[times.peak as f64 / 1e6], (Side::AtMost, BAR));
    let growth = more.peak as f64 / times.peak as f64;
    row.hold("its peak with four times as many", "ratio", &[growth], (Side::AtMost, GROWTH));
    Ok(row)
}

/// Has so many tasks wait for the link, and be placed.
fn play(bench: &Bench, count: usize) -> Result<Waited> {
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.run(SLOTS)?;
    let vhost = pair.world.vhost();
    let proxy = Proxy::before((Ipv4Addr::LOCALHOST, vhost.port()?).into())?;
    proxy.carry(Carry::Refuse)?;
    let behind = vhost.url_by(proxy.port())?;
    let mut service = pair.world.launch_service(&["--broker", &behind])?;
    service.wait_for("disengaged", SOON)?;
    let started = Instant::now();
    submit(&pair, "k", count, false)?;
    let recorded = started.elapsed();
    let waiting = service.peak_memory()?;
    proxy.carry(Carry::Pass)?;
    service.wait_for("serving", SOON)?;
    let started = Instant::now();
    wait(&pair, "k")?;
    let placed = started.elapsed();
    let peak = service.peak_memory()?;
    pair.stop()?;
    Ok(Waited { recorded, placed, waiting, peak })
}
