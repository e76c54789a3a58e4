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
         instants, one each second: from the moment to the transaction that records the task; all \
         folders are on {}",
        bench.file_system()?
    );
    let mut row = Row::new("schedules", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(SLOTS)?;
    let mut api = pair.api().await?;
    let (lone, timer) = lone(&mut api, beats).await?;
    let mut series: [Vec<f64>; 5] = Default::default();
    for repetition in 0..bench.scale.repetitions.min(3) {
        let burst = burst(&mut api, repetition, count).await?;
        let started = Instant::now();
        submit(&pair, &format!("k{repetition}"), count, false)?;
        let submitted = started.elapsed().as_secs_f64() * 1e3;
        let late = |quantity| quantile(&burst.late, quantity);
        let figures = [late(0.5), late(0.99), late(1.0), burst.ended, submitted];
        figures.into_iter().zip(&mut series).for_each(|(figure, series)| series.push(figure));
        wait(&pair, &format!("k{repetition}"))?;
    }
    pair.stop()?;
    let [middle, most, last, ended, submitted] = series;
    row.add("a burst, lateness p50", "ms", &middle);
    row.hold("a burst, lateness p99", "ms", &most, (Side::AtMost, BARS.0));
    row.add("a burst, lateness of the last", "ms", &last);
    row.add("a burst, until all have run", "ms", &ended);
    row.add("as many tasks of one submission, until they are recorded", "ms", &submitted);
    row.add("a lone one, lateness p50", "ms", &[quantile(&lone, 0.5)]);
    row.hold("a lone one, lateness p99", "ms", &[quantile(&lone, 0.99)], (Side::AtMost, BARS.1));
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
    until_ended(api, &owner).await?;
    let ended = now_ms().saturating_sub(due_ms) as f64;
    let mut late = Vec::with_capacity(count);
    for number in 0..count {
        late.extend(lateness(api, &name(number)).await?.into_values());
    }
    ensure!(late.len() == count, "{} of {count} schedules have made a task", late.len());
    Ok(Burst { late, ended })
}

/// Waits until every schedule of an owner has made its task, and that has ended. A page is asked
/// for again only while it has one that has not.
async fn until_ended(api: &mut Api, owner: &str) -> Result<()> {
    let (started, mut after) = (Instant::now(), String::new());
    loop {
        let page = api.get(&format!("/v1/schedules?owner={owner}&after={after}")).await?;
        let schedules = page["schedules"].as_array().context("a page without schedules")?;
        let ended = |one: &Value| one["tasks"] == 1 && one["running"] == 0;
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

/// How late each of the last instants of a schedule was, in milliseconds.
async fn lateness(api: &mut Api, name: &str) -> Result<BTreeMap<i64, f64>> {
    let shown = api.get(&format!("/v1/schedules/{name}")).await?;
    let all = shown["occurrences"].as_array().context("it is shown without records")?;
    let late = |one: &Value| Some((one["instant_ms"].as_i64()?, one["late_ms"].as_f64()?));
    Ok(all.iter().filter_map(late).collect())
}

/// How late the instants of a lone schedule were, and a bare timer between them, in milliseconds.
async fn lone(api: &mut Api, beats: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let first_ms = (now_ms() / BEAT + 3) * BEAT;
    let last_ms = first_ms + (beats.saturating_sub(1) as u64) * BEAT;
    let rule = json!({
        "recurrence": { "every_ms": BEAT }, "from_ms": first_ms, "until_ms": last_ms,
    });
    let mut lone = schedule("lone", &rule);
    lone["spec"]["policy"] = json!({ "overlap": "allow" });
    add(api, "lone", &[lone]).await?;
    let (mut late, mut timer) = (BTreeMap::new(), Vec::with_capacity(beats));
    for beat in 0..beats {
        let at_ms = first_ms + beat as u64 * BEAT + BEAT / 2;
        sleep_until(at_ms).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        timer.push(now.as_secs_f64() * 1e3 - at_ms as f64);
        if beat % (SHOWN / 2) == 0 || beat + 1 == beats {
            late.extend(lateness(api, "lone").await?);
        }
    }
    ensure!(late.len() == beats, "{} of {beats} instants of the lone one are known", late.len());
    Ok((late.into_values().collect(), timer))
}
