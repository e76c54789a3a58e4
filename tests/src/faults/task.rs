//! Faults that tasks and clocks make.

use super::faked_clock::FakedClock;
use super::stage::{Setup, Site};
use super::{Need, Play, Row, Seen};
use crate::world::SOON;
use crate::{escapes, poll};
use anyhow::{Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "poison",
        "among 400 tasks is one that ends the endpoint by kill -9 whenever it runs; a supervisor \
         starts the endpoint again each time, and the task ends as poisoned after three",
        Play::Beside(poison),
    )
    .may_run_again("those that held a slot when the endpoint died")
    .since("the last start, to the last outcome"),
    Row::new(
        "walltime-tree",
        "50 tasks start children in sessions of their own that ignore SIGTERM, and run past their \
         walltime of 1 s; they end as timed out and leave no process",
        Play::Beside(walltime),
    )
    .since("the first task's walltime"),
    Row::new(
        "task-escapes",
        "39 tasks try 13 ways out (sessions, groups, an empty environment, other limits, double \
         forks, another user, deafness to SIGTERM, chains and bombs of forks); when the last has \
         its outcome, no process of them is left, and no zombie of the endpoint",
        Play::Beside(escapes),
    )
    .since("the last outcome")
    .needs(&[Need::Python]),
    Row::new(
        "output-not-utf-8",
        "500 tasks print every byte there is; each byte is recorded as it was",
        Play::Beside(bytes),
    )
    .since("the submission"),
    Row::new(
        "clock-back-and-forth",
        "the endpoint's clock goes back an hour, forth two, and back again while tasks with a \
         walltime of 30 s run",
        Play::Beside(clock),
    )
    .since("the last change")
    .needs(&[Need::FakeTime]),
];

fn poison(site: &Site) -> Result<Seen> {
    // What no supervisor would do more often.
    const STARTS: usize = 10;
    let mut stage = site.stage()?;
    stage.submit(400, "[ $1 != 100 ] || kill -9 $PPID; sleep 0.01")?;
    let slots = stage.slots.to_string();
    let (mut deaths, mut start) = (0, Instant::now());
    while let Some(code) = stage.died()? {
        ensure!(code == 128 + 9, "the endpoint ended with {code}");
        deaths += 1;
        ensure!(deaths <= STARTS, "the task took the endpoint down {deaths} times");
        start = Instant::now();
        // It may die again before it has its link.
        stage.daemon = stage.world.launch(&stage.endpoint, &["--slots", &slots])?;
    }
    let recovery = start.elapsed();
    ensure!(deaths > 0, "the fault did not hit: the endpoint lived");
    let seen = stage.seen_with(&[("poisoned", 1)])?;
    let poisoned = stage.reasons("poisoned")?.len();
    let seen = seen.allowing(deaths * stage.slots).recovered_in(recovery);
    let seen = seen.must(poisoned == 1, || format!("{poisoned} tasks were poisoned"));
    Ok(seen.must(deaths == 3, || format!("the endpoint died {deaths} times, not 3")))
}

impl super::Stage {
    /// The exit code of the endpoint's daemon once it has died; nothing once all
    /// tasks have an outcome.
    fn died(&mut self) -> Result<Option<i32>> {
        poll::until("the endpoint to die or to end its work", 2 * SOON, || {
            if let Some(code) = self.daemon.exited()? {
                return Ok(Some(Some(code)));
            }
            let progress = self.progress()?;
            Ok((progress.done == progress.total).then_some(None))
        })
    }
}

fn walltime(site: &Site) -> Result<Seen> {
    const TASKS: usize = 50;
    let settings = "[engine]\ngrace = \"1s\"";
    let mut stage = site.stage_with(&Setup { settings, slots: 25, ..Setup::default() })?;
    let mark = format!("FAULT_MARK={}", stage.world.folder().display());
    let script = "trap '' TERM; (setsid sleep 300 &); sleep 300 & sleep 300";
    let begun = Instant::now();
    stage.submit_with(TASKS, script, &["--walltime", "1s", "--env", &mark])?;
    stage.until_started(TASKS / 2)?;
    ensure!(!processes_with(&mark).is_empty(), "no task's process is to be seen");
    let recovery = stage.recovery(begun)?;
    let seen = stage.seen_with(&[("timed_out", TASKS)])?.recovered_in(recovery);
    let left = processes_with(&mark).len();
    let timed_out = stage.reasons("timed_out")?.len();
    let seen = seen.must(left == 0, || format!("{left} processes are left"));
    Ok(seen.must(timed_out == TASKS, || format!("{timed_out} timed out")))
}

fn escapes(site: &Site) -> Result<Seen> {
    const TASKS: usize = 3 * escapes::WAYS.len();
    let settings = "[engine]\ngrace = \"1s\"";
    let mut stage = site.stage_with(&Setup { settings, ..Setup::default() })?;
    let program = escapes::program(stage.world.folder())?;
    let (ways, count) = (escapes::WAYS.join(" "), escapes::WAYS.len());
    let note = stage.world.folder().join("escape");
    let script = format!(
        "n=$1; set -- {ways}; shift $((n % {count})); exec python3 '{}' \"$1\" '{}'-$n",
        program.display(),
        note.display()
    );
    stage.submit(TASKS, &script)?;
    let (seen, over) = (stage.seen()?, Instant::now());
    let left = escapes::alive(&program).len();
    let out = (1..=TASKS).filter(|n| note.with_file_name(format!("escape-{n}")).exists()).count();
    ensure!(out == TASKS, "the fault did not hit: {out} of {TASKS} got out at first");
    let daemon = stage.daemon.pid();
    let reaped = poll::until("zombies to be reaped", SOON, || {
        Ok((escapes::zombies(daemon) == 0).then_some(()))
    });
    let seen = seen.recovered_in(over.elapsed());
    let seen = seen.must(left == 0, || format!("{left} processes are left"));
    Ok(seen.must(reaped.is_ok(), || "zombies stay".to_owned()))
}

/// The processes that have `text` in their environment.
fn processes_with(text: &str) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|one| one.path());
    let marked = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == text.as_bytes())
    };
    processes.filter(marked).collect()
}

fn bytes(site: &Site) -> Result<Seen> {
    const TASKS: usize = 500;
    let mut stage = site.stage()?;
    let every: Vec<u8> = (0..=255).collect();
    let file = stage.world.folder().join("bytes");
    fs::write(&file, &every)?;
    let begun = Instant::now();
    stage.submit(TASKS, &format!("cat '{}'", file.display()))?;
    let seen = stage.seen()?.recovered_in(begun.elapsed());
    let outputs = stage.world.service(&["results", "--key", "k0", "--stdout-only"])?.ok()?.stdout;
    Ok(seen.must(outputs == every.repeat(TASKS), || "the bytes are others".to_owned()))
}

fn clock(site: &Site) -> Result<Seen> {
    let clock = FakedClock::within(&site.folder)?;
    let wrapper = clock.wrapper()?;
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let mut stage = site.stage_with(&Setup { wrapper: &wrapper, ..Setup::default() })?;
    // The tasks themselves keep the right time.
    let script = "unset LD_PRELOAD; exec sleep 0.02";
    stage.submit_with(3000, script, &["--walltime", "30s"])?;
    stage.until_recorded(50)?;
    for shift in ["-3600s", "+3600s", "-3600s", "+0s"] {
        clock.set(shift)?;
        let before = stage.progress()?.done;
        poll::until("outcomes under another clock", SOON, || {
            Ok((stage.progress()?.done > before + 100).then_some(()))
        })?;
        poll::pause(Duration::from_secs(2));
    }
    let recovery = stage.recovery(Instant::now())?;
    let lost = stage.said("disengaged")?;
    let spread = stage.end_times()?;
    ensure!(spread > Duration::from_secs(3600), "the clock did not change: {spread:?}");
    let seen = stage.seen()?.recovered_in(recovery);
    Ok(seen.must(lost == 0, || format!("the link was given up {lost} times")))
}

impl super::Stage {
    /// From the first to the last end of a task, by the endpoint's clock.
    fn end_times(&self) -> Result<Duration> {
        let results = self.world.results("k0")?;
        let ends = results.iter().filter_map(|task| task["result"]["ended_at_ms"].as_u64());
        let (first, last) = ends.fold((u64::MAX, 0), |(a, b), end| (a.min(end), b.max(end)));
        Ok(Duration::from_millis(last.saturating_sub(first)))
    }
}
