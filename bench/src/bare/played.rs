//! Many members of a topic that are played over one connection: each takes the tasks it is given,
//! claims them at once, holds them, and answers when it is told to.
//!
//! Nothing is run or kept on a disk, and no confirm is waited for: the cost that is measured is
//! the service's.

use super::{PERSISTENT, connect};
use crate::site::done;
use anyhow::{Context as _, Result, bail, ensure};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::link::Message;
use clutch_common::system::clock::now_ms;
use clutch_common::task::Task;
use clutch_common::wire::{
    self, Claims, FunctionOffer, InstanceDetails, Presence, Role, session_name,
};
use clutch_common::{topology, wire::CLAIMS_TYPE, wire::PRESENCE_TYPE};
use futures_util::stream::{SelectAll, StreamExt as _, select_all};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use std::collections::HashMap;
use std::time::Duration;

/// Longer than the service takes to place a task where there is room.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member.
struct Member {
    id: EndpointId,
    state: StateId,
}

/// The members, with the tasks that they hold.
pub(crate) struct Played {
    connection: Connection,
    publishing: Channel,
    consuming: Channel,
    deliveries: SelectAll<Consumer>,
    /// By their task queues.
    members: HashMap<String, Member>,
    held: Vec<(EndpointId, Task)>,
}

impl Played {
    /// Has the members of a topic take tasks, and tell that they are there.
    pub(crate) async fn start(url: &str, topic: &str, endpoints: &[EndpointId]) -> Result<Self> {
        let connection = connect(url).await?;
        let consuming = connection.create_channel().await?;
        let publishing = connection.create_channel().await?;
        let (mut consumers, mut members) = (Vec::new(), HashMap::new());
        for id in endpoints {
            let queue = topology::tasks_queue(*id);
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let tag = queue.clone();
            consumers.push(
                consuming
                    .basic_consume(queue.as_str().into(), tag.as_str().into(), options, none)
                    .await?,
            );
            members.insert(queue, Member { id: *id, state: StateId::new() });
        }
        let deliveries = select_all(consumers);
        let played =
            Self { connection, publishing, consuming, deliveries, members, held: Vec::new() };
        for (number, member) in played.members.values().enumerate() {
            let body = wire::encode_presence(&presence(member, topic, number as u64));
            played.say(member.id, PRESENCE_TYPE, &body).await?;
        }
        Ok(played)
    }

    /// Takes tasks until so many are held.
    pub(crate) async fn hold(&mut self, count: usize) -> Result<()> {
        while self.held.len() < count {
            self.take().await?;
        }
        Ok(())
    }

    /// Takes tasks until something else is done.
    pub(crate) async fn hold_while<T>(&mut self, other: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return Ok(done),
                delivery = self.deliveries.next() => {
                    self.accept(delivery.context("no member consumes")??).await?;
                }
            }
        }
    }

    /// Answers so many tasks: those that are held, and those that come.
    pub(crate) async fn answer(&mut self, count: usize) -> Result<()> {
        let mut answered = 0;
        while answered < count {
            for (endpoint, task) in std::mem::take(&mut self.held) {
                self.publish(endpoint, done(&task, endpoint)).await?;
                answered += 1;
            }
            if answered < count {
                self.take().await.with_context(|| format!("{answered} of {count} are answered"))?;
            }
        }
        ensure!(answered == count, "{answered} tasks came of {count}");
        Ok(())
    }

    /// Ends the connection.
    pub(crate) async fn finish(self) -> Result<()> {
        Ok(self.connection.close(200, "OK".into()).await?)
    }

    async fn take(&mut self) -> Result<()> {
        tokio::select! {
            delivery = self.deliveries.next() => {
                self.accept(delivery.context("no member consumes")??).await
            }
            () = tokio::time::sleep(PATIENCE) => bail!("no task came for a minute"),
        }
    }

    /// Claims the tasks of a message, and holds them.
    async fn accept(&mut self, delivery: Delivery) -> Result<()> {
        let member = self.members.get(delivery.routing_key.as_str());
        let Member { id, state } = member.context("a message for no member")?;
        let (id, state) = (*id, *state);
        let correlation = delivery.properties.correlation_id().as_ref().map(|it| it.as_str());
        let decoded = wire::decode_tasks(&delivery.data, correlation);
        // A roll call, or a cancel.
        if !decoded.tasks.is_empty() {
            let attempts = decoded.tasks.iter().map(Task::attempt).collect();
            let claims = Claims { endpoint_id: id, state_id: state, attempts };
            self.say(id, CLAIMS_TYPE, &wire::encode_claims(&claims)).await?;
            self.held.extend(decoded.tasks.into_iter().map(|task| (id, task)));
        }
        self.consuming.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?;
        Ok(())
    }

    async fn publish(&self, endpoint: EndpointId, message: Message) -> Result<()> {
        let kind = message.kind.unwrap_or_default();
        self.say(endpoint, &kind, &message.body).await
    }

    /// Publishes a body as a member.
    async fn say(&self, endpoint: EndpointId, kind: &str, body: &[u8]) -> Result<()> {
        let properties =
            BasicProperties::default().with_delivery_mode(PERSISTENT).with_type(kind.into());
        let (exchange, key) = (topology::RESULTS_EXCHANGE, topology::results_key(endpoint));
        let options = BasicPublishOptions::default();
        self.publishing
            .basic_publish(exchange.into(), key.as_str().into(), options, body, properties)
            .await?;
        Ok(())
    }
}

/// The words by which a member tells of itself.
fn presence(member: &Member, topic: &str, number: u64) -> Presence {
    let now = now_ms();
    Presence {
        endpoint_id: member.id,
        state_id: member.state,
        instance: session_name(number, 1, 1),
        role: Role::Active,
        standby: false,
        replaces: false,
        pending: 0,
        lost: false,
        delivered: None,
        answered: false,
        asks: false,
        details: Some(InstanceDetails {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: "played".to_owned(),
            slots: 1,
            free: 1,
            topics: vec![topic.to_owned()],
            functions: vec![FunctionOffer { name: "clutch.echo".to_owned(), version: None }],
            started_at_ms: now,
            clock_ms: now,
            draining: false,
        }),
    }
}
