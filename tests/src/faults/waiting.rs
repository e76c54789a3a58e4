//! Faults while tasks wait in the service's records: submitting needs its disk, not the broker.
//! None makes a task run twice.

use super::stage::Site;
use super::{Play, Row, Seen};
use crate::broker::Private;
use crate::poll;
use crate::proxy::Carry;
use crate::world::SOON;
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// How long the service is there before each kill, in milliseconds.
const LIVES: [u64; 5] = [0, 20, 60, 150, 400];

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "submitted-without-broker",
        "tasks are submitted while the broker is down, the service is ended by kill -9 and started \
         again, more are submitted, and the broker is started",
        Play::Alone(without_broker),
    )
    .since("the broker being up again"),
    Row::new(
        "service-killed-before-placing",
        "the service is ended by kill -9 while tasks are recorded and not at the broker, five times \
         while it places them, and while the broker has them and has not confirmed them",
        Play::Beside(before_placing),
    )
    .since("the last start"),
];

fn without_broker(site: &Site, broker: &mut Private) -> Result<Seen> {
    let mut stage = site.stage()?;
    broker.kill()?;
    stage.until_disengaged()?;
    stage.service.wait_for("disengaged", SOON)?;
    stage.submit_recorded(3000)?;
    stage.service.kill()?;
    stage.service = stage.world.launch_service(&[])?;
    stage.service.wait_for("disengaged", SOON)?;
    stage.submit_recorded(3000)?;
    broker.run()?;
    let recovery = stage.recovery(Instant::now())?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn before_placing(site: &Site) -> Result<Seen> {
    let (mut stage, proxy, options) = site.stage_without_link()?;
    let options = options.each_ref().map(String::as_str);
    stage.submit_recorded(6000)?;
    stage.service.kill()?;
    proxy.carry(Carry::Pass)?;
    for life in LIVES {
        stage.service = stage.world.launch_service(&options)?;
        stage.service.wait_for("serving", SOON)?;
        poll::pause(Duration::from_millis(life));
        stage.service.kill()?;
    }
    stage.service = stage.world.launch_service(&options)?;
    stage.service.wait_for("serving", SOON)?;
    proxy.hold_confirms(true);
    stage.submit_recorded(1000)?;
    let held = || Ok((proxy.confirms_held() > 0).then_some(()));
    poll::until("confirms to be held back", SOON, held).context("the fault did not hit")?;
    stage.service.kill()?;
    proxy.hold_confirms(false);
    let again = Instant::now();
    stage.service = stage.world.launch_service(&options)?;
    let recovery = stage.recovery(again)?;
    Ok(stage.seen()?.recovered_in(recovery))
}
