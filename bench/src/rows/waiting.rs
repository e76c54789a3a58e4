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
use std::time::Instant;

/// The most memory the service may use, in megabytes.
const BAR: f64 = 100.0;

/// The row `waiting`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.submitted;
    let about = format!(
        "{count} no-op tasks are submitted while the service has no link to the broker, and are \
         placed once it has one; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("waiting", about);
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
    row.add("recorded without a link", "tasks/s", &[count as f64 / recorded.as_secs_f64()]);
    let rate = count as f64 / placed.as_secs_f64();
    row.add("placed, run and recorded, from the link on", "tasks/s", &[rate]);
    row.add("service, while they wait, at its peak", "MB", &[waiting as f64 / 1e6]);
    row.hold("service, at its peak", "MB", &[peak as f64 / 1e6], (Side::AtMost, BAR));
    Ok(row)
}
