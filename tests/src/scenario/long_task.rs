//! A task that runs for longer than the broker waits for an acknowledgement.

use crate::broker::{Options, Private};
use crate::oracle::Runs;
use crate::world::{SOON, World};
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

/// The outcome.
#[derive(Clone, Debug)]
pub struct LongTask {
    /// The recorded outcomes; there should be one.
    pub outcomes: Vec<String>,
    /// How often the task started.
    pub starts: usize,
    /// How often the endpoint lost its link meanwhile.
    pub disengaged: usize,
}

impl LongTask {
    /// Whether it succeeded, once, and the link was never lost.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.outcomes == ["succeeded"] && self.starts == 1 && self.disengaged == 0
    }
}

/// Runs a task of 130 s at a broker with a `consumer_timeout` of 60 s: the
/// broker looks once a minute, so within 120 s it has noticed a consumer that
/// holds a delivery for too long.
pub fn long_task(binaries: &Path) -> Result<LongTask> {
    let settings = vec!["consumer_timeout = 60000".to_owned()];
    let broker = Private::start(&Options { settings, ..Options::default() })?;
    let world = World::at(broker.address(), binaries)?;
    let runs = Runs::at(&world.folder().join("runs"));
    let endpoint = world.provision("patient")?;
    let _service = world.serve()?;
    let daemon = world.run(&endpoint)?;
    let argv = runs.command("exec sleep 130", &[]);
    let mut arguments = vec!["--"];
    arguments.extend(argv.iter().map(String::as_str));
    world.submit(&endpoint, "long", &arguments, 2 * Duration::from_secs(130) + SOON)?;
    let outcome = |task: &serde_json::Value| task["state"].as_str().map(str::to_owned);
    Ok(LongTask {
        outcomes: world.results("long")?.iter().filter_map(outcome).collect(),
        starts: runs.read()?.values().sum(),
        disengaged: daemon.log()?.lines().filter(|line| line.contains("\"disengaged\"")).count(),
    })
}
