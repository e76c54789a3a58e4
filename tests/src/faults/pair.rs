//! Two where there may be one.

use super::stage::{Setup, Site, Stage, said};
use super::{BOTH, Play, Row, Seen};
use crate::process::run;
use crate::world::SOON;
use anyhow::{Result, ensure};
use std::time::Instant;

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "two-daemons-one-state",
        "a second daemon is started on the same state folder; it is told who holds it and ends \
         with 73",
        Play::Beside(one_state),
    )
    .since("the end of the second daemon"),
    Row::new(
        "two-endpoints-one-id",
        "a second daemon with the same id and a state folder of its own is started; it is told \
         that there is another, and ends with 77",
        Play::Beside(one_id),
    )
    .since("the end of the second daemon")
    .on(BOTH),
];

/// Runs a second daemon to its end while the first one works, and sees that it
/// ends with a code and says some words.
fn second(mut stage: Stage, options: &[&str], code: i32, words: &str) -> Result<Seen> {
    stage.submit(6000, "sleep 0.01")?;
    stage.until_recorded(200)?;
    let config = stage.endpoint.config.display().to_string();
    let line = [&["run", "--config", &config], options].concat();
    let second = run(stage.world.endpoint_command(&line), b"", SOON)?;
    ensure!(stage.progress()?.done < 6000, "the first one had nothing left to do");
    let recovery = stage.recovery(Instant::now())?;
    let lost = said(&stage.daemon, "disengaged")?;
    let (ended, told) = (second.code, second.stderr);
    let seen = stage.seen()?.recovered_in(recovery);
    let seen = seen.must(ended == code, || format!("the second one ended with {ended}"));
    let seen = seen.must(told.contains(words), || format!("the second one was told: {told}"));
    Ok(seen.must(lost == 0, || "the first one lost its link".to_owned()))
}

fn one_state(site: &Site) -> Result<Seen> {
    let stage = site.stage()?;
    let holder = format!("process {}", stage.daemon.pid());
    second(stage, &[], 73, &holder)
}

fn one_id(site: &Site) -> Result<Seen> {
    let setup = Setup { provision: &["--heartbeat", "2s"], ..Setup::default() };
    let stage = site.stage_with(&setup)?;
    let state = stage.world.folder().join("second").display().to_string();
    second(stage, &["--state", &state], 77, "only one instance of an endpoint is active")
}
