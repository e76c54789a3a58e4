//! The cost of placing a task of a topic while very many wait, beside the same with few: with
//! very many members, each of which has one slot.
//!
//! The members are played ([`Played`]): a thousand daemons would be most of the cost. They hold
//! what they were given while tasks are submitted, so that all others wait, and then answer.

use super::Bench;
use super::submissions::{AT_ONCE, PATIENCE};
use crate::bare::Played;
use crate::report::{Row, Side};
use crate::stats::mean;
use anyhow::{Context as _, Result};
use clutch_common::id::EndpointId;
use clutch_tests::process::Daemon;
use clutch_tests::world::World;
use std::time::{Duration, Instant};

/// How much more a task may cost with many that wait than with few.
const BAR: f64 = 1.2;
/// The topic.
const TOPIC: &str = "bench";
/// How long the rate of a member takes to be forgotten, and its credit to be its slot.
const SETTLING: Duration = Duration::from_secs(2);

/// The time of each task, in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    /// Of the clock, from the moment the members answer until it was recorded.
    clock: f64,
    /// Of the processor, by the service.
    cpu: f64,
}

/// A service, and the members that are played.
struct Stage {
    world: World,
    service: Daemon,
    played: Played,
    members: usize,
}

/// The row `placing`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let (small, large, members) = (bench.scale.small, bench.scale.deep, bench.scale.endpoints);
    let about = format!(
        "no-op calls of a topic with {members} members of one slot, which are played: {large} that \
         wait, beside {} rounds of {small} before and after; from the moment the members answer \
         until all are recorded; all folders are on {}",
        bench.scale.small_rounds,
        bench.file_system()?
    );
    let mut row = Row::new("placing", about);
    let mut stage = Stage::start(bench, members).await?;
    stage.once("warm", small).await?;
    let (mut few, mut many) = (Vec::new(), Vec::new());
    let mut ratios = [Vec::new(), Vec::new()];
    let mut before = stage.rounds(bench, 0).await?;
    few.push(before);
    for repetition in 0..bench.scale.deep_rounds {
        let cost = stage.once(&format!("d{repetition}"), large).await?;
        let after = stage.rounds(bench, repetition + 1).await?;
        ratios[0].push(cost.cpu / mean(&[before.cpu, after.cpu]));
        ratios[1].push(cost.clock / mean(&[before.clock, after.clock]));
        many.push(cost);
        few.push(after);
        before = after;
    }
    stage.played.finish().await?;
    for (count, costs) in [(small, &few), (large, &many)] {
        let of = |part: fn(&Cost) -> f64| costs.iter().map(part).collect::<Vec<f64>>();
        row.add(&format!("each of {count}"), "µs", &of(|cost| cost.clock));
        row.add(&format!("service, CPU time of each of {count}"), "µs", &of(|cost| cost.cpu));
    }
    let [cpu, clock] = ratios;
    row.hold(&format!("CPU time, {large} to {small}"), "ratio", &cpu, (Side::AtMost, BAR));
    row.hold(&format!("time, {large} to {small}"), "ratio", &clock, (Side::AtMost, BAR));
    Ok(row)
}

impl Stage {
    async fn start(bench: &Bench, members: usize) -> Result<Self> {
        let world = World::on(bench.broker()?)?;
        let mut endpoints: Vec<EndpointId> = Vec::with_capacity(members);
        for number in 0..members {
            let endpoint = world.provision_with(&format!("m{number}"), &["--topic", TOPIC])?;
            let id = endpoint.id.parse().map_err(|error| anyhow::anyhow!("{error}"));
            endpoints.push(id.context("the id of an endpoint")?);
        }
        let service = world.serve()?;
        let played = Played::start(&world.broker(), TOPIC, &endpoints).await?;
        let all = members.to_string();
        let wait = ["wait-for-workers", TOPIC, "-n", &all, "--timeout", "100s"];
        world.service(&wait)?.ok().context("waiting for the members that are played")?;
        Ok(Self { world, service, played, members })
    }

    /// The average cost of a task in several small rounds: their processor time is too short to
    /// be told of each.
    async fn rounds(&mut self, bench: &Bench, series: usize) -> Result<Cost> {
        let mut costs = Vec::with_capacity(bench.scale.small_rounds);
        for number in 0..bench.scale.small_rounds {
            costs.push(self.once(&format!("s{series}.{number}"), bench.scale.small).await?);
        }
        let of = |part: fn(&Cost) -> f64| mean(&costs.iter().map(part).collect::<Vec<_>>());
        Ok(Cost { clock: of(|cost| cost.clock), cpu: of(|cost| cost.cpu) })
    }

    /// Has so many tasks wait behind those that the members hold, and then answers all.
    async fn once(&mut self, key: &str, waiting: usize) -> Result<Cost> {
        tokio::time::sleep(SETTLING).await;
        let count = waiting + self.members;
        let mut keys = Vec::new();
        for first in (0..count).step_by(AT_ONCE) {
            let key = format!("{key}.{first}");
            self.submit(&key, AT_ONCE.min(count - first)).await?;
            keys.push(key);
        }
        self.played.hold(self.members).await?;
        let before = self.service.cpu_time()?;
        let started = Instant::now();
        self.played.answer(count).await?;
        for key in &keys {
            self.world.service_within(&["wait", "--key", key], PATIENCE)?.ok()?;
        }
        let each = |took: Duration| took.as_secs_f64() * 1e6 / count as f64;
        let (clock, cpu) = (started.elapsed(), self.service.cpu_time()? - before);
        Ok(Cost { clock: each(clock), cpu: each(cpu) })
    }

    /// Submits no-op calls, while members take what they are given.
    async fn submit(&mut self, key: &str, count: usize) -> Result<()> {
        let array = format!("1-{count}");
        let begin = ["submit", "--topic", TOPIC, "--key", key, "--array", &array];
        let call = ["--call", "clutch.echo", "--json-arg", "{}"];
        let command = self.world.service_command(&[&begin[..], &call].concat());
        let submitting = tokio::task::spawn_blocking(move || {
            clutch_tests::process::run(command, b"", PATIENCE)?.ok().map(drop)
        });
        self.played.hold_while(submitting).await??
    }
}
