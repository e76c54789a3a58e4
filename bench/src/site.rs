//! A broker with one endpoint's queues, and the messages that travel there.
//! Speaks to the seam as service and endpoint do.

use anyhow::{Context as _, Result};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::link::{
    Connection, Destination, Inlet, InletOptions, Message, Terms, Transport,
};
use clutch_common::system::clock::now_ms;
use clutch_common::task::json::Json;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::task::{Call, Task, Work};
use clutch_common::topology::{self, QueueKind};
use clutch_common::{link, wire};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// How many deliveries are under way to an endpoint or a service, and how many
/// are taken and acknowledged as one: theirs by default.
const PREFETCH: u16 = 32;
/// See [`PREFETCH`].
pub(crate) const GROUP: usize = 32;
/// Most messages open at once, as the service has it.
pub(crate) const WINDOW: usize = 1000;

/// Where both parties meet.
#[derive(Clone)]
pub(crate) struct Site {
    /// The broker's URL.
    pub(crate) url: String,
    /// The endpoint that the queues are of.
    pub(crate) endpoint: EndpointId,
    transport: Arc<dyn Transport>,
}

impl Site {
    /// A site that is prepared already.
    pub(crate) fn new(url: &str, endpoint: EndpointId) -> Result<Self> {
        let transport = link::transport(url, &Terms::default())?;
        Ok(Self { url: url.to_owned(), endpoint, transport })
    }

    /// A site with queues of its own, declared.
    pub(crate) async fn prepare(url: &str) -> Result<Self> {
        let site = Self::new(url, EndpointId::new())?;
        site.transport.prepare(&[]).await?;
        let connection = site.connect("prepare").await?;
        connection.declare(&topology::shared(QueueKind::Classic)).await?;
        connection.declare(&topology::endpoint(site.endpoint, QueueKind::Classic)).await?;
        connection.close().await;
        Ok(site)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self, name: &str) -> Result<Box<dyn Connection>> {
        let connected = self.transport.connect(&format!("clutch/bench/{name}")).await;
        connected.with_context(|| format!("connecting to {}", self.transport.address()))
    }

    /// Consumes tasks as the endpoint does.
    pub(crate) async fn tasks(&self, connection: &dyn Connection) -> Result<Box<dyn Inlet>> {
        let options = InletOptions {
            queue: topology::tasks_queue(self.endpoint),
            prefetch: PREFETCH,
            lease: Some(topology::lease_queue(self.endpoint)),
            one_by_one: false,
        };
        connection.inlet(&options).await.context("consuming tasks")
    }

    /// Consumes results as the service does.
    pub(crate) async fn results(&self, connection: &dyn Connection) -> Result<Box<dyn Inlet>> {
        let options = InletOptions {
            queue: topology::RESULTS_QUEUE.to_owned(),
            prefetch: PREFETCH,
            lease: Some(topology::SERVICE_LEASE.to_owned()),
            one_by_one: false,
        };
        connection.inlet(&options).await.context("consuming results")
    }

    /// Where tasks go.
    pub(crate) fn to_endpoint(&self) -> Destination {
        Destination { exchange: String::new(), routing_key: topology::tasks_queue(self.endpoint) }
    }

    /// Where results go.
    pub(crate) fn to_service(&self) -> Destination {
        Destination {
            exchange: topology::RESULTS_EXCHANGE.to_owned(),
            routing_key: topology::results_key(self.endpoint),
        }
    }
}

/// The URL of a spool folder, with options (`group=1`) or none.
pub(crate) fn folder_url(folder: &Path, options: &str) -> Result<String> {
    let mut url = url::Url::from_file_path(folder)
        .map_err(|()| anyhow::anyhow!("{} is not an absolute path", folder.display()))?;
    url.set_query((!options.is_empty()).then_some(options));
    Ok(url.into())
}

/// A message with one task that does nothing.
pub(crate) fn no_op() -> (TaskId, Message) {
    let id = TaskId::new();
    let task = Task::of(id, Work::Call(Call::new("clutch.echo", Json::empty_array())));
    let message = Message {
        message_id: Some(Uuid::now_v7().to_string()),
        correlation_id: Some(id.to_string()),
        kind: Some(wire::TASKS_TYPE.to_owned()),
        timestamp_ms: Some(now_ms()),
        body: wire::encode_tasks(&[&task]),
        ..Message::default()
    };
    (id, message)
}

/// A message with the result of one task that did nothing.
pub(crate) fn done(task: &Task, endpoint: EndpointId) -> Message {
    let now = now_ms();
    let result = TaskResult {
        exit_code: Some(0),
        reason: None,
        started_at_ms: Some(now),
        ..TaskResult::not_run(task.attempt(), Outcome::Succeeded, String::new(), endpoint, now)
    };
    Message {
        message_id: Some(Uuid::new_v4().to_string()),
        correlation_id: Some(task.id.to_string()),
        kind: Some(wire::RESULTS_TYPE.to_owned()),
        timestamp_ms: Some(now),
        body: wire::pack_results(endpoint, &[wire::encode_result(&result)]),
        ..Message::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_is_what_the_product_reads() {
        let (id, message) = no_op();
        let tasks = wire::decode_tasks(&message.body, None).tasks;
        assert_eq!((tasks.len(), tasks[0].id, tasks[0].validate()), (1, id, Ok(())));
        let endpoint = EndpointId::new();
        let results = wire::decode_results(&done(&tasks[0], endpoint).body).results;
        assert_eq!((results.len(), results[0].task_id), (1, id));
        assert_eq!((results[0].outcome, results[0].endpoint_id), (Outcome::Succeeded, endpoint));
    }

    #[test]
    fn a_folder_has_a_url_with_its_options() {
        assert_eq!(folder_url(Path::new("/a b"), "").unwrap(), "file:///a%20b");
        assert_eq!(folder_url(Path::new("/a"), "group=1").unwrap(), "file:///a?group=1");
        assert!(folder_url(Path::new("a"), "").is_err());
    }
}
