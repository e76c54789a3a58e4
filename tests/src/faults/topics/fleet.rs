//! Members of a topic, each behind a proxy of its own, and what may happen to one.

use super::super::stage::{Setup, Site, Stage};
use crate::poll;
use crate::process::Daemon;
use crate::proxy::{Carry, Proxy};
use crate::world::{Endpoint, SOON};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How many tasks a member runs at once.
pub(super) const SLOTS: usize = 4;
/// The topic.
const TOPIC: &str = "cloud";
/// How long each task runs, in seconds.
const RUNS: &str = "0.05";
/// All clocks are those of one host. A state is declared lost here, not waited for.
const SERVE: &[&str] = &["--clock-margin", "1s", "--ask-after", "3s"];
/// How long an attempt may take to start.
const WITHIN: &[&str] = &["--start-within", "2s"];
/// A daemon that is killed often takes no task for its killer.
const SETTINGS: &str = "[engine]\npoison_after = 100\n";

/// A member, and the proxy that its link goes through.
pub(super) struct Member {
    pub(super) daemon: Daemon,
    pub(super) proxy: Proxy,
    endpoint: Endpoint,
}

/// Members of a topic beside an endpoint that is in none.
pub(super) struct Fleet {
    pub(super) stage: Stage,
    pub(super) members: Vec<Member>,
    /// How many submissions were made.
    submissions: usize,
}

impl Fleet {
    pub(super) fn start(site: &Site, members: usize) -> Result<Self> {
        let stage = site.stage_with(&Setup { service: SERVE, slots: 1, ..Setup::default() })?;
        let members = (0..members).map(|number| Member::start(site, &stage, number));
        let members = members.collect::<Result<_>>()?;
        Ok(Self { stage, members, submissions: 0 })
    }

    /// Submits so many tasks to the topic.
    pub(super) fn submit(&mut self, tasks: usize) -> Result<()> {
        let script = format!("sleep {RUNS}");
        self.stage.submit_to(&["--topic", TOPIC], tasks, &script, WITHIN)?;
        self.submissions += 1;
        Ok(())
    }

    /// Waits for so many more outcomes.
    pub(super) fn until_more(&self, count: u64) -> Result<()> {
        let before = self.done()?;
        poll::until(&format!("{count} outcomes"), 2 * SOON, || {
            let Ok(progress) = self.stage.progress() else { return Ok(None) };
            let enough = progress.done >= before + count || progress.done == progress.total;
            Ok(enough.then_some(()))
        })
    }

    /// How many tasks have an outcome, once the service answers.
    pub(super) fn done(&self) -> Result<u64> {
        let progress =
            poll::until("the service to answer", SOON, || Ok(self.stage.progress().ok()))?;
        Ok(progress.done)
    }

    pub(super) fn all_done(&self) -> Result<bool> {
        let progress =
            poll::until("the service to answer", SOON, || Ok(self.stage.progress().ok()))?;
        Ok(progress.done == progress.total)
    }

    /// Ends a member by `kill -9`.
    pub(super) fn kill(&mut self, member: usize) -> Result<()> {
        self.members[member].daemon.kill()
    }

    /// Starts a member on what its last daemon left.
    pub(super) fn start_again(&mut self, member: usize) -> Result<()> {
        let daemon = run(&self.stage, &self.members[member].endpoint)?;
        self.members[member].daemon = daemon;
        Ok(())
    }

    /// Has a member be without a link for a while.
    pub(super) fn cut_for(&mut self, member: usize, time: Duration) -> Result<()> {
        let Member { proxy, daemon, .. } = &mut self.members[member];
        poll::until("the member to have a link", SOON, || Ok((proxy.open() > 0).then_some(())))?;
        proxy.carry(Carry::Refuse)?;
        ensure!(proxy.cut() > 0, "there was no connection to reset");
        poll::pause(time);
        proxy.carry(Carry::Pass)?;
        daemon.wait_for("disengaged", SOON).context("the fault did not hit the link")?;
        daemon.wait_for("engaged", SOON).map(drop)
    }

    /// Resets the connections of a member.
    pub(super) fn cut(&mut self, member: usize) -> Result<()> {
        self.members[member].proxy.cut();
        Ok(())
    }

    /// Has a member stand still for a while, and its tasks go on.
    pub(super) fn stop_for(&mut self, member: usize, time: Duration) -> Result<()> {
        let daemon = &mut self.members[member].daemon;
        daemon.signal("STOP")?;
        poll::pause(time);
        daemon.signal("CONT")
    }

    /// Ends a member, removes its state folder, declares that lost, and starts the member anew.
    /// Returns how many tasks had started, and were not recorded.
    pub(super) fn lose_disk(&mut self, member: usize) -> Result<usize> {
        self.kill(member)?;
        // What had its outcome before is certain, what others start meanwhile is not of this
        // member: it counts, as it cannot be told apart.
        let done = usize::try_from(self.done()?)?;
        let started = self.stage.runs.read()?.len();
        let name = self.members[member].endpoint.name.clone();
        let id = &self.members[member].endpoint.id;
        let state = self.stage.world.folder().join("state/clutch/endpoints").join(id);
        std::fs::remove_dir_all(&state).context("removing a member's state folder")?;
        // The broker may take a moment to see that it is gone.
        poll::until("the member to be declared lost", SOON, || {
            let declared = self.stage.world.service(&["endpoint", "lost", &name])?;
            Ok((declared.code == 0).then_some(()))
        })?;
        self.start_again(member)?;
        Ok(started.saturating_sub(done))
    }

    pub(super) fn serve(&mut self) -> Result<()> {
        self.stage.service = self.stage.world.launch_service(SERVE)?;
        self.stage.service.wait_for("serving", SOON).map(drop)
    }

    pub(super) fn kill_service(&mut self) -> Result<()> {
        self.stage.service.kill()?;
        self.serve()
    }

    /// How many tasks have a further attempt, of all that have an outcome.
    pub(super) fn placed_again(&self) -> Result<usize> {
        let results = self.results()?;
        Ok(results.iter().filter(|task| task["attempt"].as_u64() > Some(1)).count())
    }

    /// How many tasks each member ended, in words.
    pub(super) fn shares(&self) -> Result<String> {
        let at = Instant::now();
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        while !self.all_done()? && at.elapsed() < 4 * SOON {
            poll::pause(Duration::from_millis(200));
        }
        for task in self.results()? {
            let name = task["endpoint_name"].as_str().unwrap_or("none").to_owned();
            *shares.entry(name).or_default() += 1;
        }
        let words: Vec<String> =
            shares.iter().map(|(name, count)| format!("{count} {name}")).collect();
        Ok(words.join(", "))
    }

    fn results(&self) -> Result<Vec<serde_json::Value>> {
        let mut all = Vec::new();
        for number in 0..self.submissions {
            all.extend(self.stage.world.results(&self.stage.key(number))?);
        }
        Ok(all)
    }
}

impl Member {
    fn start(site: &Site, stage: &Stage, number: usize) -> Result<Self> {
        let proxy = Proxy::before(site.amqp)?;
        let behind = site.behind(&stage.world, &proxy)?;
        let mut options = vec!["--topic", TOPIC];
        if let Some(url) = &behind {
            options.extend(["--heartbeat", "2s", "--endpoint-broker", url]);
        }
        let endpoint = stage.world.provision_with(&format!("member-{number}"), &options)?;
        let file = std::fs::read_to_string(&endpoint.config)?;
        std::fs::write(&endpoint.config, format!("{file}\n{SETTINGS}"))?;
        let daemon = run(stage, &endpoint)?;
        Ok(Self { daemon, proxy, endpoint })
    }
}

fn run(stage: &Stage, endpoint: &Endpoint) -> Result<Daemon> {
    stage.world.run_with(endpoint, &["--slots", &SLOTS.to_string()])
}
