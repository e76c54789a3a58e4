//! Messages between running tasks, until a process of the other one has taken them: at one
//! endpoint, and at two, beside a bare loop over the broker.

use super::Bench;
use super::answers::without_us;
use super::latency::ms;
use crate::correspondent::CHORE;
use crate::report::{Row, Side};
use crate::stats::quantile;
use anyhow::{Context as _, Result};
use clutch_tests::poll;
use clutch_tests::process::Daemon;
use clutch_tests::world::{SOON, World};
use serde_json::Value;
use std::time::Duration;

/// The limit of the median at one endpoint, in milliseconds.
const HERE: f64 = 0.5;
/// The limit of the median at two, relative to the bare loop's.
const ACROSS: f64 = 4.0;
/// The rate to reach through one service, in messages per second.
const RATE: f64 = 1000.0;
/// How much more memory the service may use at the end of that than after a sixth of it.
const GROWTH: f64 = 1.1;
/// How many messages are under way at once for it.
const AT_ONCE: usize = 32;
/// More than are sent.
const UNBOUNDED: usize = 1_000_000_000;

/// Two endpoints and a service.
struct Sites {
    world: World,
    service: Daemon,
    _endpoints: [Daemon; 2],
}

/// The figures of a sender.
struct Sent {
    rate: f64,
    p50: f64,
    p99: f64,
}

/// The row `messages`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let (count, window) = (bench.scale.sequential, bench.scale.window);
    let about = format!(
        "{count} messages of 200 bytes, one at a time, from a task to another one, until a process \
         of it has acknowledged them; then {AT_ONCE} at a time for {} s through one service",
        window.as_secs()
    );
    let mut row = Row::new("messages", about);
    let sites = Sites::start(bench)?;
    let mut series: [Vec<f64>; 6] = Default::default();
    for repetition in 0..bench.scale.repetitions {
        let bare = quantile(&ms(&without_us(bench, count).await?), 0.5);
        let here = sites.send(("here", repetition), ["a", "a"], (1, count, SOON))?;
        let across = sites.send(("across", repetition), ["a", "b"], (1, count, SOON))?;
        let figures = [here.p50, here.p99, across.p50, across.p99, bare, across.p50 / bare];
        figures.into_iter().zip(&mut series).for_each(|(figure, series)| series.push(figure));
    }
    let [here50, here99, across50, across99, bare, ratio] = series;
    row.hold("at one endpoint, p50", "ms", &here50, (Side::AtMost, HERE));
    row.add("at one endpoint, p99", "ms", &here99);
    row.add("at two, p50", "ms", &across50);
    row.add("at two, p99", "ms", &across99);
    row.add("the broker, a bare loop over lapin, p50", "ms", &bare);
    row.hold("at two to the bare loop, p50", "ratio", &ratio, (Side::AtMost, ACROSS));
    sites.send(("first", 0), ["a", "b"], (AT_ONCE, UNBOUNDED, window / 6))?;
    let before = sites.service.peak_memory()?;
    let many = sites.send(("many", 0), ["a", "b"], (AT_ONCE, UNBOUNDED, window))?;
    let growth = sites.service.peak_memory()? as f64 / before as f64;
    row.hold("through one service", "messages/s", &[many.rate], (Side::AtLeast, RATE));
    row.add("the service at its peak", "MB", &[before as f64 / 1e6]);
    row.hold("its growth in that time", "ratio", &[growth], (Side::AtMost, GROWTH));
    Ok(row)
}

impl Sites {
    fn start(bench: &Bench) -> Result<Self> {
        let world = World::on(bench.broker()?)?;
        let endpoints = ["a", "b"].map(|name| world.provision(name));
        let mut service = world.launch_service(&["--messages", "any"])?;
        service.wait_for("serving", SOON)?;
        let [a, b] = endpoints.map(|endpoint| {
            let endpoint = endpoint?;
            let file = std::fs::read_to_string(&endpoint.config)?;
            std::fs::write(&endpoint.config, file + "\n[messages]\nallow = \"any\"\n")?;
            world.run_with(&endpoint, &["--slots", "4"])
        });
        let endpoints = [a?, b?];
        Ok(Self { world, service, _endpoints: endpoints })
    }

    /// Has a task at one endpoint send to a task at another, or the same: so many senders, so many
    /// messages each, for so long at most.
    fn send(
        &self,
        (name, number): (&str, usize),
        [from, to]: [&str; 2],
        (senders, count, within): (usize, usize, Duration),
    ) -> Result<Sent> {
        let program = std::env::current_exe()?.display().to_string();
        let (listening, sending) = (format!("{name}{number}.to"), format!("{name}{number}.from"));
        let words = ["submit", to, "--key", &listening, "--json", "--", &program, CHORE, "listen"];
        let submitted = self.world.service(&words)?.ok()?.json()?;
        let target = submitted["ids"][0].as_str().context("a task without an id")?.to_owned();
        poll::until("the listener to run", SOON, || {
            let shown = self.world.service(&["show", &target, "--json"])?.ok()?.json()?;
            Ok((shown["state"] == "running").then_some(()))
        })?;
        let (senders, count) = (senders.to_string(), count.to_string());
        let seconds = within.as_secs().max(1).to_string();
        let words = ["submit", from, "--key", &sending, "--wait", "--", &program, CHORE, "send"];
        let options = ["--senders", &senders, "--count", &count, "--seconds", &seconds];
        let line = [&words[..], &[&target], &options[..]].concat();
        self.world.service_within(&line, within + SOON * 2)?.ok()?;
        let results = ["results", "--key", &sending, "--stdout-only"];
        let printed = self.world.service(&results)?.ok()?.text();
        let sent: Value = serde_json::from_str(printed.trim())?;
        let figure = |name: &str| sent[name].as_f64().with_context(|| format!("{name}: {sent}"));
        Ok(Sent { rate: figure("rate")?, p50: figure("p50")?, p99: figure("p99")? })
    }
}
