//! Faults of the endpoint's state folder: its disk is full, read-only, or gives
//! back something else than was written.

use super::stage::{Setup, Site, Stage};
use super::{Need, Play, Row, Seen};
use crate::gate::Gate;
use crate::image::Image;
use crate::poll;
use crate::proxy::Carry;
use crate::tmpfs::Tmpfs;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The endpoint's words when its disk is nearly full, and when it is not any
/// more.
const FULL: &str = "the disk of the state folder is nearly full: free some space there. No task \
                    is accepted and no result stored until then; nothing is lost";
const ROOM: &str = "there is room on the disk again: going on";
/// The endpoint keeps 64 MiB free: it takes more than that to run.
const DISK_KILOBYTES: u32 = 128 * 1024;
/// Larger than what fits a record, so that it goes to a spool file.
const LARGE: usize = 4000;

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "endpoint-disk-full",
        "the disk of the endpoint's state folder is filled to the last byte while tasks run, and \
         freed after 5 s; the endpoint must say both once",
        Play::Beside(disk_full),
    )
    .within(10)
    .needs(&[Need::Mount]),
    Row::new(
        "state-folder-read-only",
        "the file system of the state folder goes read-only after an error, as ext4 does; the \
         endpoint ends with words, the file system is checked, the endpoint started again",
        Play::Beside(read_only),
    )
    .may_run_again("those that held a slot when the disk failed")
    .since("the next start")
    .needs(&[Need::LoopDevice]),
    Row::new(
        "corrupt-record",
        "after kill -9, one byte of a task waiting on disk is another; that task ends as rejected, \
         with words",
        Play::Beside(corrupt_record),
    )
    .may_run_again("those that held a slot at the kill")
    .since("the next start"),
    Row::new(
        "spool-file-missing",
        "after kill -9, a file that holds tasks and results is gone; they end as rejected or \
         interrupted, with words",
        Play::Beside(spool_file_missing),
    )
    .may_run_again("those that held a slot at the kill")
    .since("the next start"),
    Row::new(
        "torn-last-write",
        "after kill -9, there are half-written files, and half a record behind the last one, as a \
         power cut leaves them",
        Play::Beside(torn_last_write),
    )
    .may_run_again("those that held a slot at the kill")
    .since("the next start"),
];

fn disk_full(site: &Site) -> Result<Seen> {
    let mounted = site.folder.join("disk");
    fs::create_dir(&mounted)?;
    let disk = Tmpfs::over(&mounted, DISK_KILOBYTES)?;
    let mut stage = site.stage_with(&on(&mounted).setup())?;
    stage.submit(4000, "")?;
    stage.until_recorded(500)?;
    disk.fill()?;
    stage.daemon.wait_for(FULL, SOON).context("the fault did not hit")?;
    // What the endpoint removes makes room: it is taken again.
    for _ in 0..10 {
        poll::pause(Duration::from_millis(500));
        disk.fill()?;
    }
    disk.free()?;
    let recovery = stage.recovery(Instant::now())?;
    stage.daemon.wait_for(ROOM, SOON)?;
    let said = stage.said(FULL)?;
    let seen = stage.seen()?.recovered_in(recovery);
    stage.daemon.stop(SOON)?;
    Ok(seen.must(said == 1, || format!("it said {said} times that the disk is full")))
}

/// Settings that put the state folder somewhere else.
struct On(String);

fn on(folder: &Path) -> On {
    On(format!("[state]\npath = \"{}\"", folder.join("state").display()))
}

impl On {
    fn setup(&self) -> Setup<'_> {
        Setup { settings: &self.0, ..Setup::default() }
    }
}

fn read_only(site: &Site) -> Result<Seen> {
    let mounted = site.folder.join("disk");
    fs::create_dir(&mounted)?;
    let mut image = Image::over(&mounted, &site.folder.join("image"), 256)?;
    let mut stage = site.stage_with(&on(&mounted).setup())?;
    stage.submit(4000, "")?;
    stage.until_recorded(500)?;
    image.fail()?;
    let code = stage.daemon.wait(SOON).context("the fault did not hit")?;
    let log = stage.daemon.log()?;
    image.mend()?;
    let again = Instant::now();
    stage.restart()?;
    let recovery = stage.recovery(again)?;
    let seen = stage.seen()?.allowing(stage.slots).recovered_in(recovery);
    stage.daemon.stop(SOON)?;
    let told = log.contains("the disk queue cannot go on");
    let seen = seen.must(told, || "it did not say what was wrong".to_owned());
    Ok(seen.must(code == 70, || format!("it ended with {code}, not 70")))
}

/// How many tasks wait on disk in the rows below.
const WAITING: usize = 400;

/// A stage on which tasks wait behind a gate, accepted and in spool files.
fn waiting(site: &Site) -> Result<(Stage, Gate)> {
    let mut stage = site.stage()?;
    let gate = Gate::new(stage.world.folder(), "waiting");
    let input = stage.world.folder().join("input");
    fs::write(&input, "x".repeat(LARGE))?;
    let script = format!("cat; {}; sleep 0.05", gate.line());
    stage.submit_with(WAITING, &script, &["--stdin", &input.display().to_string()])?;
    poll::until("all tasks to be on disk", SOON, || {
        let sizes = spool_files(&stage).unwrap_or_default().into_iter();
        let bytes: u64 = sizes.filter_map(|path| Some(path.metadata().ok()?.len())).sum();
        Ok((bytes >= (WAITING * LARGE) as u64).then_some(()))
    })?;
    // A file is there before the commit that refers to it is.
    poll::pause(Duration::from_secs(1));
    stage.until_started(stage.slots)?;
    Ok((stage, gate))
}

/// The spool files of a stage's endpoint, in the order they were written.
fn spool_files(stage: &Stage) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(stage.state().join("spool"))?.flatten();
    let whole = |path: &PathBuf| path.extension().is_none();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(whole).collect();
    files.sort();
    ensure!(!files.is_empty(), "nothing is in spool files: the fault cannot hit");
    Ok(files)
}

/// Starts a killed endpoint again, lets its tasks go on, and sees what comes.
/// So many may have ended as rejected and as interrupted, and one at least of
/// each that may.
fn started_again(mut stage: Stage, gate: &Gate, rejected: usize, cut: usize) -> Result<Seen> {
    let again = Instant::now();
    stage.restart()?;
    gate.open()?;
    let recovery = stage.recovery(again)?;
    let seen = stage.seen_with(&[("rejected", rejected), ("interrupted", cut)])?;
    let mut seen = seen.allowing(stage.slots).recovered_in(recovery);
    for (outcome, most) in [("rejected", rejected), ("interrupted", cut)] {
        let reasons = stage.reasons(outcome)?;
        ensure!(most == 0 || !reasons.is_empty(), "the fault did not hit: none was {outcome}");
        let told = reasons.iter().all(|reason| reason.contains("damaged on the endpoint's disk"));
        seen = seen.must(told, || format!("{outcome} for other reasons: {reasons:?}"));
    }
    Ok(seen)
}

fn corrupt_record(site: &Site) -> Result<Seen> {
    let (mut stage, gate) = waiting(site)?;
    stage.daemon.kill()?;
    let files = spool_files(&stage)?;
    let file = File::options().read(true).write(true).open(&files[files.len() - 1])?;
    let at = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x55], at)?;
    started_again(stage, &gate, 1, 0)
}

fn spool_file_missing(site: &Site) -> Result<Seen> {
    let (mut stage, gate) = waiting(site)?;
    let tasks = spool_files(&stage)?;
    // Without a link, results stay on disk as well.
    stage.proxy.carry(Carry::Refuse)?;
    ensure!(stage.proxy.cut() == 2, "there were not two connections to reset");
    stage.until_disengaged()?;
    gate.open()?;
    stage.until_started(WAITING / 2)?;
    stage.daemon.kill()?;
    let all = spool_files(&stage)?;
    let results: Vec<&PathBuf> = all.iter().filter(|path| !tasks.contains(path)).collect();
    // The last file of results may have been written for a commit that never came.
    for file in [tasks.last(), results.get(results.len() / 2).copied()] {
        fs::remove_file(file.context("there are no results in files")?)?;
    }
    stage.proxy.carry(Carry::Pass)?;
    started_again(stage, &gate, WAITING, WAITING)
}

fn torn_last_write(site: &Site) -> Result<Seen> {
    let (mut stage, gate) = waiting(site)?;
    stage.daemon.kill()?;
    let files = spool_files(&stage)?;
    let (last, spool) = (&files[files.len() - 1], stage.state().join("spool"));
    let bytes = fs::read(last)?;
    let name = last.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let number = u64::from_str_radix(&name, 16).context("the name of a spool file")?;
    // A file that no commit refers to yet, and one that was being written.
    fs::write(spool.join(format!("{:016x}", number + 1)), &bytes)?;
    fs::write(spool.join(format!("{:016x}.tmp", number + 2)), &bytes[..bytes.len() / 2])?;
    // The beginning of a record behind the last one.
    let store = File::options().append(true).open(stage.state().join("queue/db"))?;
    let end = fs::read(stage.state().join("queue/db"))?;
    (&store).write_all(&end[..end.len().min(700)])?;
    started_again(stage, &gate, 0, 0)
}
