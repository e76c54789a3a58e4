//! The files again, while the endpoint is killed and the broker restarted.

use super::files::{Compared, Files, compare};
use crate::broker::{Options, Private};
use crate::oracle::{Runs, Verdict};
use crate::poll;
use crate::world::{Endpoint, SOON, World};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// The faults, and when each begins.
#[derive(Clone, Debug)]
pub struct Faults {
    /// How many files.
    pub files: usize,
    /// After how many started tasks, in percent, the endpoint is ended by
    /// `kill -9` and started again.
    pub kills: Vec<usize>,
    /// After how many started tasks, in percent, the broker is restarted.
    pub restarts: Vec<usize>,
    /// How many tasks run at once.
    pub slots: usize,
}

impl Faults {
    /// Three kills and two restarts, spread over the run.
    #[must_use]
    pub fn over(files: usize) -> Self {
        Self { files, kills: vec![15, 45, 75], restarts: vec![30, 60], slots: 2 }
    }
}

/// The outcome.
#[derive(Clone, Debug)]
pub struct Survived {
    /// Lost, repeated and unknown tasks.
    pub verdict: Verdict,
    /// How the outputs compare with those computed directly.
    pub compared: Compared,
    /// How many processes of tasks there were at the moments of the kills, all
    /// kills together.
    pub running_at_kills: usize,
    /// How many slots there were at the kills, all kills together. A slot may
    /// hold a task with an ended process and a result that is not on
    /// disk yet; such a task runs again, too.
    pub slots_at_kills: usize,
    /// The list of files.
    pub files: Files,
}

impl Survived {
    /// Whether nothing was lost, everything is right, and no more ran again
    /// than there were slots when the endpoint was killed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verdict.lost.is_empty()
            && self.verdict.unknown.is_empty()
            && self.verdict.submitted == self.files.count
            && self.compared.perfect()
            && self.verdict.ran_again.len() <= self.slots_at_kills
    }
}

enum Fault {
    Kill,
    Restart,
}

/// Submits everything, and lets the faults happen while it runs.
pub fn faults(binaries: &Path, plan: &Faults) -> Result<Survived> {
    let mut broker = Private::start(&Options::default())?;
    let world = World::at(broker.address(), binaries)?;
    let files = Files::find(&["/usr/share/doc", "/usr/include"], plan.files, world.folder())?;
    let runs = Runs::at(&world.folder().join("runs"));
    let endpoint = world.provision("crash")?;
    let _service = world.serve()?;
    let slots = plan.slots.to_string();
    let mut daemon = Some(world.run_with(&endpoint, &["--slots", &slots])?);
    let started = Instant::now();
    let key = submit(&world, &endpoint, &runs, &files)?;

    let mut running_at_kills = 0;
    for (percent, fault) in schedule(plan) {
        let until = files.count * percent / 100;
        poll::until(&format!("{until} started tasks"), Duration::from_secs(300), || {
            Ok((runs.read()?.len() >= until).then_some(()))
        })?;
        match fault {
            Fault::Kill => {
                let mut killed = daemon.take().context("the endpoint runs")?;
                // Stopped first: what is counted is what the kill finds.
                killed.signal("STOP")?;
                poll::until("the endpoint to stop", SOON, || Ok(stopped(killed.pid())))?;
                running_at_kills += children(killed.pid());
                killed.kill()?;
                daemon = Some(world.run_with(&endpoint, &["--slots", &slots])?);
            }
            Fault::Restart => broker.restart()?,
        }
    }
    let wait = ["wait", "--key", key, "--timeout", "10m"];
    world.service_within(&wait, Duration::from_secs(900))?.ok().context("waiting")?;
    let elapsed = started.elapsed();
    let submitted = World::ids(&world.results(key)?);
    let recorded = recorded(&world, key)?;
    Ok(Survived {
        verdict: Verdict::new(&submitted, &recorded, &runs.read()?),
        compared: compare(&world, key, &files, elapsed)?,
        running_at_kills,
        slots_at_kills: plan.slots * plan.kills.len(),
        files,
    })
}

fn submit(world: &World, endpoint: &Endpoint, runs: &Runs, files: &Files) -> Result<&'static str> {
    let key = "crash";
    let list = files.list.display().to_string();
    let argv = runs.command("exec sha256sum \"$1\"", &["{}"]);
    let mut arguments = vec!["submit", &endpoint.name, "--confirmed", "--key", key];
    arguments.extend(["--each-line", &list, "--"]);
    arguments.extend(argv.iter().map(String::as_str));
    world.service_within(&arguments, 4 * SOON)?.ok().context("submitting")?;
    Ok(key)
}

fn recorded(world: &World, key: &str) -> Result<std::collections::BTreeSet<String>> {
    let results = world.results(key)?;
    Ok(World::ids(results.iter().filter(|task| task["result"]["outcome"] == "succeeded")))
}

fn schedule(plan: &Faults) -> Vec<(usize, Fault)> {
    let kills = plan.kills.iter().map(|percent| (*percent, Fault::Kill));
    let restarts = plan.restarts.iter().map(|percent| (*percent, Fault::Restart));
    let mut schedule: Vec<_> = kills.chain(restarts).collect();
    schedule.sort_by_key(|(percent, _)| *percent);
    schedule
}

/// `Some` once a process is stopped.
fn stopped(pid: u32) -> Option<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().any(|line| line.starts_with("State:\tT")).then_some(())
}

/// How many children a process has, over all of its threads.
fn children(pid: u32) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .map(|children| children.split_whitespace().count())
        .sum()
}
