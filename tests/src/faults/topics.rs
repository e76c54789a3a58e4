//! Faults of members of a topic, and of the service that places their tasks.
//!
//! No task is lost. One runs twice only where a daemon was killed, or its disk lost, that ran it:
//! a member that is away, or stands still, never starts what was placed elsewhere since.

mod at_random;
mod fleet;

use super::stage::Site;
use super::{BOTH, Play, Row, Seen};
use crate::poll;
use anyhow::{Result, ensure};
use fleet::{Fleet, SLOTS};
use std::time::{Duration, Instant};

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "topics-member-kill",
        "one of three members of a topic after the other is ended by kill -9 and started again, \
         ten times",
        Play::Beside(member_kill),
    )
    .may_run_again("those that held a slot at a kill")
    .since("the last start"),
    Row::new(
        "topics-member-cut",
        "one of three members after the other is without a link for up to 4 s, ten times; an \
         attempt must start within 2 s",
        Play::Beside(member_cut),
    )
    .on(BOTH),
    Row::new(
        "topics-member-stopped",
        "one of three members after the other stands still for 6 s (SIGSTOP), five times; an \
         attempt must start within 2 s, so that what waits there is placed elsewhere",
        Play::Beside(member_stopped),
    ),
    Row::new(
        "topics-disk-lost",
        "a member is ended by kill -9, its state folder removed and declared lost, and it is started \
         anew",
        Play::Beside(disk_lost),
    )
    .may_run_again("those that had started and were not recorded at the kill")
    .since("the next start"),
    Row::new(
        "topics-service-kill",
        "the service is ended by kill -9 forty times while it places tasks",
        Play::Beside(service_kill),
    )
    .since("the last start"),
    Row::new(
        "topics-both",
        "the service and one of three members are ended by kill -9 at once, ten times",
        Play::Beside(both),
    )
    .may_run_again("those that held a slot at a kill")
    .since("the last start"),
    Row::new(
        "topics-at-random",
        "20,000 tasks over five members, and every 3 s a fault at random: a member is killed, cut \
         off, without a link for a while, or stands still; its disk is lost; the service is \
         killed, alone or with a member",
        Play::Beside(at_random::play),
    )
    .may_run_again(
        "those that held a slot at a kill, and those that a lost disk had started and not told of",
    )
    .since("the last fault")
    .within(60),
];

/// Plays a fault so many times at one member after the other, with outcomes between. `each` is
/// more tasks than three members do during one fault.
fn play(
    site: &Site,
    faults: usize,
    each: usize,
    mut fault: impl FnMut(&mut Fleet, usize) -> Result<()>,
) -> Result<(Fleet, Instant)> {
    let faults = if site.brief { faults.min(3) } else { faults };
    let mut fleet = Fleet::start(site, 3)?;
    fleet.submit(600 + faults * each)?;
    let mut end = Instant::now();
    for number in 0..faults {
        fleet.until_more(5)?;
        let member = number % fleet.members.len();
        fault(&mut fleet, member)?;
        end = Instant::now();
        ensure!(!fleet.all_done()?, "the fault came too late: all tasks were done");
    }
    Ok((fleet, end))
}

/// Waits for the end, where so many tasks at most may have run again for each fault.
fn seen(fleet: Fleet, end: Instant, may_run_again: usize) -> Result<Seen> {
    let recovery = fleet.stage.recovery(end)?;
    let notes = fleet.shares()?;
    let seen = fleet.stage.seen()?.allowing(may_run_again).recovered_in(recovery);
    Ok(seen.note(notes))
}

fn member_kill(site: &Site) -> Result<Seen> {
    let mut kills = 0;
    let (fleet, end) = play(site, 10, 700, |fleet, member| {
        kills += 1;
        fleet.kill(member)?;
        fleet.start_again(member)
    })?;
    seen(fleet, end, kills * SLOTS)
}

fn member_cut(site: &Site) -> Result<Seen> {
    let mut number = 0;
    let (fleet, end) = play(site, 10, 1000, |fleet, member| {
        number += 1;
        fleet.cut_for(member, Duration::from_millis(number * 400))
    })?;
    seen(fleet, end, 0)
}

fn member_stopped(site: &Site) -> Result<Seen> {
    let mut elsewhere = 0;
    let (fleet, end) = play(site, 5, 2000, |fleet, member| {
        fleet.stop_for(member, Duration::from_secs(6))?;
        elsewhere = fleet.placed_again()?;
        Ok(())
    })?;
    let seen = seen(fleet, end, 0)?;
    let seen = seen.note(format!("{elsewhere} placed elsewhere"));
    Ok(seen.must(elsewhere > 0, || "nothing that waited was placed elsewhere".to_owned()))
}

fn disk_lost(site: &Site) -> Result<Seen> {
    let mut ran = 0;
    let (fleet, end) = play(site, 1, 1000, |fleet, member| {
        ran += fleet.lose_disk(member)?;
        Ok(())
    })?;
    seen(fleet, end, ran)
}

fn service_kill(site: &Site) -> Result<Seen> {
    let (fleet, end) = play(site, 40, 400, |fleet, _| fleet.kill_service())?;
    seen(fleet, end, 0)
}

fn both(site: &Site) -> Result<Seen> {
    let mut kills = 0;
    let (fleet, end) = play(site, 10, 700, |fleet, member| {
        kills += 1;
        fleet.stage.service.kill()?;
        fleet.kill(member)?;
        poll::pause(Duration::from_millis(100));
        fleet.serve()?;
        fleet.start_again(member)
    })?;
    seen(fleet, end, kills * SLOTS)
}
