//! Faults that the broker's operator makes: to channels, connections, queues,
//! exchanges and bindings. Nothing of it makes a task run twice.

use super::stage::{Site, Stage};
use super::{Play, Row, Seen};
use crate::gate::Gate;
use crate::poll;
use crate::world::SOON;
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "channel-closed",
        "the broker closes the channel that tasks come on: it got an acknowledgement of a \
         delivery that never was",
        Play::Beside(channel_closed),
    )
    .since("the fault"),
    Row::new(
        "connection-closed",
        "every connection is closed through the management API, the service's too",
        Play::Beside(connection_closed),
    )
    .since("the fault"),
    Row::new(
        "task-queue-deleted",
        "the task queue is deleted while the endpoint works on what it has accepted, and \
         provisioned again after 3 s",
        Play::Beside(task_queue_deleted),
    )
    .within(90)
    .since("the queue being back"),
    Row::new(
        "results-exchange-missing",
        "the exchange of results is deleted, and provisioned again after 6 s",
        Play::Beside(results_exchange_missing),
    )
    .within(90),
    Row::new(
        "results-binding-missing",
        "the binding of the results queue is removed, and provisioned again after 6 s",
        Play::Beside(results_binding_missing),
    )
    .within(90),
    Row::new(
        "results-queue-full",
        "the results queue takes 20 messages and rejects the rest while the service is down",
        Play::Beside(results_queue_full),
    )
    .within(60),
];

/// A stage on which tasks are recorded and more are coming.
fn half_way(site: &Site) -> Result<Stage> {
    let mut stage = site.stage()?;
    stage.submit(6000, "")?;
    stage.until_recorded(500)?;
    Ok(stage)
}

fn channel_closed(site: &Site) -> Result<Seen> {
    let mut stage = half_way(site)?;
    stage.proxy.forge_acknowledgement();
    let fault = stage.until_disengaged()?["fault"].to_string();
    let at = Instant::now();
    // Deliveries that come late for the closed channel may be what is told.
    let told = ["unknown delivery tag", "invalid channel"].iter().any(|word| fault.contains(word));
    ensure!(told, "the endpoint was told {fault}");
    ensure!(stage.proxy.forged() == 1, "nothing was forged");
    stage.until_engaged()?;
    let recovery = at.elapsed();
    Ok(stage.seen()?.recovered_in(recovery))
}

fn connection_closed(site: &Site) -> Result<Seen> {
    let mut stage = half_way(site)?;
    let fault = poll::until("the link to be lost", SOON, || {
        // The API learns of a connection only after a while.
        stage.world.vhost().close_connections()?;
        stage.daemon.next("disengaged")
    })?;
    let at = Instant::now();
    ensure!(fault["fault"].to_string().contains("management"), "it was told {fault}");
    stage.until_engaged()?;
    let recovery = stage.recovery(at)?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn task_queue_deleted(site: &Site) -> Result<Seen> {
    let mut stage = site.stage()?;
    let gate = Gate::new(stage.world.folder(), "deleted");
    stage.submit(400, &gate.line())?;
    let queue = stage.tasks_queue();
    stage.until_taken_in()?;
    stage.world.vhost().delete(&queue)?;
    let fault = stage.until_disengaged()?["fault"].to_string();
    ensure!(fault.contains("cancelled"), "the endpoint was told {fault}");
    poll::pause(Duration::from_secs(3));
    stage.provision_again(site)?;
    let back = Instant::now();
    gate.open()?;
    stage.submit(400, "")?;
    stage.until_engaged()?;
    let recovery = stage.recovery(back)?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn results_exchange_missing(site: &Site) -> Result<Seen> {
    let stage = half_way(site)?;
    stage.world.vhost().delete_exchange("results")?;
    results_go_nowhere(stage, site, "no exchange")
}

fn results_binding_missing(site: &Site) -> Result<Seen> {
    let stage = half_way(site)?;
    stage.world.vhost().unbind("results", "results", "*.results")?;
    results_go_nowhere(stage, site, "no queue takes results")
}

fn results_go_nowhere(mut stage: Stage, site: &Site, words: &str) -> Result<Seen> {
    let fault = stage.until_disengaged()?["fault"].to_string();
    ensure!(fault.contains(words), "the endpoint was told {fault}");
    poll::pause(Duration::from_secs(6));
    stage.provision_again(site)?;
    let recovery = stage.back(Instant::now())?;
    Ok(stage.seen()?.recovered_in(recovery))
}

fn results_queue_full(site: &Site) -> Result<Seen> {
    let mut stage = half_way(site)?;
    let full = json!({ "max-length": 20, "overflow": "reject-publish" });
    stage.world.vhost().policy("full", "^results$", &full)?;
    stage.service.kill()?;
    let fault = stage.until_disengaged()?["fault"].to_string();
    ensure!(fault.contains("the results queue is full"), "the endpoint was told {fault}");
    poll::pause(Duration::from_secs(6));
    stage.world.vhost().delete_policy("full")?;
    let end = Instant::now();
    stage.service = stage.world.serve()?;
    // What was in the queue is recorded first.
    stage.until_engaged()?;
    let recovery = end.elapsed();
    Ok(stage.seen()?.recovered_in(recovery))
}
