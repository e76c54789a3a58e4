//! The steps of the demonstration: submit, cut the link, let the endpoint work alone, kill it,
//! start it again, mend the link, and compare all results with the expected ones.

use super::deployment::{Deployment, NAME};
use super::files::Files;
use super::narrator::{Narrator, count, several, time};
use super::processes::{PAUSE, sha256sum};
use super::proof::{Compared, Expected, FaultSchedule, ProofCounts, Record, compare};
use super::start_log::distinct;
use crate::api::types::{MAX_PAGE, ResultPage, WaitRequest};
use crate::client::recipient::Recipient;
use crate::client::submit::{self, Submitted};
use crate::model::{Progress, TaskOutcome, TaskSpec, TaskState};
use anyhow::ensure;
use clutch_common::id::TaskId;
use clutch_common::task::result::Outcome;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// The key that the tasks are submitted under.
pub(super) const KEY: &str = "demo";
/// How long no result may come, with the link up, before that is a failure.
const STALLED: Duration = Duration::from_secs(60);
/// An endpoint without a link that starts nothing for so long has run all it has.
const QUIET: Duration = Duration::from_secs(2);
/// How long the service holds a question about progress.
const HELD_MS: u64 = 500;

/// How long things took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Timings {
    /// Submitting, until the last task was confirmed.
    submitting_ms: u64,
    /// From cutting the link to mending it.
    link_down_ms: u64,
    /// From mending to the first result that the service had not known.
    first_result_ms: Option<u64>,
    /// From mending to the last result.
    last_result_ms: Option<u64>,
}

/// The measurements of a run.
#[derive(Debug, Default)]
pub(super) struct Measurements {
    /// The counts.
    pub(super) counts: ProofCounts,
    /// The durations.
    pub(super) times: Timings,
    /// How results differ from the expected ones.
    pub(super) differences: Vec<String>,
}

/// A demonstration under way.
#[derive(Debug)]
pub(super) struct Scenario<'a> {
    deployment: &'a mut Deployment,
    narrator: &'a mut Narrator,
    files: &'a Files,
    ids: Vec<TaskId>,
    measured: Measurements,
}

/// Runs all steps on a deployment with engaged daemons, and leaves these running.
///
/// # Errors
/// When a step cannot be done or takes too long; a proof that does not hold is no error.
pub(super) async fn play(
    deployment: &mut Deployment,
    files: &Files,
    narrator: &mut Narrator,
) -> anyhow::Result<Measurements> {
    let plan = FaultSchedule::over(files.paths.len());
    let mut measured = Measurements::default();
    measured.counts.files = files.paths.len();
    measured.counts.slots = deployment.slots;
    let mut play = Scenario { deployment, narrator, files, ids: Vec::new(), measured };
    play.submit().await?;
    let done = play.recorded(plan.cut_at).await?;
    let (before, cut) = play.cut(done).await?;
    play.gather(before, plan.alone).await?;
    play.crash().await?;
    play.mend(cut).await?;
    play.compare().await?;
    play.start_log()?;
    Ok(play.measured)
}

impl Scenario<'_> {
    async fn submit(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let start_log = &self.deployment.start_log;
        let specs = self.files.paths.iter().map(|file| spec(start_log.command(file)));
        let total = self.files.paths.len() as u64;
        let mut submitted = Submitted::default();
        submit::send(
            &self.deployment.client,
            &Recipient::endpoint(NAME),
            KEY,
            total,
            specs,
            &mut submitted,
        )
        .await?;
        self.ids = submitted.ids;
        self.measured.counts.submitted = self.ids.len();
        self.measured.times.submitting_ms = ms(begun.elapsed());
        let tasks = several(self.ids.len(), "task");
        self.narrator.step(&format!("{tasks} submitted in {}", time(begun.elapsed())));
        Ok(())
    }

    /// Waits until so many results are recorded; how many there are then.
    async fn recorded(&mut self, wanted: u64) -> anyhow::Result<u64> {
        let mut seen = u64::MAX;
        let mut until = Instant::now() + STALLED;
        loop {
            let done = self.progress(seen).await?;
            self.narrator.progress(done, self.measured.counts.files as u64);
            if done >= wanted {
                return Ok(done);
            }
            if done != seen {
                (seen, until) = (done, Instant::now() + STALLED);
            }
            self.deployment.service.runs()?;
            self.deployment.endpoint.runs()?;
            ensure!(Instant::now() < until, self.stalled(done));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Says that no result came, and what the daemons last complained of.
    fn stalled(&self, done: u64) -> String {
        let (done, all) = (count(done), several(self.measured.counts.files, "result"));
        let mut words = format!("{done} of {all} recorded, and none came within {STALLED:?}");
        for (name, daemon) in
            [("service", &self.deployment.service), ("endpoint", &self.deployment.endpoint)]
        {
            let trouble = daemon.trouble().unwrap_or_else(|| "it has none".to_owned());
            words.push_str(&format!("\nthe {name}'s last warning: {trouble}"));
        }
        words
    }

    /// How many results are recorded; waits a moment for other than `seen`.
    async fn progress(&self, seen: u64) -> anyhow::Result<u64> {
        let key = Some(KEY.to_owned());
        let request =
            WaitRequest { key, seen: Some(seen), timeout_ms: HELD_MS, ..WaitRequest::default() };
        let progress: Progress = self.deployment.client.post("/v1/wait", &request).await?;
        Ok(progress.done)
    }

    /// Cuts the link; how many tasks had started by then, and when that was.
    async fn cut(&mut self, done: u64) -> anyhow::Result<(usize, Instant)> {
        self.deployment.link.cut().await?;
        let cut = (self.deployment.start_log.read()?.len(), Instant::now());
        self.narrator.fault(&format!("cut the endpoint's link, at {}", several(done, "result")));
        Ok(cut)
    }

    /// Lets the endpoint work without a link, until so many tasks more have
    /// started than `before` or it has run all it has.
    async fn gather(&mut self, before: usize, wanted: usize) -> anyhow::Result<()> {
        let mut starts = before;
        let mut changed = Instant::now();
        while starts - before < wanted
            && starts < self.measured.counts.files
            && changed.elapsed() < QUIET
        {
            tokio::time::sleep(PAUSE).await;
            self.deployment.endpoint.runs()?;
            let now = self.deployment.start_log.read()?.len();
            if now != starts {
                (starts, changed) = (now, Instant::now());
            }
        }
        let alone: BTreeSet<TaskId> =
            self.deployment.start_log.read()?.into_iter().skip(before).collect();
        let known = self.results().await?;
        let known =
            known.iter().filter(|one| one.result.is_some() && alone.contains(&one.summary.id));
        let (alone, known) = (alone.len(), known.count());
        (self.measured.counts.started_while_cut, self.measured.counts.known_while_cut) =
            (alone, known);
        self.narrator.step(&if alone == 0 {
            "every task had started by then: more --files leave some for the endpoint alone"
                .to_owned()
        } else {
            let alone = several(alone, "task");
            format!("the endpoint works on alone: {alone} started; the service knows {known} of their results")
        });
        Ok(())
    }

    /// Kills the endpoint and starts it again, with the link still cut.
    async fn crash(&mut self) -> anyhow::Result<()> {
        let pid = self.deployment.endpoint.pid();
        self.deployment.endpoint.kill()?;
        self.narrator.fault(&format!("killed the endpoint: kill -9 {pid}"));
        let found = self.deployment.start_endpoint_again().await?;
        (self.measured.counts.tasks_on_disk, self.measured.counts.results_on_disk) =
            (found.tasks, found.results);
        self.narrator.step(&format!(
            "started it again (process {}): on its disk are {} and {}",
            self.deployment.endpoint.pid(),
            several(found.results, "result"),
            several(found.tasks, "task")
        ));
        Ok(())
    }

    /// Mends the link and waits for all results.
    async fn mend(&mut self, cut: Instant) -> anyhow::Result<()> {
        let total = self.measured.counts.files as u64;
        let before = self.progress(u64::MAX).await?;
        self.deployment.link.mend().await?;
        let mended = Instant::now();
        self.measured.times.link_down_ms = ms(mended - cut);
        self.narrator.step(&format!("mended the link; it was down for {}", time(mended - cut)));
        if before == total {
            return Ok(());
        }
        self.recorded(before + 1).await?;
        let first = mended.elapsed();
        self.recorded(total).await?;
        let last = mended.elapsed();
        self.measured.times.first_result_ms = Some(ms(first));
        self.measured.times.last_result_ms = Some(ms(last));
        self.narrator.step(&format!(
            "first result {} after mending; all {} recorded {} after mending",
            time(first),
            count(total),
            time(last)
        ));
        Ok(())
    }

    /// Computes the same directly, and compares line by line.
    async fn compare(&mut self) -> anyhow::Result<()> {
        let files = self.files.paths.clone();
        let lines = spawn_blocking(move || sha256sum(&files)).await??;
        let expected: Vec<Expected> = self
            .ids
            .iter()
            .zip(&self.files.paths)
            .zip(lines)
            .map(|((id, file), line)| Expected { id: *id, file: file.clone(), line })
            .collect();
        let records: Vec<Record> = self.results().await?.into_iter().filter_map(record).collect();
        let Compared { recorded, surplus, equal, absorbed, differences } =
            compare(&expected, &records);
        let counts = &mut self.measured.counts;
        (counts.recorded, counts.surplus) = (recorded, surplus);
        (counts.equal, counts.absorbed) = (equal, absorbed);
        self.measured.differences = differences;
        self.narrator.step(&format!(
            "compared with sha256sum, run directly: {} of {} equal",
            count(equal),
            several(expected.len(), "line")
        ));
        Ok(())
    }

    /// Counts the starts that the tasks themselves have logged.
    fn start_log(&mut self) -> anyhow::Result<()> {
        let starts = self.deployment.start_log.read()?;
        let started = distinct(&starts);
        let counts = &mut self.measured.counts;
        (counts.started, counts.started_again) = (started, starts.len() - started);
        self.narrator.step(&format!(
            "{} started twice; kill -9 may repeat what was running, {} at most",
            several(counts.started_again, "task"),
            counts.slots
        ));
        Ok(())
    }

    async fn results(&self) -> anyhow::Result<Vec<TaskOutcome>> {
        let mut results = Vec::with_capacity(self.files.paths.len());
        let mut from = Some(0);
        while let Some(index) = from {
            let parameters = [
                ("key", KEY.to_owned()),
                ("from", index.to_string()),
                ("limit", MAX_PAGE.to_string()),
            ];
            let page: ResultPage = self.deployment.client.get("/v1/results", &parameters).await?;
            results.extend(page.results);
            from = page.next;
        }
        Ok(results)
    }
}

fn spec(argv: Vec<String>) -> TaskSpec {
    TaskSpec { argv: argv.into_iter().map(Into::into).collect(), ..TaskSpec::plain() }
}

/// A task's record; nothing for a task without a result.
fn record(task: TaskOutcome) -> Option<Record> {
    let recorded = task.result?;
    let output = if task.summary.state == TaskState::Done(Outcome::Succeeded) {
        Ok(recorded.result.stdout.0)
    } else {
        let words = String::from_utf8_lossy(&recorded.result.stderr.0).trim_end().to_owned();
        Err(format!("{} ({words})", task.summary.state))
    };
    Some(Record { id: task.summary.id, output, duplicates: recorded.duplicates })
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
