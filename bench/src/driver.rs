//! The near party: a service that submits tasks and collects their results.
//! Each task must come back exactly once.

use crate::site::{GROUP, Site, WINDOW, no_op};
use anyhow::{Context as _, Result, bail, ensure};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::link::{Connection, Delivery, Inlet, Outlet, Settlement, Tag, Ticket};
use clutch_common::wire::{self, ToService};
use futures_util::future::try_join_all;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Longer than anything takes that is not stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service of one site.
pub(crate) struct Driver<'a> {
    site: &'a Site,
    publishing: Box<dyn Connection>,
    consuming: Box<dyn Connection>,
    outlet: Box<dyn Outlet>,
    inlet: Box<dyn Inlet>,
    /// The last delivery that is not acknowledged.
    last: Option<Tag>,
}

impl<'a> Driver<'a> {
    /// Connects.
    pub(crate) async fn start(site: &'a Site) -> Result<Self> {
        let publishing = site.connect("submit").await?;
        let consuming = site.connect("collect").await?;
        Ok(Self {
            site,
            outlet: publishing.outlet().await?,
            inlet: site.results(consuming.as_ref()).await?,
            publishing,
            consuming,
            last: None,
        })
    }

    /// Sends `count` tasks, with up to `window` under way, until every one is
    /// confirmed and every result is here; all but the last group of results is
    /// acknowledged then. Returns how long each task was under way.
    pub(crate) async fn round_trips(
        &mut self,
        count: usize,
        window: usize,
    ) -> Result<Vec<Duration>> {
        let to = self.site.to_endpoint();
        let mut under_way: HashMap<TaskId, Instant> = HashMap::new();
        let mut times = Vec::with_capacity(count);
        let (mut sent, mut confirmed) = (0, 0);
        while confirmed < count || times.len() < count {
            if sent < count && under_way.len() < window {
                let (id, message) = no_op();
                under_way.insert(id, Instant::now());
                self.outlet.publish(&to, message).await?;
                sent += 1;
                continue;
            }
            tokio::select! {
                settled = self.outlet.settled(), if confirmed < sent => {
                    confirmed += all_confirmed(&settled?)?;
                }
                deliveries = self.inlet.receive(GROUP) => {
                    let deliveries = deliveries?;
                    take(self.site.endpoint, &deliveries, &mut under_way, &mut times)?;
                    self.last = deliveries.last().map(|delivery| delivery.tag);
                    if times.len() < count {
                        self.acknowledge().await?;
                    }
                }
                () = tokio::time::sleep(PATIENCE) => {
                    bail!("{} of {count} tasks came back, then none for a minute", times.len());
                }
            }
        }
        Ok(times)
    }

    /// Acknowledges what is not.
    pub(crate) async fn acknowledge(&mut self) -> Result<()> {
        if let Some(last) = self.last.take() {
            self.inlet.acknowledge(last).await?;
        }
        Ok(())
    }

    /// Sends one task without waiting for its result, and waits until it is confirmed.
    pub(crate) async fn send_one(&mut self) -> Result<()> {
        queue(self.site, self.outlet.as_mut(), 1).await
    }

    /// Disconnects.
    pub(crate) async fn close(self) {
        self.consuming.close().await;
        self.publishing.close().await;
    }
}

/// Takes results of tasks that are under way; those of other endpoints are an
/// earlier run's.
fn take(
    endpoint: EndpointId,
    deliveries: &[Delivery],
    under_way: &mut HashMap<TaskId, Instant>,
    times: &mut Vec<Duration>,
) -> Result<()> {
    for delivery in deliveries {
        // A daemon also tells that it is there.
        let ToService::Results(decoded) = wire::decode_to_service(&delivery.message.body) else {
            continue;
        };
        ensure!(decoded.unreadable.is_empty(), "unreadable: {:?}", decoded.unreadable);
        for result in decoded.results.iter().filter(|result| result.endpoint_id == endpoint) {
            let since = under_way.remove(&result.task_id);
            times.push(since.context("a result came twice, or for no task")?.elapsed());
        }
    }
    Ok(())
}

fn all_confirmed(settled: &[(Ticket, Settlement)]) -> Result<usize> {
    match settled.iter().find(|(_, settlement)| *settlement != Settlement::Confirmed) {
        Some((_, settlement)) => bail!("a task was not confirmed: {settlement:?}"),
        None => Ok(settled.len()),
    }
}

/// Queues `count` tasks, shared out over so many producers at once, each with a
/// window of its own, and waits until all are confirmed. Returns how long it
/// took, without the opening of the producers.
pub(crate) async fn fill(site: &Site, count: usize, producers: usize) -> Result<Duration> {
    let connection = site.connect("fill").await?;
    let mut outlets = Vec::new();
    for _ in 0..producers {
        outlets.push(connection.outlet().await?);
    }
    let started = Instant::now();
    let shares = outlets.iter_mut().enumerate().map(|(index, outlet)| {
        let share = (count + index) / producers;
        queue(site, outlet.as_mut(), share)
    });
    try_join_all(shares).await?;
    let took = started.elapsed();
    drop(outlets);
    connection.close().await;
    Ok(took)
}

async fn queue(site: &Site, outlet: &mut dyn Outlet, count: usize) -> Result<()> {
    let to = site.to_endpoint();
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < count {
        if sent < count && sent - confirmed < WINDOW {
            outlet.publish(&to, no_op().1).await?;
            sent += 1;
            continue;
        }
        let settled = tokio::time::timeout(PATIENCE, outlet.settled()).await;
        confirmed += all_confirmed(&settled.context("no confirm came for a minute")??)?;
    }
    Ok(())
}

/// Takes `count` tasks from the queue as the endpoint does, and acknowledges
/// them in groups. Returns how long it took, without the opening of the
/// consumer.
pub(crate) async fn drain(site: &Site, count: usize) -> Result<Duration> {
    let connection = site.connect("drain").await?;
    let mut inlet = site.tasks(connection.as_ref()).await?;
    let started = Instant::now();
    let mut taken = 0;
    while taken < count {
        let deliveries = tokio::time::timeout(PATIENCE, inlet.receive(GROUP)).await;
        let deliveries = deliveries
            .with_context(|| format!("{taken} of {count} tasks came, then none for a minute"))??;
        taken += deliveries.len();
        if let Some(last) = deliveries.last() {
            inlet.acknowledge(last.tag).await?;
        }
    }
    let took = started.elapsed();
    ensure!(taken == count, "{taken} tasks came of {count}");
    drop(inlet);
    connection.close().await;
    Ok(took)
}
