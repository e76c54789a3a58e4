//! Very many endpoints on one service and one broker, each a daemon of its own:
//! what the service spends on them while nothing happens, what each keeps in memory,
//! and that a task to any of them still comes back.

use super::Bench;
use super::latency::ms;
use crate::api::Api;
use crate::proc::{Activity, Threads, own_memory};
use crate::report::{Row, Side};
use crate::stats::{mean, quantile};
use anyhow::Result;
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
    let idle = idle(&service, &fleet, window).await?;
    let answers = ask(&world, &fleet).await?;
    let mut pss = Vec::with_capacity(count);
    let mut rss = Vec::with_capacity(count);
    for daemon in &fleet.daemons {
        pss.push(own_memory(daemon.pid())? as f64 / 1e6);
        rss.push(daemon.memory()? as f64 / 1e6);
    }
    row.hold("service, CPU", "% of a core", &[idle.service], (Side::AtMost, BAR));
    row.add("service, wake-ups", "wake-ups/s", &[idle.service_wakes]);
    row.add("service, resident memory", "MB", &[service.memory()? as f64 / 1e6]);
    row.add("endpoint, CPU, mean", "% of a core", &[idle.endpoint]);
    row.add("endpoint, wake-ups, mean", "wake-ups/s", &[idle.endpoint_wakes]);
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

/// The work of service and endpoints while nothing happened.
struct Idle {
    /// Shares of a core, in percent.
    service: f64,
    endpoint: f64,
    /// Wake-ups in a second.
    service_wakes: f64,
    endpoint_wakes: f64,
}

async fn idle(service: &Daemon, fleet: &Fleet, window: Duration) -> Result<Idle> {
    let all = || -> Result<Vec<Threads>> {
        fleet.daemons.iter().map(|daemon| Threads::of(daemon.pid())).collect()
    };
    let (before, all_before) = (Threads::of(service.pid())?, all()?);
    let started = Instant::now();
    tokio::time::sleep(window).await;
    let seconds = started.elapsed().as_secs_f64();
    let of_service = Threads::of(service.pid())?.since(&before);
    let all = all()?;
    let of_each: Vec<Activity> =
        all.iter().zip(&all_before).map(|(after, before)| after.since(before)).collect();
    let percent = |activity: &Activity| activity.ran.as_secs_f64() / seconds * 100.0;
    let wakes = |activity: &Activity| activity.wakes as f64 / seconds;
    let of_endpoints =
        |part: &dyn Fn(&Activity) -> f64| mean(&of_each.iter().map(part).collect::<Vec<_>>());
    Ok(Idle {
        service: percent(&of_service),
        endpoint: of_endpoints(&percent),
        service_wakes: wakes(&of_service),
        endpoint_wakes: of_endpoints(&wakes),
    })
}

/// Gives a task to some of them, one after the other, and says how long each took.
async fn ask(world: &World, fleet: &Fleet) -> Result<Vec<Duration>> {
    let mut api = Api::connect(&world.folder().join("service/clutch.sock")).await?;
    let step = (fleet.endpoints.len() / ASKED).max(1);
    let mut times = Vec::new();
    for Endpoint { name, .. } in fleet.endpoints.iter().step_by(step) {
        times.push(api.echo(name, &format!("to {name}"), &json!(name)).await?);
    }
    Ok(times)
}
