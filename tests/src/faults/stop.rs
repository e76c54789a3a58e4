//! Ends of the endpoint's daemon: by `kill -9`, by signals, at every step of a
//! task's way.

use super::stage::{Setup, Site, Stage};
use super::{Play, Row, Seen};
use crate::poll;
use crate::process;
use crate::proxy::Carry;
use crate::world::SOON;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Why tasks run again after a crash.
const CRASH: &str = "those that held a slot at a kill";

/// The exit code of a process that SIGKILL ended.
const KILLED: i32 = 128 + 9;

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "endpoint-kill",
        "the endpoint is ended by kill -9 with 3,000 tasks of 20 ms queued, and started again",
        Play::Beside(kill),
    )
    .may_run_again(CRASH)
    .since("the kill"),
    Row::new(
        "endpoint-kill-often",
        "the endpoint is ended by kill -9 five times while 4,000 tasks run",
        Play::Beside(kill_often),
    )
    .may_run_again(CRASH)
    .since("the last kill"),
    Row::new(
        "sigterm",
        "the endpoint gets SIGTERM with 3,000 tasks of 20 ms queued, ends with 0, and is started \
         again",
        Play::Beside(terminate),
    )
    .since("the next start"),
    Row::new(
        "second-sigterm",
        "the endpoint gets SIGTERM twice while tasks of 30 s run; they are ended and run again",
        Play::Beside(terminate_twice),
    )
    .may_run_again("those that ran at the second signal")
    .since("the next start"),
    Row::new(
        "stop-while-storing",
        "without a link, results go to disk; the endpoint gets SIGTERM meanwhile, three times",
        Play::Beside(stop_while_storing),
    )
    .since("the link and the endpoint being back"),
    Row::new(
        "drained-and-killed",
        "the endpoint is drained at its own machine with 1,000 tasks queued, ended by kill -9 and \
         started again; no task starts until it is resumed",
        Play::Beside(drained_and_killed),
    )
    .may_run_again(CRASH)
    .since("the resume"),
    between_steps("killed-after-accept", "tasks are accepted and not acknowledged", |site| {
        die_at(site, ["accept:1", "accept:2"])
    }),
    between_steps("killed-after-commit", "tasks are on disk and not acknowledged", |site| {
        die_at(site, ["ack:1", "ack:2"])
    }),
    between_steps(
        "killed-after-start",
        "a task's start is noted and its process not begun",
        |site| die_at(site, ["start:100", "start:200"]),
    ),
    between_steps(
        "killed-after-finish",
        "a task has ended and its result is not on disk",
        |site| die_at(site, ["finish:100", "finish:200"]),
    ),
    between_steps("killed-after-storing", "results are on disk and not published", |site| {
        die_at(site, ["publish:2", "publish:8"])
    }),
    between_steps("killed-after-confirm", "results are confirmed and not released", |site| {
        die_at(site, ["release:1", "release:4"])
    }),
];

/// A row in which the endpoint dies twice at one of its steps.
const fn between_steps(
    name: &'static str,
    what: &'static str,
    play: fn(&Site) -> Result<Seen>,
) -> Row {
    Row::new(name, what, Play::Beside(play)).may_run_again(CRASH).since("the last kill")
}

fn queued(site: &Site, count: usize, script: &str) -> Result<Stage> {
    let mut stage = site.stage_with(&Setup { slots: 8, ..Setup::default() })?;
    stage.submit(count, script)?;
    stage.until_recorded(100)?;
    Ok(stage)
}

/// Ends the daemon by `kill -9` and starts it again at once.
fn kill_and_restart(stage: &mut Stage) -> Result<()> {
    stage.daemon.kill()?;
    stage.restart()
}

fn kill(site: &Site) -> Result<Seen> {
    let mut stage = queued(site, 3000, "sleep 0.02")?;
    let at = Instant::now();
    kill_and_restart(&mut stage)?;
    let recovery = stage.recovery(at)?;
    Ok(stage.seen()?.allowing(stage.slots).recovered_in(recovery))
}

fn kill_often(site: &Site) -> Result<Seen> {
    const KILLS: usize = 5;
    let mut stage = queued(site, 4000, "")?;
    let mut recovery = Duration::ZERO;
    for number in 1..=KILLS {
        let at = Instant::now();
        kill_and_restart(&mut stage)?;
        recovery = stage.recovery(at)?;
        if number < KILLS {
            stage.until_recorded(600 * number as u64)?;
        }
    }
    Ok(stage.seen()?.allowing(KILLS * stage.slots).recovered_in(recovery))
}

/// Lets the endpoint kill itself at two points, and then go on. A third death
/// would count against tasks that ran at all of them, as those of a poisoned
/// task do.
fn die_at(site: &Site, points: [&str; 2]) -> Result<Seen> {
    let slots = Setup::default().slots;
    let settings = format!("[engine]\nslots = {slots}");
    let mut stage = site.stage_with(&Setup { settings: &settings, ..Setup::default() })?;
    stage.daemon.stop(SOON)?;
    stage.submit(2000, "")?;
    for point in points {
        stage.daemon = stage.world.launch_mortal(&stage.endpoint, point)?;
        let code = stage.daemon.wait(SOON)?;
        ensure!(code == KILLED, "it was to die at {point}, and ended with {code}");
    }
    let at = Instant::now();
    stage.restart()?;
    let recovery = stage.recovery(at)?;
    Ok(stage.seen()?.allowing(points.len() * stage.slots).recovered_in(recovery))
}

fn terminate(site: &Site) -> Result<Seen> {
    let mut stage = queued(site, 3000, "sleep 0.02")?;
    let at = Instant::now();
    let code = stage.daemon.stop(SOON)?;
    let stopped_in = at.elapsed();
    let started = stage.runs.read()?.len();
    ensure!(started < 3000, "it stopped when all tasks had run");
    let again = Instant::now();
    stage.restart()?;
    let recovery = stage.recovery(again)?;
    let seen = stage.seen()?.recovered_in(recovery);
    let seen = seen.must(code == 0, || format!("it ended with {code}"));
    Ok(seen.note(format!("stopped in {:.1} s", stopped_in.as_secs_f64())))
}

fn terminate_twice(site: &Site) -> Result<Seen> {
    let settings = "[engine]\ngrace = \"1s\"";
    let mut stage = site.stage_with(&Setup { settings, ..Setup::default() })?;
    // The first tasks outlast the deadline, unless they run for the second time.
    let mark = stage.world.folder().join("second").display().to_string();
    let script = format!("[ $1 -gt 4 ] || [ -e '{mark}' ] || exec sleep 30");
    stage.submit(500, &script)?;
    stage.until_started(4)?;
    stage.daemon.signal("TERM")?;
    stage
        .daemon
        .wait_for("stopping: running tasks may finish; a second signal stops them", SOON)?;
    std::fs::write(&mark, "")?;
    let at = Instant::now();
    let code = stage.daemon.stop(SOON)?;
    let stopped_in = at.elapsed();
    let again = Instant::now();
    stage.restart()?;
    let recovery = stage.recovery(again)?;
    let seen = stage.seen()?.allowing(stage.slots).recovered_in(recovery);
    let seen = seen.must(code == 0, || format!("it ended with {code}"));
    Ok(seen.must(stopped_in < Duration::from_secs(15), || format!("it took {stopped_in:?}")))
}

fn stop_while_storing(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    // Results too large for a record go to files.
    stage.submit(3000, "head -c 3000 /dev/zero | tr '\\0' x")?;
    stage.until_recorded(100)?;
    stage.proxy.carry(Carry::Refuse)?;
    ensure!(stage.proxy.cut() == 2, "there were not two connections to reset");
    stage.until_disengaged()?;
    for _ in 0..3 {
        let started = stage.runs.read()?.len();
        stage.until_started(started + 100)?;
        stage.daemon.signal("TERM")?;
        ensure!(stage.daemon.wait(SOON)? == 0, "it did not end in order");
        stage.daemon = stage.world.launch(&stage.endpoint, &[])?;
        stage.daemon.wait_for("starting", SOON).context("starting without a link")?;
    }
    stage.proxy.carry(Carry::Pass)?;
    let recovery = stage.back(Instant::now())?;
    Ok(stage.seen()?.recovered_in(recovery))
}

/// Asks the daemon that runs here by one of its own commands.
fn local(stage: &Stage, command: &str) -> Result<Value> {
    let config = stage.endpoint.config.display().to_string();
    let asked = stage.world.endpoint_command(&[command, "--json", "--config", &config]);
    process::run(asked, b"", SOON)?.ok()?.json()
}

fn drained_and_killed(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    stage.submit(1000, "sleep 0.02")?;
    stage.until_recorded(200)?;
    local(&stage, "drain")?;
    stage.daemon.kill()?;
    stage.daemon.wait(SOON)?;
    stage.restart()?;
    let at_start = local(&stage, "status")?;
    poll::pause(Duration::from_secs(2));
    let later = local(&stage, "status")?;
    let running = |status: &Value| status["running"].as_u64();
    let idle = [&at_start, &later].iter().all(|status| running(status) == Some(0));
    let kept = later["accepted"].as_u64() > Some(0) && at_start["accepted"] == later["accepted"];
    let resumed = Instant::now();
    local(&stage, "resume")?;
    let recovery = stage.recovery(resumed)?;
    let seen = stage.seen()?.allowing(stage.slots).recovered_in(recovery);
    stage.daemon.stop(SOON)?;
    let seen = seen.must(idle, || format!("tasks ran while it was drained: {later}"));
    Ok(seen.must(kept, || format!("the inbox is not as it was: {at_start}, {later}")))
}
