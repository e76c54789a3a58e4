//! Faults of a folder in the broker's place: files in it are damaged or gone, or it is
//! full. What was in them is asked for, and nothing is lost without a word.

use super::stage::{Setup, Site, Stage};
use super::{FOLDER, Need, Play, Row, Seen};
use crate::poll;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A consumer's words about a file that is damaged, and about some that are gone.
const DAMAGED: &str = "a file in the queue cannot be read: it is set aside and not delivered";
const MISSING: &str = "files that were in the queue are gone, with the messages in them: did \
                       something other than Clutch remove them?";
/// The words of both about a folder in the place of one that was deleted.
const ANEW: &str = "the folder was provisioned anew in the place of one that is gone, with all that \
                    was in it: going on in the new one. Tasks and results that were on their way \
                    are asked for";
/// A producer's words while it finds no room.
const FULL: &str = "the folder takes no more for now";
/// How large the folder's disk is, in KiB, where it is filled.
const DISK_KILOBYTES: u32 = 8 * 1024;
/// How soon a service asks for tasks that are without a result, where a row needs that.
const ASK_AFTER: &str = "5s";

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "folder-group-damaged",
        "in a shared folder, a file of tasks and then a file of results are overwritten with noise \
         while tasks run",
        Play::Beside(group_damaged),
    )
    .since("the consumer being awake")
    .on(FOLDER),
    Row::new(
        "folder-group-missing",
        "in a shared folder, the newest file of tasks is removed while earlier ones wait, with \
         others published after it; then the newest once more, and none is published",
        Play::Beside(group_missing),
    )
    .since("the consumer being awake")
    .on(FOLDER),
    Row::new(
        "folder-deleted",
        "a shared folder is deleted with all that is in it while tasks run, and provisioned again \
         after 3 s; both sides go on in the new one without a restart, and say so",
        Play::Beside(deleted),
    )
    .within(60)
    .since("the folder being back")
    .on(FOLDER),
    Row::new(
        "folder-full",
        "the disk of a shared folder is filled to the last byte while tasks run, and freed after 5 s",
        Play::Beside(full),
    )
    .within(10)
    .on(FOLDER)
    .needs(&[Need::Mount]),
];

/// The files that wait in a queue without a running consumer, oldest first, once there
/// are so many.
fn waiting(stage: &Stage, queue: &str, count: usize) -> Result<Vec<PathBuf>> {
    let ready = stage.world.spool().join("queues").join(queue).join("ready");
    let whole = |path: &PathBuf| {
        path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))
    };
    poll::until(&format!("{count} waiting files"), SOON, || {
        let mut files = Vec::new();
        for producer in fs::read_dir(&ready)?.flatten() {
            let names = fs::read_dir(producer.path()).into_iter().flatten().flatten();
            files.extend(names.map(|name| name.path()).filter(whole));
        }
        files.sort();
        Ok((files.len() >= count).then_some(files))
    })
}

/// Overwrites a file with something else, as long as it was.
fn overwrite(file: &Path) -> Result<()> {
    let length = fs::metadata(file)?.len();
    let noise = (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8);
    fs::write(file, noise.collect::<Vec<u8>>()).context("damaging a file")
}

/// A stage on which tasks are recorded and more are running.
fn half_way(site: &Site, service: &[&str]) -> Result<Stage> {
    let mut stage = site.stage_with(&Setup { service, ..Setup::default() })?;
    stage.submit(2000, "")?;
    stage.until_recorded(200)?;
    Ok(stage)
}

fn group_damaged(site: &Site) -> Result<Seen> {
    let mut stage = half_way(site, &[])?;
    stage.daemon.signal("STOP")?;
    stage.submit(300, "")?;
    stage.submit(300, "")?;
    overwrite(&waiting(&stage, &stage.tasks_queue(), 2)?[0])?;
    stage.daemon.signal("CONT")?;
    let awake = Instant::now();
    stage.daemon.wait_for(DAMAGED, SOON).context("the fault did not hit")?;
    let recovery = stage.recovery(awake)?;
    stage.service.signal("STOP")?;
    overwrite(&waiting(&stage, "results", 2)?[0])?;
    stage.service.signal("CONT")?;
    stage.service.wait_for(DAMAGED, SOON).context("the fault did not hit")?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn group_missing(site: &Site) -> Result<Seen> {
    let mut stage = half_way(site, &["--ask-after", ASK_AFTER])?;
    stage.daemon.signal("STOP")?;
    stage.submit(300, "")?;
    stage.submit(300, "")?;
    remove_newest(&stage)?;
    stage.submit(300, "")?;
    stage.daemon.signal("CONT")?;
    let awake = Instant::now();
    stage.daemon.wait_for(MISSING, SOON).context("the fault did not hit")?;
    let recovery = stage.recovery(awake)?;
    stage.daemon.signal("STOP")?;
    stage.submit(300, "")?;
    remove_newest(&stage)?;
    stage.daemon.signal("CONT")?;
    Ok(stage.seen()?.recovered_in(recovery))
}

/// Removes the file of the task queue that came last.
fn remove_newest(stage: &Stage) -> Result<()> {
    let waiting = waiting(stage, &stage.tasks_queue(), 1)?;
    fs::remove_file(waiting.last().context("nothing waits")?).context("removing the newest file")
}

fn deleted(site: &Site) -> Result<Seen> {
    let mut stage = half_way(site, &[])?;
    stage.submit(2000, "")?;
    let spool = stage.world.spool();
    poll::until("the folder to go", SOON, || {
        // What is being written into it keeps it there.
        let gone = fs::remove_dir_all(&spool);
        Ok((gone.is_ok() && !spool.exists()).then_some(()))
    })?;
    stage.daemon.wait_for("disengaged", SOON).context("the fault did not hit")?;
    stage.service.wait_for("disengaged", SOON).context("the fault did not hit")?;
    poll::pause(Duration::from_secs(3));
    stage.provision_again(site)?;
    let back = Instant::now();
    stage.daemon.wait_for(ANEW, SOON)?;
    stage.service.wait_for(ANEW, SOON)?;
    let recovery = stage.back(back)?;
    let seen = stage.seen()?.recovered_in(recovery);
    // A file that names the one before is good for the new one.
    stage.daemon.stop(SOON)?;
    stage.restart()?;
    Ok(seen)
}

fn full(site: &Site) -> Result<Seen> {
    let setup = Setup { spool_disk: Some(DISK_KILOBYTES), ..Setup::default() };
    let mut stage = site.stage_with(&setup)?;
    stage.submit(4000, "")?;
    stage.until_recorded(500)?;
    let disk = stage.spool_disk.take().context("the folder has no disk of its own")?;
    poll::until("the endpoint to tell that the folder is full", SOON, || {
        // What is removed from the folder makes room.
        disk.fill()?;
        stage.daemon.next(FULL)
    })
    .context("the fault did not hit")?;
    for _ in 0..10 {
        poll::pause(Duration::from_millis(500));
        disk.fill()?;
    }
    disk.free()?;
    let recovery = stage.recovery(Instant::now())?;
    let seen = stage.seen()?.recovered_in(recovery);
    // What runs on the disk ends before the disk goes.
    ensure!(stage.daemon.stop(SOON)? == 0, "the endpoint did not end in order");
    ensure!(stage.service.stop(SOON)? == 0, "the service did not end in order");
    Ok(seen)
}
