//! Very many endpoints on one service and one broker, each a daemon of its own:
//! what the service spends on them while nothing happens, what each keeps in memory,
//! and that a task to any of them still comes back.

use super::Bench;
use super::latency::ms;
use crate::api::Api;
use crate::proc::{Threads, own_memory};
use crate::report::{Row, Side};
use crate::stats::{mean, quantile};
use anyhow::{Result, ensure};
use clutch_tests::process::Daemon;
use clutch_tests::world::{Endpoint, SOON, World};
use serde_json::json;
use std::time::{Duration, Instant};

/// How much of a core the service may use while nothing happens, in percent.
const BAR: f64 = 2.0;
/// How many endpoints start at the same time.
const AT_ONCE: usize = 20;
/// How many endpoints get a task, spread over all.
const ASKED: usize = 100;

/// Endpoints that run.
struct Fleet {
    endpoints: Vec<Endpoint>,
    daemons: Vec<Daemon>,
    /// How long each took to provision, and each group to start, for each of it.
    provisioning: Vec<Duration>,
    starting: Vec<Duration>,
}

/// The row `endpoints`.
///
/// # Errors
/// When the broker or a program cannot be used.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let (count, window) = (bench.scale.endpoints, bench.scale.window);
    let about = format!(
        "{count} endpoints, each `clutch-endpoint run` with its defaults, on one service and one \
         broker, {} s without a task",
        window.as_secs()
    );
    let mut row = Row::new("endpoints", about);
    let world = World::on(bench.broker()?)?;
    let service = world.serve()?;
    let fleet = Fleet::start(&world, count)?;
    tokio::time::sleep(bench.scale.settling).await;
    let shares = idle(&service, &fleet, window).await?;
    let answers = ask(&world, &fleet).await?;
    let mut pss = Vec::with_capacity(count);
    let mut rss = Vec::with_capacity(count);
    for daemon in &fleet.daemons {
        pss.push(own_memory(daemon.pid())? as f64 / 1e6);
        rss.push(daemon.memory()? as f64 / 1e6);
    }
    let [of_service, of_each, wakes] = shares;
    row.hold("service, CPU", "% of a core", &[of_service], (Side::AtMost, BAR));
    row.add("service, wake-ups", "wake-ups/s", &[wakes]);
    row.add("service, resident memory", "MB", &[service.memory()? as f64 / 1e6]);
    row.add("endpoint, CPU, mean", "% of a core", &[of_each]);
    row.add("endpoint, memory, shared pages by share", "MB", &pss);
    row.add("endpoint, resident memory", "MB", &rss);
    row.add("endpoints together, shared pages once", "MB", &[mean(&pss) * count as f64]);
    row.add("`clutch-service provision`", "ms", &ms(&fleet.provisioning));
    row.add(&format!("a start, {AT_ONCE} at a time"), "ms", &ms(&fleet.starting));
    row.add("a task to one of them, p50", "ms", &[quantile(&ms(&answers), 0.5)]);
    row.add("a task to one of them, the longest", "ms", &[quantile(&ms(&answers), 1.0)]);
    Ok(row)
}

impl Fleet {
    /// Provisions and starts them, some at a time.
    fn start(world: &World, count: usize) -> Result<Self> {
        let mut fleet = Self {
            endpoints: Vec::with_capacity(count),
            daemons: Vec::with_capacity(count),
            provisioning: Vec::with_capacity(count),
            starting: Vec::new(),
        };
        for number in 0..count {
            let started = Instant::now();
            fleet.endpoints.push(world.provision(&format!("n{number}"))?);
            fleet.provisioning.push(started.elapsed());
        }
        for some in fleet.endpoints.chunks(AT_ONCE) {
            let started = Instant::now();
            let launched: Result<Vec<_>> =
                some.iter().map(|endpoint| world.launch(endpoint, &[])).collect();
            for mut daemon in launched? {
                daemon.wait_for("engaged", SOON)?;
                fleet.daemons.push(daemon);
            }
            fleet.starting.push(started.elapsed() / u32::try_from(some.len())?);
        }
        Ok(fleet)
    }
}

/// The share of a core that the service uses, the mean share of an endpoint, and
/// how often the service wakes in a second.
async fn idle(service: &Daemon, fleet: &Fleet, window: Duration) -> Result<[f64; 3]> {
    let of_all = || fleet.daemons.iter().map(Daemon::cpu_time).sum::<Result<Duration>>();
    let (before, all_before) = (Threads::of(service.pid())?, of_all()?);
    let started = Instant::now();
    tokio::time::sleep(window).await;
    let seconds = started.elapsed().as_secs_f64();
    let activity = Threads::of(service.pid())?.since(&before, "");
    let together = of_all()?.saturating_sub(all_before);
    let percent = |ran: Duration| ran.as_secs_f64() / seconds * 100.0;
    let each = percent(together) / fleet.daemons.len().max(1) as f64;
    Ok([percent(activity.ran), each, activity.wakes as f64 / seconds])
}

/// Gives a task to some of them, one after the other, and says how long each took.
async fn ask(world: &World, fleet: &Fleet) -> Result<Vec<Duration>> {
    let mut api = Api::connect(&world.folder().join("service/clutch.sock")).await?;
    let step = (fleet.endpoints.len() / ASKED).max(1);
    let mut times = Vec::new();
    for Endpoint { name, .. } in fleet.endpoints.iter().step_by(step) {
        let request = json!({
            "endpoint": name, "key": format!("to {name}"), "total": 1, "first": 0,
            "wait_ms": 60_000,
            "tasks": [{"call": {"function": "clutch.echo", "args": [name]}}],
        });
        let started = Instant::now();
        let answer = api.post("/v1/tasks", &request).await?;
        times.push(started.elapsed());
        ensure!(answer["progress"]["succeeded"] == 1, "the task to {name}: {answer}");
    }
    Ok(times)
}
