//! One instance goes, another takes its place. No task is drained by both, and
//! what only a lost disk knew is submitted again.

use super::stage::{Setup, Site, Stage};
use super::{BOTH, Play, Row, Seen};
use crate::poll;
use crate::process::Daemon;
use crate::proxy::Carry;
use crate::world::{Endpoint, SOON};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long after its start an instance can be taken over at once: until the
/// management API knows of its connection.
const KNOWN: Duration = Duration::from_secs(8);
const SLOTS: usize = 4;
const HEARTBEAT: &str = "4s";

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "standby-after-kill",
        "the active instance is ended by kill -9; a standby takes over, and the first comes back \
         as a standby and delivers what it had accepted",
        Play::Beside(killed),
    )
    .may_run_again("those that held a slot at the kill")
    .within(5)
    .since("the kill to the takeover")
    .on(BOTH),
    Row::new(
        "standby-after-stop",
        "the active instance is stopped in order; a standby takes over, and the first comes back \
         as a standby and delivers what it had accepted",
        Play::Beside(stopped),
    )
    .within(5)
    .since("the end of the first to the takeover")
    .on(BOTH),
    Row::new(
        "standby-network-gone",
        "the network of the active instance is gone, and the broker still sees it; the service \
         closes its connection by the management API, a standby takes over, the first finds \
         itself replaced when its network is back",
        Play::Beside(|site| network_gone(site, true)),
    )
    .within(5)
    .since("the fault to the takeover")
    .on(BOTH),
    Row::new(
        "standby-network-gone-alone",
        "the same where no management API is reachable; the broker notices after three heartbeats \
         of 4 s",
        Play::Beside(|site| network_gone(site, false)),
    )
    .within(14)
    .since("the fault to the takeover"),
    Row::new(
        "stop-cont",
        "the active instance is stopped by SIGSTOP for a minute, a standby takes over, SIGCONT \
         wakes the first; no task is run by both",
        Play::Beside(stop_cont),
    )
    .within(5)
    .since("SIGSTOP to the takeover")
    .on(BOTH),
    Row::new(
        "second-daemon-by-mistake",
        "a second daemon with a state folder of its own is started without --standby and waits \
         for the lease; the link of the first is cut for 5 s, the second takes the lease, the \
         first finishes and delivers what it had accepted",
        Play::Beside(by_mistake),
    )
    .since("the first one's link being back"),
    Row::new(
        "dead-disk",
        "the endpoint is ended by kill -9, its state folder is gone, it is started anew; what the \
         lost disk knew is submitted again, and tasks that must not run again end as interrupted",
        Play::Beside(dead_disk),
    )
    .may_run_again("those that had started and whose outcome was not recorded")
    .since("the next start"),
    Row::new(
        "endpoint-declared-lost",
        "the endpoint is ended by kill -9 and its state folder is gone; a person declares it lost, \
         and an instance that stands by for others is started: what the lost disk knew is submitted \
         again at once, and tasks that must not run again end as interrupted",
        Play::Beside(declared_lost),
    )
    .may_run_again("those that had started and whose outcome was not recorded")
    .since("the next start"),
];

/// Two instances: the stage's own daemon, behind the proxy, and another beside
/// it that waits.
struct Pair {
    stage: Stage,
    second: Daemon,
}

impl Site {
    /// A pair that works; the first one has the lease.
    fn pair(&self, managed: bool) -> Result<Pair> {
        let management =
            if managed { self.address.management.as_str() } else { "http://127.0.0.1:9" };
        let setup = Setup {
            provision: &["--heartbeat", HEARTBEAT],
            slots: SLOTS,
            service: &["--management", management],
            run: &["--standby"],
            ..Setup::default()
        };
        let mut stage = self.stage_with(&setup)?;
        let engaged = Instant::now();
        let other = stage.beside()?;
        let mut second = stage.world.launch(&other, &["--standby", "--slots", "4"])?;
        second.wait_for("standing by", SOON)?;
        stage.submit(6000, "sleep 0.02")?;
        stage.until_recorded(300)?;
        poll::pause(KNOWN.saturating_sub(engaged.elapsed()));
        ensure!(stage.progress()?.done < 5000, "nearly all was done before the fault");
        Ok(Pair { stage, second })
    }
}

impl Stage {
    /// The same endpoint with a way of its own to the broker, and a state
    /// folder of its own.
    fn beside(&self) -> Result<Endpoint> {
        let text = std::fs::read_to_string(&self.endpoint.config)?;
        let mut file: toml::Table = text.parse().context("reading the endpoint's file")?;
        let url = toml::Value::from(self.world.broker());
        let broker = file.get_mut("broker").and_then(toml::Value::as_table_mut);
        broker.context("the file names no broker")?.insert("url".to_owned(), url);
        let state = self.world.folder().join("second").display().to_string();
        let place = toml::Table::from_iter([("path".to_owned(), state.into())]);
        file.insert("state".to_owned(), place.into());
        let config = self.world.folder().join("second.toml");
        // The copy has the rights of the original, which no other user can read.
        std::fs::copy(&self.endpoint.config, &config)?;
        std::fs::write(&config, file.to_string())?;
        Ok(Endpoint { config, ..self.endpoint.clone() })
    }
}

impl Pair {
    /// Waits until the second one has the lease, and says how long that took.
    fn taken_over(&mut self, since: Instant) -> Result<Duration> {
        self.second.wait_for("engaged", SOON).context("nobody took over")?;
        Ok(since.elapsed())
    }

    /// Sees that the second one works, and lets the first one come back.
    fn first_comes_back(&mut self) -> Result<()> {
        self.stage.recovery(Instant::now()).context("the second one does not work")?;
        let slots = SLOTS.to_string();
        let options = ["--standby", "--slots", &slots];
        self.stage.daemon = self.stage.world.launch(&self.stage.endpoint, &options)?;
        self.stage.daemon.wait_for("standing by", SOON).map(drop)
    }
}

fn killed(site: &Site) -> Result<Seen> {
    let mut pair = site.pair(true)?;
    let at = Instant::now();
    pair.stage.daemon.kill()?;
    let recovery = pair.taken_over(at)?;
    pair.first_comes_back()?;
    Ok(pair.stage.seen()?.allowing(SLOTS).recovered_in(recovery))
}

fn stopped(site: &Site) -> Result<Seen> {
    let mut pair = site.pair(true)?;
    let code = pair.stage.daemon.stop(SOON)?;
    let recovery = pair.taken_over(Instant::now())?;
    pair.first_comes_back()?;
    let seen = pair.stage.seen()?.recovered_in(recovery);
    Ok(seen.must(code == 0, || format!("the first one ended with {code}")))
}

fn network_gone(site: &Site, managed: bool) -> Result<Seen> {
    let mut pair = site.pair(managed)?;
    let at = Instant::now();
    pair.stage.proxy.carry(Carry::Stall)?;
    let recovery = pair.taken_over(at)?;
    pair.stage.recovery(Instant::now()).context("the second one does not work")?;
    pair.stage.proxy.carry(Carry::Pass)?;
    pair.stage.daemon.wait_for("standing by", SOON).context("the first one was not told")?;
    Ok(pair.stage.seen()?.recovered_in(recovery))
}

fn stop_cont(site: &Site) -> Result<Seen> {
    let mut pair = site.pair(true)?;
    let at = Instant::now();
    pair.stage.daemon.signal("STOP")?;
    let recovery = pair.taken_over(at)?;
    poll::pause(Duration::from_secs(60).saturating_sub(at.elapsed()));
    pair.stage.submit(200, "")?;
    pair.stage.daemon.signal("CONT")?;
    pair.stage.daemon.wait_for("standing by", SOON).context("the first one was not told")?;
    Ok(pair.stage.seen()?.recovered_in(recovery))
}

fn by_mistake(site: &Site) -> Result<Seen> {
    const ONCE: usize = 100;
    let setup = Setup { provision: &["--heartbeat", HEARTBEAT], slots: SLOTS, ..Setup::default() };
    let mut stage = site.stage_with(&setup)?;
    stage.submit_with(ONCE, "sleep 0.1", &["--no-rerun"])?;
    stage.submit(400, "sleep 0.1")?;
    stage.until_recorded(20)?;
    let other = stage.beside()?;
    let mut second = stage.world.launch(&other, &["--slots", "4"])?;
    second.wait_for("disengaged", SOON).context("the second one was not refused the lease")?;
    stage.proxy.carry(Carry::Refuse)?;
    ensure!(stage.proxy.cut() > 0, "there was no link to cut");
    second.wait_for("engaged", SOON).context("the second one did not take the lease")?;
    stage.proxy.carry(Carry::Pass)?;
    let back = Instant::now();
    stage.daemon.wait_for("standing by", SOON).context("the first one was not told")?;
    let recovery = stage.recovery(back)?;
    let attempts = stage.later_attempts()?;
    let seen = stage.seen()?.recovered_in(recovery);
    drop(second);
    Ok(seen.must(attempts == 0, || format!("{attempts} tasks were submitted again")))
}

fn dead_disk(site: &Site) -> Result<Seen> {
    replaced(site, |stage| stage.restart())
}

fn declared_lost(site: &Site) -> Result<Seen> {
    replaced(site, |stage| {
        let name = stage.endpoint.name.clone();
        let lost = ["endpoint", "lost", &name, "--json"];
        let answer = poll::until("the broker to see that the endpoint is gone", SOON, || {
            Ok(stage.world.service(&lost)?.ok().ok())
        })?;
        let states = answer.json()?["states"].as_array().map_or(0, Vec::len);
        ensure!(states == 1, "the fault did not hit: {states} state folders were lost");
        let slots = stage.slots.to_string();
        let options = ["--standby", "--slots", &slots];
        stage.daemon = stage.world.launch(&stage.endpoint, &options)?;
        stage.daemon.wait_for("engaged", SOON).map(drop)
    })
}

/// The endpoint is killed, its state folder is gone, and `again` starts another instance.
fn replaced(site: &Site, again: impl FnOnce(&mut Stage) -> Result<()>) -> Result<Seen> {
    const ONCE: usize = 300;
    let mut stage = site.stage()?;
    stage.submit(2000, "sleep 0.02")?;
    // They are accepted, and wait behind the others.
    stage.submit_with(ONCE, "", &["--no-rerun"])?;
    stage.until_recorded(100)?;
    stage.daemon.kill()?;
    let started: BTreeSet<String> = stage.runs.read()?.into_keys().collect();
    std::fs::remove_dir_all(stage.state())?;
    let recorded = poll::until("what was on its way to be recorded", SOON, || {
        let before = stage.progress()?.done;
        poll::pause(Duration::from_secs(1));
        Ok((stage.progress()?.done == before).then_some(before))
    })?;
    let since = Instant::now();
    again(&mut stage)?;
    let recovery = stage.recovery(since)?;
    let seen = stage.seen_with(&[("interrupted", ONCE)])?;
    let unrecorded = started.len().saturating_sub(usize::try_from(recorded)?);
    let attempts = stage.later_attempts()?;
    ensure!(attempts > 0, "the fault did not hit: no task was submitted again");
    let seen = seen.note(format!("{attempts} submitted again"));
    Ok(seen.allowing(unrecorded).recovered_in(recovery))
}

impl Stage {
    /// How many tasks ended in a later attempt than the first.
    fn later_attempts(&self) -> Result<usize> {
        let results = self.world.results(&self.key(0))?;
        let later = |task: &&serde_json::Value| task["attempt"].as_u64() > Some(1);
        Ok(results.iter().filter(later).count())
    }
}
