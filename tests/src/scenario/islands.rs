//! Endpoints and a service that have nothing in common but a folder: each a
//! process in a network of its own that leads nowhere.

use super::files::{Compared, Files, compare};
use crate::world::World;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Puts a command into a network of its own.
const WRAPPER: [&str; 2] = ["unshare", "--net"];

/// The outcome.
#[derive(Clone, Debug)]
pub struct Islands {
    /// For each endpoint the files it was to sum, and what it did.
    pub jobs: Vec<(Files, Compared)>,
    /// How many networks the two endpoints, the service and this process are
    /// in.
    pub networks: usize,
}

impl Islands {
    /// Whether all outputs are right and no two daemons shared a network.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.networks == 4 && self.jobs.iter().all(|(_, compared)| compared.perfect())
    }
}

/// Whether this process may make networks.
#[must_use]
pub fn islands_permitted() -> bool {
    let tried = Command::new(WRAPPER[0]).args([WRAPPER[1], "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Sums up to `count` files at each of two endpoints.
pub fn islands(binaries: &Path, count: usize) -> Result<Islands> {
    let world = World::in_folder_at(binaries)?.wrapped_in(&WRAPPER);
    let mut parts = Vec::new();
    for (name, folder) in [("left", "/usr/share"), ("right", "/usr/lib")] {
        let into = world.folder().join(name);
        std::fs::create_dir(&into)?;
        let endpoint = world.provision(name)?;
        let daemon = world.run(&endpoint)?;
        parts.push((endpoint, daemon, Files::find(&[folder], count, &into)?));
    }
    let service = world.serve()?;
    let started = Instant::now();
    for (endpoint, _, files) in &parts {
        let list = files.list.display().to_string();
        let job = ["--each-line", &list, "--", "sha256sum", "{}"];
        let submit = ["submit", &endpoint.name, "--confirmed", "--key", &endpoint.name];
        world.service(&[&submit[..], &job].concat())?.ok().context("submitting")?;
    }
    let mut networks = BTreeSet::from([network(service.pid())?, network(std::process::id())?]);
    let mut jobs = Vec::new();
    for (endpoint, daemon, files) in parts {
        world.wait(&endpoint.name)?.ok().context("waiting")?;
        let compared = compare(&world, &endpoint.name, &files, started.elapsed())?;
        networks.insert(network(daemon.pid())?);
        jobs.push((files, compared));
    }
    ensure!(!jobs.is_empty(), "nothing was done");
    Ok(Islands { jobs, networks: networks.len() })
}

/// The network that a process is in.
fn network(pid: u32) -> Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).context("looking for a process's network")
}
