//! One side knows less than it did: queues are purged, a database or a state folder is
//! put back from a backup, or copied.

use super::stage::{Setup, Site, Stage, said};
use super::{Play, Row, Seen};
use crate::poll;
use crate::world::{SOON, World};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the service waits before it asks.
const ASKING: [&str; 2] = ["--ask-after", "3s"];
/// How many tasks must not run again, where there are such.
const ONCE: usize = 100;

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "results-purged",
        "the results queue is purged while results wait in it, as the service is away; they are \
         asked for and come again",
        Play::Beside(results_purged),
    )
    .since("the service's start"),
    Row::new(
        "tasks-purged",
        "the task queue is purged while the endpoint is away, and what comes then expires by a \
         policy; the tasks are asked for and submitted again",
        Play::Beside(tasks_purged),
    )
    .since("the endpoint's start"),
    Row::new(
        "database-restored",
        "the service's database is put back from a backup while the service is away; the results \
         that were recorded since are asked for and come again",
        Play::Beside(database_restored),
    )
    .since("the service's start"),
    Row::new(
        "state-copied",
        "the endpoint's state folder is copied, original and copy are started beside each other; \
         the copy runs nothing, ends with 77, and ends no process of the original",
        Play::Beside(state_copied),
    )
    .since("the end of the copy"),
    Row::new(
        "state-restored",
        "the endpoint's state folder is put back from a backup after it went on for a while; \
         what it holds is not run, but asked about, and tasks that must not run again end as \
         interrupted at worst",
        Play::Beside(|site| state_restored(site, PUT_BACK)),
    )
    .may_run_again("those that held a slot when the endpoint was killed")
    .since("the next start"),
    Row::new(
        "state-rolled-back",
        "the same by a snapshot of the whole file system, after which the folder looks as it \
         did; the service tells it before anything runs",
        Play::Beside(|site| state_restored(site, WENT_BACK)),
    )
    .may_run_again("those that held a slot when the endpoint was killed")
    .since("the next start"),
];

fn asking(site: &Site) -> Result<Stage> {
    site.stage_with(&Setup { service: &ASKING, ..Setup::default() })
}

impl Stage {
    fn serve_asking(&mut self) -> Result<()> {
        self.service = self.world.launch_service(&ASKING)?;
        self.service.wait_for("serving", SOON).map(drop)
    }

    /// Waits until a queue holds as many messages as are wanted.
    fn until_depth(&self, queue: &str, wanted: impl Fn(u64) -> bool) -> Result<()> {
        poll::until(&format!("the queue {queue} to fill or empty"), SOON, || {
            Ok(self.world.vhost().depth(queue)?.filter(|depth| wanted(*depth)).map(drop))
        })
    }

    /// How many of the tasks that must not run again started more than once.
    fn ran_twice(&self, number: usize) -> Result<usize> {
        let runs = self.runs.read()?;
        let ids = World::ids(&self.world.results(&self.key(number))?);
        ensure!(ids.len() == ONCE, "there are {} tasks that must not run again", ids.len());
        Ok(ids.iter().filter(|id| runs.get(*id).is_some_and(|count| *count > 1)).count())
    }
}

fn results_purged(site: &Site) -> Result<Seen> {
    let mut stage = asking(site)?;
    stage.submit(600, "")?;
    stage.until_recorded(50)?;
    stage.service.stop(SOON)?;
    stage.until_started(600)?;
    stage.until_depth("results", |depth| depth > 0)?;
    poll::pause(Duration::from_secs(1));
    stage.world.vhost().purge("results")?;
    let back = Instant::now();
    stage.serve_asking()?;
    let recovery = stage.recovery(back)?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn tasks_purged(site: &Site) -> Result<Seen> {
    let mut stage = asking(site)?;
    let queue = stage.tasks_queue();
    stage.daemon.stop(SOON)?;
    stage.submit(300, "")?;
    // None of them has run: the endpoint knows none of them, but it is not known that no
    // disk had them.
    stage.submit_with(ONCE, "", &["--no-rerun"])?;
    stage.until_depth(&queue, |depth| depth > 0)?;
    stage.world.vhost().purge(&queue)?;
    let pattern = format!("^{queue}$");
    stage.world.vhost().policy("expires", &pattern, &json!({ "message-ttl": 1 }))?;
    stage.submit(200, "")?;
    stage.until_depth("dead-letters", |depth| depth > 0)?;
    stage.world.vhost().delete_policy("expires")?;
    // What expired is with the dead letters besides.
    let dead = stage.world.vhost().take("dead-letters", 1000)?.len();
    ensure!(dead > 0, "the fault did not hit: nothing expired");
    let back = Instant::now();
    stage.restart()?;
    let recovery = stage.recovery(back)?;
    let seen = stage.seen_with(&[("interrupted", ONCE)])?.recovered_in(recovery);
    let twice = stage.ran_twice(1)?;
    Ok(seen.must(twice == 0, || format!("{twice} ran twice that must not run again")))
}

fn database_restored(site: &Site) -> Result<Seen> {
    let mut stage = asking(site)?;
    let (folder, backup) =
        (stage.world.folder().join("service"), stage.world.folder().join("kept"));
    stage.submit(600, "sleep 0.01")?;
    stage.until_recorded(100)?;
    stage.service.stop(SOON)?;
    copy(&folder, &backup)?;
    stage.serve_asking()?;
    let at_backup = stage.progress()?.done;
    stage.until_recorded(at_backup + 200)?;
    stage.service.stop(SOON)?;
    std::fs::remove_dir_all(&folder)?;
    copy(&backup, &folder)?;
    let back = Instant::now();
    stage.serve_asking()?;
    let recovery = stage.recovery(back)?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn state_copied(site: &Site) -> Result<Seen> {
    let mut stage = asking(site)?;
    stage.submit_with(ONCE, "sleep 0.05", &["--no-rerun"])?;
    stage.submit(1000, "sleep 0.05")?;
    stage.until_recorded(20)?;
    stage.until_depth(&stage.tasks_queue(), |depth| depth == 0)?;
    stage.daemon.stop(SOON)?;
    let (state, beside) = (stage.state(), stage.world.folder().join("copy"));
    copy(&state, &beside)?;
    stage.restart()?;
    let path = beside.display().to_string();
    let mut second = stage.world.launch(&stage.endpoint, &["--slots", "4", "--state", &path])?;
    second.wait_for(COPY, SOON).context("the copy was not noticed")?;
    let code = second.wait(SOON)?;
    let ended = Instant::now();
    // On a slow host all that came before may be done.
    stage.submit(40, "sleep 0.2")?;
    let recovery = stage.recovery(ended)?;
    let twice = stage.ran_twice(0)?;
    let seen = stage.seen()?.recovered_in(recovery);
    let seen = seen.must(code == 77, || format!("the copy ended with {code}"));
    Ok(seen.must(twice == 0, || format!("{twice} ran twice that must not run again")))
}

/// The endpoint's words about a state folder that is a copy, or was put back.
const COPY: &str = "the state folder is a copy of another one: the tasks in it are not run but \
                    handed back, and stay with the other one until that has been silent for \
                    `provision --lost-after`. If that one is gone for good, start with --replace to \
                    have them submitted again at once";
const PUT_BACK: &str = "the state folder was put back from a backup, or replaced by a copy of \
                        itself: the tasks in it are not run but handed back, as they may have run \
                        meanwhile. The service submits again what is not answered, or ends it as \
                        interrupted where it must not run again";

/// … and of one that the service knows to have seen more.
const WENT_BACK: &str = "the state folder went back in time: the service knows that it had seen \
                         more. The tasks in it are not run but handed back, as they may have run \
                         meanwhile. The service submits again what is not answered, or ends it as \
                         interrupted where it must not run again";

fn state_restored(site: &Site, words: &str) -> Result<Seen> {
    let mut stage = asking(site)?;
    stage.submit_with(ONCE, "sleep 0.05", &["--no-rerun"])?;
    stage.submit(500, "sleep 0.05")?;
    stage.until_recorded(20)?;
    stage.until_depth(&stage.tasks_queue(), |depth| depth == 0)?;
    stage.daemon.stop(SOON)?;
    let (state, backup) = (stage.state(), stage.world.folder().join("kept"));
    copy(&state, &backup)?;
    let at_backup = stage.progress()?.done;
    stage.restart()?;
    stage.until_recorded(at_backup + 100)?;
    stage.daemon.kill()?;
    std::fs::remove_dir_all(&state)?;
    copy(&backup, &state)?;
    if words == WENT_BACK {
        // Nothing is left by which the folder could tell.
        std::fs::remove_file(state.join("home"))?;
    }
    let again = Instant::now();
    stage.restart()?;
    let recovery = stage.recovery(again)?;
    let told = said(&stage.daemon, words)?;
    let seen = stage.seen_with(&[("interrupted", ONCE)])?.allowing(stage.slots);
    let twice = stage.ran_twice(0)?;
    let seen = seen.recovered_in(recovery);
    let seen = seen.must(told == 1, || format!("it said {told} times that it was put back"));
    Ok(seen.must(twice == 0, || format!("{twice} ran twice that must not run again")))
}

/// Copies a folder as a person does.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    ensure!(copied.context("starting cp")?.success(), "{} cannot be copied", from.display());
    Ok(())
}
