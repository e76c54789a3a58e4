//! The endpoint's memory, idle and over a long queue of middling tasks.

use crate::poll;
use crate::process::Daemon;
use crate::world::{SOON, World};
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// The measurements, in bytes.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// Resident memory of the daemon before the first task.
    pub idle: u64,
    /// Peak resident memory of the daemon while all tasks ran.
    pub peak: u64,
    /// Resident memory of a daemon on the same folder, when all is done.
    pub idle_again: u64,
    /// How many tasks succeeded.
    pub succeeded: usize,
    /// How long the tasks took.
    pub elapsed: Duration,
}

/// Queues `tasks` tasks with `size` bytes of input each, then starts the
/// endpoint.
pub fn backlog(world: &World, tasks: usize, size: usize) -> Result<Backlog> {
    let input = world.folder().join("input");
    std::fs::write(&input, "x".repeat(size))?;
    let endpoint = world.provision("backlog")?;
    let _service = world.serve()?;
    let mut daemon = world.run(&endpoint)?;
    let idle = settled(&daemon)?;
    daemon.stop(SOON)?;

    let (input, array) = (input.display().to_string(), format!("1-{tasks}"));
    let submit = ["submit", "backlog", "--confirmed", "--key", "k", "--stdin", &input, "--array"];
    let submit = [&submit[..], &[&array, "--"]].concat();
    // The number would be appended to the command line if it had no place.
    let count = ["sh", "-c", "wc -c", "{}"];
    let submit = [&submit[..], &count].concat();
    world.service_within(&submit, Duration::from_secs(300))?.ok().context("submitting")?;

    let started = Instant::now();
    let mut daemon = world.run(&endpoint)?;
    let wait = ["wait", "--key", "k", "--timeout", "14m"];
    world.service_within(&wait, Duration::from_secs(900))?.ok().context("waiting")?;
    let elapsed = started.elapsed();
    let peak = daemon.peak_memory()?;
    daemon.stop(SOON)?;
    let outputs = world
        .service_within(&["results", "--key", "k", "--stdout-only"], Duration::from_secs(300))?;
    let size = size.to_string();
    let succeeded = outputs.ok()?.text().lines().filter(|line| line.trim() == size).count();

    let mut daemon = world.run(&endpoint)?;
    let idle_again = settled(&daemon)?;
    daemon.stop(SOON)?;
    Ok(Backlog { idle, peak, idle_again, succeeded, elapsed })
}

/// Resident memory, some seconds after the start.
fn settled(daemon: &Daemon) -> Result<u64> {
    poll::pause(Duration::from_secs(3));
    daemon.memory()
}
