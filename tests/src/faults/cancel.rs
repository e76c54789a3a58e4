//! Tasks are cancelled while something fails. Each has exactly one outcome, and is `cancelled` only
//! if it did not finish: the tasks note their own starts and ends.

use super::stage::{Setup, Site, Stage};
use super::{ALL, BOTH, Play, Row, Seen};
use crate::broker::Private;
use crate::poll;
use crate::proxy::Carry;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const TASKS: usize = 3000;
/// The endpoint's words for a task that was cancelled while it waited.
const UNSTARTED: &str = "before it started";
/// Those that held a slot.
const CRASH: &str = "those that held a slot at the kill";

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "cancel-link-cut",
        "the link is cut, all tasks are cancelled, and the link is back after 3 s",
        Play::Beside(link_cut),
    )
    .on(BOTH),
    Row::new(
        "cancel-half-open",
        "the endpoint's side of the link is gone, the broker still sees it and its consumer, and all \
         tasks are cancelled",
        Play::Beside(half_open),
    )
    .within(45)
    .since("the fault")
    .on(BOTH),
    Row::new(
        "cancel-offline",
        "the endpoint is stopped with a queue of tasks, all are cancelled, and it is started again; \
         none starts any more",
        Play::Beside(offline),
    )
    .since("the next start")
    .on(ALL),
    Row::new(
        "cancel-endpoint-kill",
        "all tasks are cancelled, and the endpoint is ended by kill -9 at once",
        Play::Beside(endpoint_kill),
    )
    .may_run_again(CRASH)
    .since("the next start")
    .on(ALL),
    Row::new(
        "cancel-service-kill",
        "all tasks are cancelled, and the service is ended by kill -9 as soon as it has answered",
        Play::Beside(service_kill),
    )
    .since("the next start")
    .on(ALL),
    Row::new(
        "cancel-broker-kill",
        "all tasks are cancelled, and the broker is ended by kill -9 at once",
        Play::Alone(broker_kill),
    )
    .since("the broker being up again")
    .on(BOTH),
    Row::new(
        "cancel-dead-disk",
        "the endpoint is ended by kill -9, its state folder is gone, all tasks are cancelled, and it \
         is started anew; none is submitted again",
        Play::Beside(dead_disk),
    )
    .since("the next start")
    .on(ALL),
];

/// Tasks that note their ends, half-way through.
struct Cancelled {
    stage: Stage,
    ends: PathBuf,
    /// Those that had ended when they were cancelled.
    ended: BTreeSet<String>,
    /// How many may be `cancelled` although they noted their end, or called so before they started
    /// although they noted that: those that held a slot when they, or the endpoint, were stopped.
    cut_short: usize,
}

impl Cancelled {
    fn half_way(site: &Site) -> Result<Self> {
        let mut stage = site.stage_with(&Setup::default())?;
        let ends = stage.world.folder().join("ends");
        let script = format!("sleep 0.05 && echo \"$CLUTCH_TASK_ID\" >> '{}'", ends.display());
        stage.submit(TASKS, &script)?;
        stage.until_recorded(100)?;
        let cut_short = stage.slots;
        Ok(Self { stage, ends, ended: BTreeSet::new(), cut_short })
    }

    /// The tasks that have noted their ends.
    fn ends(&self) -> Result<BTreeSet<String>> {
        let text = std::fs::read_to_string(&self.ends).context("reading the ends of tasks")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Cancels all, and waits for no endpoint.
    fn cancel(&mut self) -> Result<()> {
        self.ended = self.ends()?;
        let words = ["cancel", "--key", &self.stage.key(0), "--no-wait", "--json"];
        let answer = self.stage.world.service(&words)?.ok()?.json()?;
        ensure!(answer["asked"].as_u64() > Some(0), "the endpoint was not asked: {answer}");
        Ok(())
    }

    /// How many tasks have started.
    fn started(&self) -> Result<usize> {
        Ok(self.stage.runs.read()?.len())
    }

    /// Starts the endpoint again; none of the cancelled tasks may start.
    fn none_starts_after_a_restart(&mut self) -> Result<Seen> {
        let started = self.started()?;
        let again = Instant::now();
        self.stage.restart()?;
        let recovery = self.stage.recovery(again)?;
        let seen = self.seen(recovery)?;
        let late = self.started()? - started;
        Ok(seen.must(late == 0, || format!("{late} tasks started after they were cancelled")))
    }

    /// The fates of the tasks, beside what they noted themselves.
    fn seen(&self, recovery: Duration) -> Result<Seen> {
        let seen = self.stage.seen_with(&[("cancelled", TASKS)])?.recovered_in(recovery);
        let results = self.stage.world.results(&self.stage.key(0))?;
        let (starts, ends) = (self.stage.runs.read()?, self.ends()?);
        let (mut cancelled, mut wrong, mut ended, mut unstarted) = (0, 0, 0, 0);
        for task in results.iter().filter(|task| task["state"] == "cancelled") {
            let id = task["id"].as_str().context("a task without an id")?;
            let reason = task["result"]["reason"].as_str().unwrap_or_default();
            cancelled += 1;
            wrong += usize::from(self.ended.contains(id));
            ended += usize::from(ends.contains(id));
            unstarted += usize::from(reason.contains(UNSTARTED) && starts.contains_key(id));
        }
        ensure!(cancelled > 0, "no task was cancelled: the fault came too late");
        let most = self.cut_short;
        let seen = seen
            .must(wrong == 0, || format!("{wrong} tasks had finished and are called cancelled"))
            .must(ended <= most, || format!("{ended} tasks finished and are called cancelled"))
            .must(unstarted <= most, || format!("{unstarted} tasks started, though it is denied"));
        Ok(seen)
    }
}

fn link_cut(site: &Site) -> Result<Seen> {
    let mut run = Cancelled::half_way(site)?;
    run.stage.proxy.carry(Carry::Refuse)?;
    ensure!(run.stage.proxy.cut() == 2, "there were not two connections to reset");
    run.stage.until_disengaged()?;
    run.cancel()?;
    poll::pause(Duration::from_secs(3));
    run.stage.proxy.carry(Carry::Pass)?;
    let recovery = run.stage.back(Instant::now())?;
    run.seen(recovery)
}

fn half_open(site: &Site) -> Result<Seen> {
    let mut run = Cancelled::half_way(site)?;
    let fault = Instant::now();
    ensure!(run.stage.proxy.lose_clients() == 2, "there were not two connections to lose");
    run.cancel()?;
    run.stage.until_disengaged()?;
    run.stage.until_link()?;
    run.seen(fault.elapsed())
}

fn offline(site: &Site) -> Result<Seen> {
    let mut run = Cancelled::half_way(site)?;
    run.stage.daemon.stop(SOON)?;
    run.cancel()?;
    run.none_starts_after_a_restart()
}

fn endpoint_kill(site: &Site) -> Result<Seen> {
    let mut run = Cancelled::half_way(site)?;
    run.cancel()?;
    run.stage.daemon.kill()?;
    let again = Instant::now();
    run.stage.restart()?;
    let recovery = run.stage.recovery(again).unwrap_or_else(|_| again.elapsed());
    Ok(run.seen(recovery)?.allowing(run.stage.slots))
}

fn service_kill(site: &Site) -> Result<Seen> {
    let mut run = Cancelled::half_way(site)?;
    run.cancel()?;
    run.stage.service.kill()?;
    let again = Instant::now();
    run.stage.service = run.stage.world.serve()?;
    run.seen(again.elapsed())
}

fn broker_kill(site: &Site, broker: &mut Private) -> Result<Seen> {
    let mut run = Cancelled::half_way(site)?;
    run.cancel()?;
    broker.kill()?;
    run.stage.until_disengaged()?;
    broker.run()?;
    let up = Instant::now();
    run.stage.until_link()?;
    run.seen(up.elapsed())
}

fn dead_disk(site: &Site) -> Result<Seen> {
    let mut run = Cancelled::half_way(site)?;
    run.stage.daemon.kill()?;
    std::fs::remove_dir_all(run.stage.state()).context("removing the state folder")?;
    run.cancel()?;
    // No record tells that a task had finished if its result was lost with the disk.
    run.ended.clear();
    run.cut_short = TASKS;
    run.none_starts_after_a_restart()
}
