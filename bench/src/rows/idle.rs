//! How often the daemons wake while there is nothing to do, beside a program that
//! keeps two bare connections to the same broker and does nothing else.
//!
//! Only heartbeats may wake either daemon: each of its two connections sends one
//! every [`HEARTBEAT`] / 2, and the broker sends as many. Nothing else is due: the
//! service looks at its records when there is news, presence is told when a link
//! comes up.

use super::Bench;
use crate::bare::Bare;
use crate::pair::Pair;
use crate::proc::{Activity, Threads};
use crate::report::{Row, Side};
use anyhow::{Context as _, Result};
use clutch_tests::process::Daemon;
use std::time::Duration;

/// The heartbeat of every connection here, in seconds: what provisioning chooses
/// by default.
const HEARTBEAT: u64 = 10;
/// How many more wake-ups a daemon may have than two bare connections.
const BAR: f64 = 1.25;

/// The row `idle`.
pub(super) async fn measure(bench: &Bench) -> Result<Row> {
    let (settling, window) = (bench.scale.settling, bench.scale.idle);
    let about = format!(
        "service and endpoint for {} s without a task: how often their threads wake, beside two \
         bare connections with the same heartbeat ({HEARTBEAT} s: each connection sends and gets \
         one every {} s)",
        window.as_secs(),
        HEARTBEAT / 2
    );
    let mut row = Row::new("idle", about);
    let mut pair = Pair::provision(bench.broker()?, "")?;
    pair.serve()?;
    pair.run(2)?;
    let vhost = bench.broker()?.vhost()?;
    let bare = Bare::start(&format!("{}?heartbeat={HEARTBEAT}", vhost.url())).await?;
    let pid = |daemon: &Option<Daemon>| daemon.as_ref().map(Daemon::pid).context("it ended");
    let pids = [pid(&pair.daemon)?, pid(&pair.service)?, bare.far_pid()];
    tokio::time::sleep(settling).await;
    let mut series: [Vec<f64>; 8] = Default::default();
    for _ in 0..bench.scale.repetitions {
        let before = all(pids)?;
        tokio::time::sleep(window).await;
        let figures = figures(&before, &all(pids)?, window);
        for (figure, series) in figures.into_iter().zip(&mut series) {
            series.push(figure);
        }
    }
    bare.finish().await?;
    pair.stop()?;
    let [endpoint, service, bare, endpoint_cpu, service_cpu, bare_cpu, endpoint_to, service_to] =
        series;
    row.add("clutch-endpoint run", "wake-ups/s", &endpoint);
    row.add("clutch-service serve", "wake-ups/s", &service);
    row.add("two bare connections, by lapin", "wake-ups/s", &bare);
    row.add("clutch-endpoint run, CPU time", "µs/s", &endpoint_cpu);
    row.add("clutch-service serve, CPU time", "µs/s", &service_cpu);
    row.add("two bare connections, CPU time", "µs/s", &bare_cpu);
    row.hold("endpoint to bare connections", "ratio", &endpoint_to, (Side::AtMost, BAR));
    row.hold("service to bare connections", "ratio", &service_to, (Side::AtMost, BAR));
    Ok(row)
}

fn all(pids: [u32; 3]) -> Result<[Threads; 3]> {
    let [endpoint, service, bare] = pids;
    Ok([Threads::of(endpoint)?, Threads::of(service)?, Threads::of(bare)?])
}

fn figures(before: &[Threads; 3], after: &[Threads; 3], window: Duration) -> [f64; 8] {
    let wakes = |activity: Activity| activity.wakes as f64 / window.as_secs_f64();
    let ran = |activity: Activity| activity.ran.as_secs_f64() * 1e6 / window.as_secs_f64();
    let [endpoint, service, bare] = [0, 1, 2].map(|who: usize| after[who].since(&before[who]));
    [
        wakes(endpoint),
        wakes(service),
        wakes(bare),
        ran(endpoint),
        ran(service),
        ran(bare),
        wakes(endpoint) / wakes(bare),
        wakes(service) / wakes(bare),
    ]
}
