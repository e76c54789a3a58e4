//! Faults of the host under the daemons: disk, memory or descriptors run out for a while,
//! or an operator removes files of the daemons. No task fails of that, and nothing is
//! acknowledged that is not on disk.

use super::stage::{Setup, Site, said};
use super::{Need, Play, Row, Seen};
use crate::pids::Pids;
use crate::poll;
use crate::tmpfs::Tmpfs;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};

/// The endpoint's words about a removed folder, and the service's about a removed socket.
const SANDBOXES: &str = "the folder for sandboxes was removed, and is made again";
const SOCKET: &str = "the API's socket was removed, and is open again";
/// The endpoint's words when it has no room to go on, and when it has none to start.
const FULL: &str = "the disk of the state folder is nearly full: free some space there. No task \
                    is accepted and no result stored until then; nothing is lost";
const NOT_YET: &str = "the endpoint waits for its host before it starts";
/// Its words about slots, and about tasks that wait for a process.
const FEWER: &str = "there are too few descriptors for all slots: fewer tasks run at once. Raise \
                     the limit (ulimit -n, or LimitNOFILE of the service)";
const LACKS: &str = "the host lacks what a task needs to start: tasks wait until it has it, and none \
                     fails of it";
const HAS: &str = "the host has what tasks need to start again: going on";
/// How large the endpoint's disk is, in KiB, and how many files it can have.
const DISK_KILOBYTES: u32 = 128 * 1024;
const DISK_FILES: u32 = 2000;

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "own-folders-removed",
        "while tasks run, somebody removes the folder for sandboxes and the service's socket; both \
         are made again, and no task fails",
        Play::Beside(own_folders),
    )
    .since("the removal"),
    Row::new(
        "few-descriptors",
        "an endpoint with 40 slots may have 64 descriptors; fewer tasks run at once, which is \
         told, and none fails",
        Play::Beside(descriptors),
    )
    .since("the submission"),
    Row::new(
        "no-process-left",
        "the endpoint and its tasks may have no further process or thread for 5 s; tasks wait, \
         which is told once, and none fails",
        Play::Beside(no_process),
    )
    .needs(&[Need::Pids]),
    Row::new(
        "no-inodes",
        "the disk of the endpoint's state folder has no inode left, though bytes, while tasks run; \
         the endpoint waits, is killed, waits at its next start as well, and goes on when there \
         are some",
        Play::Beside(no_inodes),
    )
    .may_run_again("those that held a slot at the kill")
    .needs(&[Need::Mount]),
    Row::new(
        "endpoint-state-moved",
        "the endpoint's state folder is moved away while tasks run; the endpoint ends, the folder \
         is moved back, the endpoint started again",
        Play::Beside(state_moved),
    )
    .may_run_again("those that held a slot when it ended")
    .since("the next start"),
    Row::new(
        "service-state-deleted",
        "the service's state folder is deleted while results arrive; the service ends, having \
         written anew what it had recorded, and is started again",
        Play::Beside(state_deleted),
    )
    .since("the next start"),
];

fn own_folders(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(4000, "")?;
    stage.until_recorded(200)?;
    let socket = stage.world.folder().join("service/clutch.sock");
    fs::remove_file(&socket).context("the socket is not there")?;
    // What is being made below it meanwhile may keep it there.
    poll::until("the folder for sandboxes to go", SOON, || {
        let gone = fs::remove_dir_all(stage.state().join("sandbox"));
        Ok((gone.is_ok() || said(&stage.daemon, SANDBOXES)? > 0).then_some(()))
    })?;
    let removed = Instant::now();
    stage.service.wait_for(SOCKET, SOON)?;
    let recovery = stage.recovery(removed)?;
    let seen = stage.seen()?.recovered_in(recovery);
    stage.daemon.wait_for(SANDBOXES, SOON).context("the fault did not hit")?;
    Ok(seen)
}

fn descriptors(site: &Site) -> Result<Seen> {
    const START: &str = "ulimit -n 64; exec \"$@\"";
    let wrapper = ["sh", "-c", START, "sh"];
    let mut stage = site.stage_with(&Setup { wrapper: &wrapper, slots: 40, ..Setup::default() })?;
    let told = stage.said(FEWER)?;
    let begun = Instant::now();
    stage.submit(400, "sleep 0.05")?;
    let seen = stage.seen()?.recovered_in(begun.elapsed());
    stage.daemon.stop(SOON)?;
    Ok(seen.must(told == 1, || format!("it said {told} times that fewer run")))
}

fn no_process(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    let group = Pids::make()?;
    group.put(stage.daemon.pid())?;
    // A shell that starts nothing: what a task cannot start is the task's own affair.
    stage.submit(2000, "")?;
    stage.until_recorded(200)?;
    group.close()?;
    stage.daemon.wait_for(LACKS, SOON).context("the fault did not hit")?;
    poll::pause(Duration::from_secs(5));
    group.open()?;
    let opened = Instant::now();
    let recovery = stage.recovery(opened)?;
    stage.daemon.wait_for(HAS, SOON)?;
    let told = stage.said(LACKS)?;
    let seen = stage.seen()?.recovered_in(recovery);
    stage.daemon.stop(SOON)?;
    Ok(seen.must(told == 1, || format!("it said {told} times that tasks wait")))
}

fn no_inodes(site: &Site) -> Result<Seen> {
    let mounted = site.folder.join("disk");
    fs::create_dir(&mounted)?;
    let disk = Tmpfs::of_files(&mounted, DISK_KILOBYTES, DISK_FILES)?;
    let settings = format!("[state]\npath = \"{}\"", mounted.join("state").display());
    let mut stage = site.stage_with(&Setup { settings: &settings, ..Setup::default() })?;
    stage.submit(4000, "")?;
    stage.until_recorded(500)?;
    disk.take_files()?;
    poll::until("the endpoint to tell that it has no room", SOON, || {
        // What it removes makes room.
        disk.take_files()?;
        stage.daemon.next(FULL)
    })
    .context("the fault did not hit")?;
    stage.daemon.kill()?;
    disk.take_files()?;
    let slots = stage.slots.to_string();
    stage.daemon = stage.world.launch(&stage.endpoint, &["--slots", &slots])?;
    stage.daemon.wait_for(NOT_YET, SOON)?;
    poll::pause(Duration::from_secs(3));
    let before = stage.runs.read()?.len();
    disk.free_files()?;
    let freed = Instant::now();
    stage.until_link()?;
    let recovery = stage.recovery(freed)?;
    let told = stage.said(NOT_YET)?;
    let seen = stage.seen()?.allowing(stage.slots).recovered_in(recovery);
    stage.daemon.stop(SOON)?;
    let seen = seen.note(format!("{before} starts before there was room"));
    Ok(seen.must(told == 1, || format!("it said {told} times that it waits")))
}

fn state_moved(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(4000, "")?;
    stage.until_recorded(500)?;
    let (state, away) = (stage.state(), stage.state().with_extension("away"));
    fs::rename(&state, &away)?;
    let code = stage.daemon.wait(SOON).context("the fault did not hit")?;
    let log = stage.daemon.log()?;
    if state.exists() {
        fs::remove_dir_all(&state)?;
    }
    fs::rename(&away, &state)?;
    let again = Instant::now();
    stage.restart()?;
    let recovery = stage.recovery(again)?;
    let seen = stage.seen()?.allowing(stage.slots).recovered_in(recovery);
    stage.daemon.stop(SOON)?;
    let told = log.contains("was moved, deleted or replaced while the endpoint ran");
    let seen = seen.must(told, || "it did not say what was wrong".to_owned());
    Ok(seen.must(code == 70, || format!("it ended with {code}, not 70")))
}

fn state_deleted(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(4000, "")?;
    stage.until_recorded(500)?;
    let folder = stage.database();
    let folder = folder.parent().context("the database is in no folder")?;
    fs::remove_dir_all(folder)?;
    let code = stage.service.wait(SOON).context("the fault did not hit")?;
    let log = stage.service.log()?;
    ensure!(folder.join("clutch.db").exists(), "it wrote nothing anew:\n{log}");
    let again = Instant::now();
    stage.service = stage.world.serve()?;
    let recovery = stage.recovery(again)?;
    let seen = stage.seen()?.recovered_in(recovery);
    let told = log.contains("all that was recorded is there again");
    let seen = seen.must(told, || "it did not say what it did".to_owned());
    Ok(seen.must(code == 70, || format!("it ended with {code}, not 70")))
}
