//! Very many queued tasks that are cancelled by one command: at an endpoint that is online, and at
//! one that comes back later. None of them starts.

use super::Bench;
use super::round_trips::SLOTS;
use super::submissions::{PATIENCE, submit};
use crate::pair::Pair;
use crate::report::{Row, Side};
use anyhow::{Context as _, Result, ensure};
use clutch_tests::poll;
use clutch_tests::world::SOON;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long cancelling may take beside submitting and running the same tasks: a cancelled task
/// takes the same ways as one that runs, the request to the endpoint and the result back.
const BAR: f64 = 1.25;
/// How many seconds the command waits for an endpoint that is online by itself.
const WAITED: u64 = 10;

/// The times of one measurement.
struct Times {
    answered: Duration,
    ended: Duration,
}

/// The row `cancel`.
pub(super) fn measure(bench: &Bench) -> Result<Row> {
    let count = bench.scale.submitted;
    let about = format!(
        "`clutch-service cancel --key` of {count} queued no-op tasks, until the command answers and \
         until all have their outcomes, everything durable; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("cancel", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    let (mut online, mut offline, mut ran) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 0..bench.scale.repetitions.min(3) {
        pair.run(SLOTS)?;
        let started = Instant::now();
        submit(&pair, &format!("ran{repetition}"), count, true)?;
        ran.push(started.elapsed().as_secs_f64());
        pair.stop()?;
        online.push(at_one_that_is_online(&mut pair, &format!("on{repetition}"), count)?);
        offline.push(at_one_that_comes_back(&mut pair, &format!("off{repetition}"), count)?);
    }
    row.add("submitting and running them", "s", &ran);
    for (which, times) in [("online", &online), ("offline", &offline)] {
        let seconds = |of: fn(&Times) -> Duration| -> Vec<f64> {
            times.iter().map(|times| of(times).as_secs_f64()).collect()
        };
        row.add(&format!("{which}: until the answer"), "s", &seconds(|times| times.answered));
        row.add(&format!("{which}: until all have ended"), "s", &seconds(|times| times.ended));
        let ratios: Vec<f64> =
            times.iter().zip(&ran).map(|(times, ran)| times.ended.as_secs_f64() / ran).collect();
        let what = format!("{which}: cancelling to running");
        row.hold(&what, "ratio", &ratios, (Side::AtMost, BAR));
    }
    Ok(row)
}

/// Cancels tasks that wait behind one that has the only slot.
fn at_one_that_is_online(pair: &mut Pair, key: &str, count: usize) -> Result<Times> {
    pair.run(1)?;
    let blocker = format!("{key}-blocker");
    let sleep = ["submit", crate::pair::NAME, "--key", &blocker, "--", "sleep", "3600"];
    pair.command(&sleep, SOON)?;
    poll::until("the slot to be taken", SOON, || {
        let tasks = pair.command(&["tasks", "--key", &blocker, "--json"], SOON)?;
        Ok(tasks.contains("\"running\"").then_some(()))
    })?;
    submit(pair, key, count, false)?;
    let started = Instant::now();
    cancel(pair, key, count)?;
    let answered = started.elapsed();
    until_ended(pair, key)?;
    let ended = started.elapsed();
    cancel(pair, &blocker, 1)?;
    pair.stop()?;
    Ok(Times { answered, ended })
}

/// Cancels tasks of an endpoint that is offline, and starts it.
fn at_one_that_comes_back(pair: &mut Pair, key: &str, count: usize) -> Result<Times> {
    submit(pair, key, count, false)?;
    let started = Instant::now();
    cancel(pair, key, count)?;
    let answered = started.elapsed();
    let started = Instant::now();
    pair.run(1)?;
    until_ended(pair, key)?;
    let ended = answered + started.elapsed();
    pair.stop()?;
    Ok(Times { answered, ended })
}

/// Cancels; none of the tasks must have ended before.
fn cancel(pair: &Pair, key: &str, count: usize) -> Result<()> {
    let within = PATIENCE + Duration::from_secs(WAITED);
    let said = pair.command(&["cancel", "--key", key, "--json"], within)?;
    let answer: Value = serde_json::from_str(&said)?;
    let all = answer["cancelled"].as_u64().zip(answer["asked"].as_u64());
    let (cancelled, asked) = all.context("the answer has no counts")?;
    ensure!(cancelled + asked == count as u64, "of {count} tasks: {answer}");
    Ok(())
}

/// Waits for all outcomes, each of which is `cancelled`.
fn until_ended(pair: &Pair, key: &str) -> Result<()> {
    let waited = pair.world.service_within(&["wait", "--key", key, "--json"], PATIENCE)?;
    let progress = waited.json()?;
    let states = progress["states"].as_object().context("the answer has no states")?;
    ensure!(states.keys().eq(["cancelled"]), "not all are cancelled: {progress}");
    Ok(())
}
