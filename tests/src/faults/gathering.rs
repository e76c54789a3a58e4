//! The endpoint is killed while results gather on its disk, and again while they
//! leave it: the results are in files of whole groups by then, not in the store.

use super::stage::{Setup, Site, Stage};
use super::{Play, Row, Seen};
use crate::gate::Gate;
use crate::poll;
use crate::proxy::Carry;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::time::Instant;

pub(super) const ROWS: &[Row] = &[Row::new(
    "endpoint-kill-gathering",
    "without a link, the results of 16,000 calls gather on disk; the endpoint is ended by kill -9 \
     when 10,000 wait, and again while they are delivered; tasks that note their runs are among \
     the last",
    Play::Beside(kill_gathering),
)
.may_run_again("those that held a slot at a kill")
.since("the last kill")];

/// So many results at least wait at the first kill.
const GATHERED: usize = 10_000;
/// So many files hold all of them but the first 4,000, at 30 of at most 40 in each.
const FILES: usize = 200;
const CALLS: usize = 16_000;
const PROCESSES: usize = 400;
/// Enough at once for a group that is worth a file.
const SLOTS: usize = 40;
/// Small enough to lie in the store as long as few wait, in bytes.
const VALUE: usize = 1100;
/// A group with fewer bytes of results stays in the store.
const GROUP: u64 = 32 * 1024;
/// How large a file of 2,048 attempts that were seen is, in bytes.
const SEEN: u64 = 2048 * 20;
/// All tasks are taken in before the first ends.
const SETTINGS: &str = "[inbox]\nmax_tasks = 20000\nmax_bytes = 67108864";

fn kill_gathering(site: &Site) -> Result<Seen> {
    let mut stage =
        site.stage_with(&Setup { settings: SETTINGS, slots: SLOTS, ..Setup::default() })?;
    let gate = Gate::new(stage.world.folder(), "all-are-here");
    stage.submit(SLOTS, &gate.line())?;
    stage.until_started(SLOTS)?;
    stage.submit_calls(CALLS, VALUE)?;
    stage.submit(PROCESSES, "")?;
    stage.until_taken_in()?;
    stage.proxy.carry(Carry::Refuse)?;
    ensure!(stage.proxy.cut() == 2, "there were not two connections to reset");
    stage.until_disengaged()?;
    gate.open()?;
    poll::until("results to gather in files", 2 * SOON, || {
        Ok((files_of_results(&stage)? >= FILES).then_some(()))
    })?;
    stage.daemon.kill()?;
    let (recorded, started) = (stage.progress()?.done, stage.runs.read()?.len());
    ensure!(recorded == 0, "{recorded} were recorded without a link");
    ensure!(started == SLOTS, "the kill came too late: all calls had ended");

    stage.daemon = stage.world.launch(&stage.endpoint, &["--slots", &SLOTS.to_string()])?;
    let found = stage.daemon.wait_for("starting", SOON).context("starting without a link")?;
    let results = found["results"].as_u64().unwrap_or_default();
    ensure!(results >= GATHERED as u64, "only {results} results had gathered");
    let all = results + found["tasks"].as_u64().unwrap_or_default();
    ensure!(all == (SLOTS + CALLS + PROCESSES) as u64, "{all} tasks were taken in, not all");
    stage.until_started(SLOTS + PROCESSES / 2)?;
    stage.proxy.carry(Carry::Pass)?;
    stage.until_recorded(CALLS as u64 / 8)?;
    let at = Instant::now();
    stage.daemon.kill()?;
    stage.restart()?;
    let recovery = stage.recovery(at)?;
    let seen = stage.seen()?.allowing(2 * SLOTS).recovered_in(recovery);
    stage.daemon.stop(SOON)?;
    Ok(seen.note(format!("{results} results had gathered at the first kill")))
}

/// How many files of the spool hold a group of results.
fn files_of_results(stage: &Stage) -> Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(stage.state().join("spool"))? {
        // One that goes meanwhile was not of results: none leaves.
        let Ok(size) = entry?.metadata().map(|data| data.len()) else { continue };
        files += usize::from(size >= GROUP && size != SEEN);
    }
    Ok(files)
}
