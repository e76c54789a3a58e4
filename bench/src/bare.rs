//! The broker's own limit: a loop of four hops over lapin and nothing of
//! ours, with one message a task, each persistent and confirmed. Nothing is
//! kept on disk on this side of the broker, and nothing is run. The yardstick
//! for the rows that use a broker.
//!
//! Touches: two connections to the broker, and a process of its own for the far
//! party. Promises: the same number of messages, of about the same size, with
//! the same guarantees by the broker, as one task a message costs the product.

mod echo;
mod played;

pub(crate) use echo::{CHORE, process};
pub(crate) use played::Played;

use anyhow::{Context as _, Result, ensure};
use echo::Echo;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How many deliveries are under way to either party.
const PREFETCH: u16 = 500;
/// AMQP's delivery mode for what is to outlive a restart of the broker.
const PERSISTENT: u8 = 2;
/// The size that a task, and a result, is padded to, in bytes: a no-op as it travels.
const BODY: usize = 200;
/// Longer than anything takes that is not stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both queues of a loop, and the near party.
pub(crate) struct Bare {
    connection: Connection,
    publishing: Channel,
    consuming: Channel,
    results: Consumer,
    tasks_queue: String,
    echo: Echo,
}

impl Bare {
    /// Declares two queues at a broker, starts the far party, and consumes.
    pub(crate) async fn start(url: &str) -> Result<Self> {
        let id = Uuid::now_v7();
        let (tasks_queue, results_queue) =
            (format!("bare.{id}.tasks"), format!("bare.{id}.results"));
        let connection = connect(url).await?;
        let publishing = connection.create_channel().await?;
        for queue in [&tasks_queue, &results_queue] {
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            publishing.queue_declare(queue.as_str().into(), options, FieldTable::default()).await?;
        }
        publishing.confirm_select(ConfirmSelectOptions::default()).await?;
        let echo = Echo::start(url, &tasks_queue, &results_queue).await?;
        let consuming = connection.create_channel().await?;
        let results = consume(&consuming, &results_queue).await?;
        Ok(Self { connection, publishing, consuming, results, tasks_queue, echo })
    }

    /// Sends `count` tasks, with up to `window` under way, until every one is
    /// confirmed and has its result. Returns how long each was under way.
    pub(crate) async fn round_trips(
        &mut self,
        count: usize,
        window: usize,
    ) -> Result<Vec<Duration>> {
        let mut under_way: HashMap<Uuid, Instant> = HashMap::new();
        let mut confirms = FuturesUnordered::new();
        let mut times = Vec::with_capacity(count);
        let (mut sent, mut confirmed) = (0, 0);
        while confirmed < count || times.len() < count {
            if sent < count && under_way.len() < window {
                let id = Uuid::now_v7();
                under_way.insert(id, Instant::now());
                confirms.push(publish(&self.publishing, &self.tasks_queue, id).await?);
                sent += 1;
                continue;
            }
            tokio::select! {
                Some(confirm) = confirms.next() => {
                    ensure!(confirm?.is_ack(), "a task was not confirmed");
                    confirmed += 1;
                }
                result = self.results.next() => {
                    let first = result.context("the consumer was cancelled")??;
                    let came = together(&mut self.results, first)?;
                    for delivery in &came {
                        let since = under_way.remove(&id(delivery)?).context("a result came twice")?;
                        times.push(since.elapsed());
                    }
                    acknowledge(&self.consuming, &came).await?;
                }
                () = tokio::time::sleep(PATIENCE) => {
                    anyhow::bail!("{} of {count} tasks came back, then none for a minute", times.len());
                }
            }
        }
        Ok(times)
    }

    /// The process of the far party, which has two connections.
    pub(crate) fn far_pid(&self) -> u32 {
        self.echo.pid()
    }

    /// Ends the far party, and the connection.
    pub(crate) async fn finish(self) -> Result<()> {
        self.echo.finish().await?;
        self.connection.close(200, "OK".into()).await?;
        Ok(())
    }
}

async fn connect(url: &str) -> Result<Connection> {
    let connected = Connection::connect(url, ConnectionProperties::default()).await;
    connected.context("connecting to the broker")
}

async fn consume(channel: &Channel, queue: &str) -> Result<Consumer> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    Ok(channel.basic_consume(queue.into(), "".into(), options, none).await?)
}

/// A delivery and those that have come with it.
fn together(consumer: &mut Consumer, first: Delivery) -> Result<Vec<Delivery>> {
    use futures_util::FutureExt as _;
    let mut came = vec![first];
    while let Some(next) = consumer.next().now_or_never().flatten() {
        came.push(next?);
    }
    Ok(came)
}

/// Acknowledges all up to the last of these.
async fn acknowledge(channel: &Channel, came: &[Delivery]) -> Result<()> {
    if let Some(last) = came.last() {
        channel.basic_ack(last.delivery_tag, BasicAckOptions { multiple: true }).await?;
    }
    Ok(())
}

/// Publishes; the future it gives resolves when the broker has confirmed.
async fn publish(
    channel: &Channel,
    queue: &str,
    id: Uuid,
) -> Result<impl Future<Output = lapin::Result<Confirmation>> + use<>> {
    let mut body = vec![b'x'; BODY];
    body[..16].copy_from_slice(id.as_bytes());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    Ok(channel.basic_publish("".into(), queue.into(), options, &body, properties).await?)
}

fn id(delivery: &Delivery) -> Result<Uuid> {
    let head = delivery.data.get(..16).context("a message of somebody else's")?;
    Ok(Uuid::from_slice(head)?)
}
