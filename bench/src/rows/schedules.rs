//! Very many schedules that are due at one moment, and a lone one: how late the records of their
//! instants are, beside a bare timer, and beside as many tasks that are submitted at once.

use super::Bench;
use super::submissions::{PATIENCE, submit, wait};
use crate::api::Api;
use crate::pair::{NAME, Pair};
use crate::report::{Row, Side};
use crate::stats::quantile;
use anyhow::{Context as _, Result, ensure};
use clutch_common::system::clock::now_ms;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The 99th percentile of the lateness of a burst, and of a lone schedule, in milliseconds.
const BARS: (f64, f64) = (1000.0, 20.0);
/// How many schedules are added by a request.
const REQUEST: usize = 1000;
/// How long adding each thousand may take until the first moment, in milliseconds.
const ADDING: u64 = 1500;
/// How many records a schedule is shown with.
const SHOWN: usize = 20;
/// Between two instants of the lone schedule, in milliseconds.
const BEAT: u64 = 1000;
/// Between two looks whether all tasks have ended, in milliseconds.
const LOOK: u64 = 500;
/// How many tasks run at once.
const SLOTS: usize = 8;

/// The row `schedules`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let (count, beats) = (bench.scale.schedules, bench.scale.beats);
    let about = format!(
        "{count} schedules of a no-op call that are due at one moment, and one that has {beats} \
         instants, one each second: from the moment until the transaction that records the task \
         begins (lateness), and until the endpoint is done with it; all folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("schedules", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS)?;
    let mut api = pair.api().await?;
    let (lone, timer) = lone(&mut api, beats).await?;
    let mut series: [Vec<f64>; 6] = Default::default();
    for repetition in 0..bench.scale.repetitions.min(3) {
        let burst = burst(&mut api, repetition, count).await?;
        let started = Instant::now();
        submit(&pair, &format!("k{repetition}"), count, false)?;
        let submitted = started.elapsed().as_secs_f64() * 1e3;
        let late = |quantity| quantile(&burst.late, quantity);
        let started = quantile(&burst.started, 0.99);
        let figures = [late(0.5), late(0.99), late(1.0), started, burst.ended, submitted];
        figures.into_iter().zip(&mut series).for_each(|(figure, series)| series.push(figure));
        wait(&pair, &format!("k{repetition}"))?;
    }
    pair.stop()?;
    let [middle, most, last, started, ended, submitted] = series;
    row.add("a burst, lateness p50", "ms", &middle);
    row.hold("a burst, lateness p99", "ms", &most, (Side::AtMost, BARS.0));
    row.add("a burst, lateness of the last", "ms", &last);
    row.add("a burst, until its tasks end at the endpoint, p99", "ms", &started);
    row.add("a burst, until all have ended", "ms", &ended);
    row.add("as many tasks of one submission, until they are recorded", "ms", &submitted);
    let late: Vec<f64> = lone.iter().map(|beat| beat.late).collect();
    let started: Vec<f64> = lone.iter().map(|beat| beat.started).collect();
    row.add("a lone one, lateness p50", "ms", &[quantile(&late, 0.5)]);
    row.hold("a lone one, lateness p99", "ms", &[quantile(&late, 0.99)], (Side::AtMost, BARS.1));
    row.add(
        "a lone one, until its task ends at the endpoint, p99",
        "ms",
        &[quantile(&started, 0.99)],
    );
    row.add("a bare timer beside it, lateness p99", "ms", &[quantile(&timer, 0.99)]);
    Ok(row)
}

/// A schedule of a no-op call.
fn schedule(name: &str, rule: &Value) -> Value {
    let task = json!({ "call": { "function": "clutch.echo", "args": [name] } });
    json!({ "name": name, "spec": { "endpoint": NAME, "rule": rule, "task": task } })
}

/// Adds schedules in the name of an owner.
async fn add(api: &mut Api, owner: &str, schedules: &[Value]) -> Result<()> {
    for some in schedules.chunks(REQUEST) {
        let set = json!({ "owner": owner, "schedules": some });
        api.post("/v1/schedules", &set).await?;
    }
    Ok(())
}

async fn sleep_until(at_ms: u64) {
    tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(now_ms()))).await;
}

/// The lateness of many schedules that are due at one moment.
struct Burst {
    /// Of each, in milliseconds.
    late: Vec<f64>,
    /// From the moment until each task has run, in milliseconds.
    started: Vec<f64>,
    /// From the moment until all their tasks have ended, in milliseconds.
    ended: f64,
}

async fn burst(api: &mut Api, repetition: usize, count: usize) -> Result<Burst> {
    let owner = format!("burst-{repetition}");
    let name = |number: usize| format!("{owner}-{number}");
    let due_ms = now_ms() + 5000 + ADDING * (count / REQUEST) as u64;
    let rule = json!({
        "recurrence": { "every_ms": 86_400_000 }, "from_ms": due_ms, "max_runs": 1,
    });
    let all: Vec<Value> = (0..count).map(|number| schedule(&name(number), &rule)).collect();
    add(api, &owner, &all).await?;
    // They are looked at once when they are added.
    ensure!(now_ms() + 2000 < due_ms, "{count} schedules could not be added in time");
    sleep_until(due_ms + LOOK).await;
    until_ended(api, &owner, 1).await?;
    let ended = now_ms().saturating_sub(due_ms) as f64;
    let mut beats = Vec::with_capacity(count);
    for number in 0..count {
        for (instant_ms, made) in made(api, &name(number)).await? {
            beats.push(beat(api, instant_ms, &made).await?);
        }
    }
    ensure!(beats.len() == count, "{} of {count} schedules have made a task", beats.len());
    let late = beats.iter().map(|beat| beat.late).collect();
    let started = beats.iter().map(|beat| beat.started).collect();
    Ok(Burst { late, started, ended })
}

/// Waits until every schedule of an owner has made so many tasks, and those have ended. A page is
/// asked for again only while it has one that has not.
async fn until_ended(api: &mut Api, owner: &str, tasks: usize) -> Result<()> {
    let (started, mut after) = (Instant::now(), String::new());
    loop {
        let page = api.get(&format!("/v1/schedules?owner={owner}&after={after}")).await?;
        let schedules = page["schedules"].as_array().context("a page without schedules")?;
        let ended = |one: &Value| one["tasks"] == tasks && one["running"] == 0;
        if !schedules.iter().all(ended) {
            ensure!(started.elapsed() < PATIENCE, "tasks of schedules do not end");
            tokio::time::sleep(Duration::from_millis(LOOK)).await;
            continue;
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(()),
        }
    }
}

/// A task that was made, and how late it was recorded, in milliseconds.
struct Made {
    task: String,
    late: f64,
}

/// The tasks of the last instants of a schedule.
async fn made(api: &mut Api, name: &str) -> Result<BTreeMap<i64, Made>> {
    let shown = api.get(&format!("/v1/schedules/{name}")).await?;
    let all = shown["occurrences"].as_array().context("it is shown without records")?;
    let made = |one: &Value| {
        let made = Made { task: one["task"].as_str()?.to_owned(), late: one["late_ms"].as_f64()? };
        Some((one["instant_ms"].as_i64()?, made))
    };
    Ok(all.iter().filter_map(made).collect())
}

/// How late an instant was recorded, and its task ended at the endpoint, in milliseconds.
struct Beat {
    late: f64,
    started: f64,
}

/// The lateness of an instant with a task that has ended.
async fn beat(api: &mut Api, instant_ms: i64, made: &Made) -> Result<Beat> {
    let task = api.get(&format!("/v1/tasks/{}", made.task)).await?;
    let started = task["results"][0]["ended_at_ms"].as_f64();
    let started = started.with_context(|| format!("a task without a result: {task}"))?;
    Ok(Beat { late: made.late, started: started - instant_ms as f64 })
}

/// How late the instants of a lone schedule were, and a bare timer between them, in milliseconds.
async fn lone(api: &mut Api, beats: usize) -> Result<(Vec<Beat>, Vec<f64>)> {
    let first_ms = (now_ms() / BEAT + 3) * BEAT;
    let last_ms = first_ms + (beats.saturating_sub(1) as u64) * BEAT;
    let rule = json!({
        "recurrence": { "every_ms": BEAT }, "from_ms": first_ms, "until_ms": last_ms,
    });
    let mut lone = schedule("lone", &rule);
    lone["spec"]["policy"] = json!({ "overlap": "allow" });
    add(api, "lone", &[lone]).await?;
    let (mut all, mut timer) = (BTreeMap::new(), Vec::with_capacity(beats));
    for number in 0..beats {
        let at_ms = first_ms + number as u64 * BEAT + BEAT / 2;
        sleep_until(at_ms).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        timer.push(now.as_secs_f64() * 1e3 - at_ms as f64);
        if number % (SHOWN / 2) == 0 || number + 1 == beats {
            all.extend(made(api, "lone").await?);
        }
    }
    ensure!(all.len() == beats, "{} of {beats} instants of the lone one are known", all.len());
    until_ended(api, "lone", beats).await?;
    let mut lone = Vec::with_capacity(beats);
    for (instant_ms, made) in &all {
        lone.push(beat(api, *instant_ms, made).await?);
    }
    Ok((lone, timer))
}
