//! Faults of the link between the endpoint and the broker. None makes a task
//! run twice.

use super::stage::{Setup, Site, Stage};
use super::{BOTH, Play, Row, Seen};
use crate::poll;
use crate::proxy::{Carry, Way};
use crate::world::SOON;
use anyhow::{Result, ensure};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "stall-then-reset",
        "the link stalls for 3 s in both directions, then both sides get a reset",
        Play::Beside(stall_then_reset),
    )
    .within(10),
    Row::new(
        "cut-every-200-ms",
        "for a minute every connection of the endpoint is reset every 200 ms",
        Play::Beside(cut_every_200_ms),
    )
    .within(60)
    .on(BOTH),
    Row::new(
        "half-open",
        "the endpoint's side of the link is gone, the broker still sees it and its consumer",
        Play::Beside(half_open),
    )
    .within(45)
    .since("the fault")
    .on(BOTH),
    Row::new(
        "silence",
        "nothing comes through for 20 s, five heartbeats, then the link is as before",
        Play::Beside(silence),
    )
    .within(45),
    Row::new(
        "slow-link",
        "the link carries 64 KB/s for 15 s while tasks and results of 2 KB go through it",
        Play::Beside(slow_link),
    )
    .within(10),
    Row::new(
        "cut-inside-a-frame",
        "six connections are reset inside an AMQP frame, three in each direction",
        Play::Beside(cut_inside_a_frame),
    )
    .within(30),
    Row::new(
        "refuse-60-s",
        "the link is reset, and for 60 s nobody listens where the broker was",
        Play::Beside(refuse_60_s),
    )
    .within(60),
    Row::new(
        "damaged-body",
        "a bit is flipped in every tenth body that goes to the endpoint or comes from it, as noise \
         does that no checksum of TCP's notices; each task prints its number, and no other may be \
         recorded",
        Play::Beside(damaged_body),
    ),
];

fn stall_then_reset(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(8000, "")?;
    stage.until_recorded(1500)?;
    stage.proxy.carry(Carry::Stall)?;
    poll::pause(Duration::from_secs(3));
    ensure!(stage.proxy.cut() == 2, "there were not two connections to reset");
    stage.proxy.carry(Carry::Pass)?;
    mended(&mut stage, Instant::now())
}

/// The observations after a fault that the endpoint notices and that ends at `end`.
fn mended(stage: &mut Stage, end: Instant) -> Result<Seen> {
    stage.until_disengaged()?;
    let recovery = stage.back(end)?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn cut_every_200_ms(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    // More than a minute's work, whatever comes through meanwhile.
    stage.submit(9000, "sleep 0.03")?;
    stage.until_recorded(100)?;
    let started = Instant::now();
    let mut cut = 0;
    while started.elapsed() < Duration::from_secs(60) {
        cut += stage.proxy.cut();
        poll::pause(Duration::from_millis(200));
    }
    ensure!(cut >= 6, "only {cut} connections were cut");
    let end = Instant::now();
    let seen = mended(&mut stage, end)?;
    Ok(seen.note(format!("{cut} connections cut")))
}

fn half_open(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(4000, "")?;
    stage.until_recorded(500)?;
    let fault = Instant::now();
    ensure!(stage.proxy.lose_clients() == 2, "there were not two connections to lose");
    stage.until_disengaged()?;
    // The old connection holds the lease until it is closed, by the service, which finds that
    // it does not answer, or by the broker, which misses its heartbeats.
    let locked = stage.daemon.wait_for("standing by", SOON)?;
    let told = locked["fault"].as_str().unwrap_or_default();
    ensure!(told.contains("RESOURCE_LOCKED"), "it was told {told}");
    stage.until_engaged()?;
    let recovery = fault.elapsed();
    stage.submit(500, "")?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn silence(site: &Site) -> Result<Seen> {
    let mut stage =
        site.stage_with(&Setup { provision: &["--heartbeat", "4s"], ..Setup::default() })?;
    stage.submit(6000, "")?;
    stage.until_recorded(500)?;
    stage.proxy.carry(Carry::Stall)?;
    poll::pause(Duration::from_secs(20));
    stage.proxy.carry(Carry::Pass)?;
    mended(&mut stage, Instant::now())
}

fn slow_link(site: &Site) -> Result<Seen> {
    const RATE: u32 = 64_000;
    let mut stage = site.stage()?;
    // Each task brings 2 KB and sends 2 KB back.
    let script = format!("x='{}'; echo \"$x\"", "x".repeat(2000));
    stage.submit(50, &script)?;
    stage.until_some_done(25)?;
    stage.proxy.carry(Carry::Slow(RATE))?;
    stage.submit(600, &script)?;
    let (begun, before) = (Instant::now(), stage.proxy.bytes());
    poll::pause(Duration::from_secs(15));
    let rate = (stage.proxy.bytes() - before) as f64 / begun.elapsed().as_secs_f64();
    ensure!((32_000.0..72_000.0).contains(&rate), "it carried {rate:.0} bytes a second");
    stage.proxy.carry(Carry::Pass)?;
    let recovery = stage.recovery(Instant::now())?;
    let lost = stage.said("disengaged")?;
    let seen = stage.seen()?.recovered_in(recovery);
    Ok(seen.must(lost == 0, || format!("a slow link was taken for a lost one, {lost} times")))
}

impl Stage {
    /// Waits for so many outcomes, which may be all: more tasks follow the fault.
    fn until_some_done(&self, count: u64) -> Result<()> {
        poll::until("the first outcomes", SOON, || {
            Ok((self.progress()?.done >= count).then_some(()))
        })
    }
}

fn cut_inside_a_frame(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(6000, "")?;
    stage.until_recorded(200)?;
    for number in 1..=6 {
        stage.proxy.tear(if number % 2 == 0 { Way::Back } else { Way::There });
        poll::until("a frame to be torn", SOON, || {
            Ok((stage.proxy.torn() == number).then_some(()))
        })?;
        if number < 6 {
            stage.until_disengaged()?;
            stage.until_engaged()?;
        }
    }
    mended(&mut stage, Instant::now())
}

fn damaged_body(site: &Site) -> Result<Seen> {
    const TASKS: usize = 3000;
    const ONE_OF: usize = 10;
    let mut stage = site.stage()?;
    stage.proxy.damage(NonZeroUsize::new(ONE_OF));
    stage.submit(TASKS, "echo $1")?;
    let damaged = |way| stage.proxy.bodies(way) / ONE_OF;
    poll::until("bodies to be damaged on both ways", SOON, || {
        Ok((damaged(Way::There) >= 5 && damaged(Way::Back) >= 2).then_some(()))
    })?;
    let (there, back) = (damaged(Way::There), damaged(Way::Back));
    stage.proxy.damage(None);
    let recovery = stage.recovery(Instant::now())?;
    let seen = stage.seen_beside(&[], there)?.recovered_in(recovery);
    let printed = ["results", "--key", &stage.key(0), "--stdout-only"];
    let printed = stage.world.service_within(&printed, 4 * SOON)?.ok()?.text();
    let right = (1..=TASKS).map(|number| format!("{number}\n")).eq(printed.split_inclusive('\n'));
    let seen = seen.must(right, || "a task has a value that is not its own".to_owned());
    Ok(seen.note(format!("{there} bodies damaged there, {back} back")))
}

fn refuse_60_s(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(6000, "")?;
    stage.until_recorded(500)?;
    stage.proxy.carry(Carry::Refuse)?;
    ensure!(stage.proxy.cut() == 2, "there were not two connections to reset");
    poll::pause(Duration::from_secs(60));
    stage.proxy.carry(Carry::Pass)?;
    mended(&mut stage, Instant::now())
}
