//! Faults of the broker itself. None makes a task run twice.

use super::stage::{Setup, Site, Stage};
use super::{Play, Row, Seen};
use crate::broker::Private;
use crate::poll;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "broker-kill",
        "the broker is ended by kill -9 and started again after 5 s",
        Play::Alone(kill),
    )
    .since("the broker being up again"),
    Row::new(
        "broker-restart",
        "the broker is stopped in order and started again",
        Play::Alone(restart),
    )
    .since("the broker being up again"),
    Row::new(
        "broker-memory-alarm",
        "the broker is short of memory for 20 s; the endpoint's patience with that is 5 s",
        Play::Alone(memory_alarm),
    ),
    Row::new(
        "broker-disk-alarm",
        "the broker's disk is short for 10 s; the endpoint's patience with that is a minute",
        Play::Alone(disk_alarm),
    )
    .within(10),
];

fn half_way(site: &Site, setup: &Setup) -> Result<Stage> {
    let mut stage = site.stage_with(setup)?;
    stage.submit(8000, "")?;
    stage.until_recorded(1000)?;
    Ok(stage)
}

fn kill(site: &Site, broker: &mut Private) -> Result<Seen> {
    let mut stage = half_way(site, &Setup::default())?;
    broker.kill()?;
    stage.until_disengaged()?;
    poll::pause(Duration::from_secs(5));
    broker.run()?;
    up_again(&mut stage)
}

fn restart(site: &Site, broker: &mut Private) -> Result<Seen> {
    let mut stage = half_way(site, &Setup::default())?;
    broker.stop()?;
    stage.until_disengaged()?;
    broker.run()?;
    up_again(&mut stage)
}

fn up_again(stage: &mut Stage) -> Result<Seen> {
    let recovery = stage.back(Instant::now())?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn memory_alarm(site: &Site, broker: &mut Private) -> Result<Seen> {
    let blocked = Setup { provision: &["--blocked-timeout", "5s"], ..Setup::default() };
    let mut stage = half_way(site, &blocked)?;
    broker.control(&["set_vm_memory_high_watermark", "0.000001"])?;
    let told = stage.until_disengaged();
    poll::pause(Duration::from_secs(20));
    broker.control(&["set_vm_memory_high_watermark", "0.6"])?;
    let end = Instant::now();
    let told = told?["fault"].to_string();
    ensure!(told.contains("memory"), "the endpoint was told {told}");
    let recovery = stage.back(end)?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn disk_alarm(site: &Site, broker: &mut Private) -> Result<Seen> {
    let stage = half_way(site, &Setup::default())?;
    broker.control(&["set_disk_free_limit", "100000GB"])?;
    let blocked = poll::until("the broker to block those who publish", SOON, || {
        let states = stage.world.vhost().connections()?;
        let blocked = |one: &serde_json::Value| one["state"] == "blocked";
        Ok(states.iter().any(blocked).then_some(()))
    });
    poll::pause(Duration::from_secs(10));
    broker.control(&["set_disk_free_limit", "50MB"])?;
    let end = Instant::now();
    blocked.context("the fault did not hit")?;
    let recovery = stage.recovery(end)?;
    let lost = stage.said("disengaged")?;
    let seen = stage.seen()?.recovered_in(recovery);
    Ok(seen.must(lost == 0, || format!("the link was given up {lost} times")))
}
