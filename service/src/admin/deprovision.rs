//! Removes an endpoint: its queue at the broker, and its name from the records. Needs no
//! running service. What its tasks came to stays recorded. Every step can be repeated.

use crate::admin::provision::tell_service;
use crate::cli::DeprovisionArgs;
use crate::cli::output;
use crate::config::Settings;
use crate::failure::{self, Failure, GENERAL, REFUSED, advice};
use crate::store::{Batch, Endpoint, Store};
use clutch_common::id::EndpointId;
use clutch_common::link::{Connection, Fault, Transport};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::text::counted::counted;
use clutch_common::topology;
use serde::Serialize;
use std::sync::Arc;

/// How many tasks are ended in one transaction.
const ENDED_AT_ONCE: u32 = 1000;
/// Why tasks end that were not answered for.
const REASON: &str = "its endpoint was deprovisioned before it had an outcome";

/// The report of a deprovisioning.
#[derive(Debug, Serialize)]
pub(crate) struct DeprovisionReport {
    id: EndpointId,
    name: String,
    /// How many tasks ended as cancelled.
    cancelled: u64,
    /// How many messages went with the queue.
    messages: u64,
}

/// Removes an endpoint and says what was done.
///
/// # Errors
/// When there is no such endpoint, an instance of it runs, it has tasks without an
/// outcome and this was not accepted, or the broker cannot be used.
pub(crate) async fn run(settings: &Settings, args: &DeprovisionArgs) -> anyhow::Result<()> {
    let transport = settings.transport()?;
    settings.state.prepare()?;
    let store = Store::open(&settings.state).await?;
    let removed = remove(&store, transport.as_ref(), args).await;
    store.close().await;
    let report = removed?;
    if settings.json {
        return output::json(&report);
    }
    let DeprovisionReport { id, name, cancelled, messages } = &report;
    let mut words = format!("removed {name} ({id})");
    if *cancelled > 0 {
        words.push_str(&format!(
            "; {} without an outcome ended as cancelled",
            counted(*cancelled, "task")
        ));
    }
    if *messages > 0 {
        words.push_str(&format!("; {} went with its queue", counted(*messages, "message")));
    }
    Ok(output::line(&words)?)
}

async fn remove(
    store: &Store,
    transport: &dyn Transport,
    args: &DeprovisionArgs,
) -> anyhow::Result<DeprovisionReport> {
    let Some(endpoint) = store.endpoint(&args.endpoint).await? else {
        let known = store.endpoint_names(10).await?.join(", ");
        let words = format!("there is no endpoint '{}'; known are: {known}", args.endpoint);
        return Err(Failure::new(GENERAL, words).into());
    };
    let address = transport.address();
    let connection = transport
        .connect("clutch/service/deprovision")
        .await
        .map_err(|fault| failed(&fault, &address))?;
    let removed = with_lease(store, connection.as_ref(), &endpoint, args.yes, &address).await;
    if removed.is_ok() {
        tell_service(connection.as_ref()).await;
    }
    connection.close().await;
    removed
}

/// Removes an endpoint while its lease keeps every instance of it out.
async fn with_lease(
    store: &Store,
    connection: &dyn Connection,
    endpoint: &Endpoint,
    yes: bool,
    address: &str,
) -> anyhow::Result<DeprovisionReport> {
    let queue = topology::tasks_queue(endpoint.id);
    let messages = match connection.browse(&queue, &topology::lease_queue(endpoint.id)).await {
        Ok(mut browser) => browser.waiting().await.map(Some),
        Err(Fault::Missing(_)) => Ok(None),
        Err(fault) => Err(fault),
    };
    let messages = messages.map_err(|fault| failed(&fault, address))?;
    let open = store.count_open(endpoint.id).await?;
    if !yes && (open > 0 || messages.is_some_and(|messages| messages > 0)) {
        let waiting = messages.unwrap_or(0);
        let words = format!(
            "{} is not removed: {} without an outcome, and {} in its queue. Wait for them; or have \
             the tasks end as cancelled, and the messages go, with --yes",
            endpoint.name,
            counted(open, "task"),
            counted(waiting, "message"),
        );
        return Err(Failure::new(GENERAL, words).into());
    }
    let cancelled = cancel(store, endpoint.id).await?;
    if messages.is_some() {
        connection.remove_queue(&queue).await.map_err(|fault| failed(&fault, address))?;
    }
    if !store.remove_endpoint(endpoint.id).await? {
        let words = format!(
            "a task was submitted to {} meanwhile: stop the submissions to it, and run this again",
            endpoint.name
        );
        return Err(Failure::new(GENERAL, words).into());
    }
    let (id, name, messages) = (endpoint.id, endpoint.name.clone(), messages.unwrap_or(0));
    Ok(DeprovisionReport { id, name, cancelled, messages })
}

/// Ends every task that has no outcome.
async fn cancel(store: &Store, endpoint: EndpointId) -> anyhow::Result<u64> {
    let mut cancelled = 0;
    loop {
        let attempts = store.open_attempts(endpoint, ENDED_AT_ONCE).await?;
        if attempts.is_empty() {
            return Ok(cancelled);
        }
        let now = now_ms();
        let ended = |attempt| {
            TaskResult::not_run(attempt, Outcome::Cancelled, REASON.to_owned(), endpoint, now)
        };
        let results: Vec<TaskResult> = attempts.into_iter().map(ended).collect();
        let batch = Arc::new(Batch { results, ..Batch::default() });
        let recorded = store.record(batch, now, |_| ()).await?.recorded;
        store.durable().await?;
        anyhow::ensure!(recorded > 0, "tasks without an outcome could not be ended");
        cancelled += recorded;
    }
}

fn failed(fault: &Fault, address: &str) -> Failure {
    let (code, advice) = if matches!(fault, Fault::Locked(_)) {
        (REFUSED, "an instance of the endpoint is running: stop it, and those that stand by")
    } else {
        (failure::code(fault), advice(fault))
    };
    let separator = if advice.is_empty() { "" } else { "; " };
    Failure::new(code, format!("cannot deprovision at {address}: {fault}{separator}{advice}"))
}
