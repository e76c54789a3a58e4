//! Declares a topology. Everything is durable; declaring again what exists with
//! the same options changes nothing.

use super::session::AmqpSession;
use super::short_name::short;
use crate::link::Fault;
use crate::topology::{self, Argument, Topology};
use lapin::ExchangeKind;
use lapin::options::{
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};

/// Declares exchanges, queues and bindings, in that order, up to the first
/// fault.
pub(super) async fn topology(session: &AmqpSession, topology: &Topology) -> Result<(), Fault> {
    // The broker closes a channel with the first thing it refuses, and that is
    // where declaring ends: one channel is enough.
    let channel = session.channel().await?;
    for exchange in &topology.exchanges {
        let declared = channel.exchange_declare(
            short(&exchange.name)?,
            match exchange.kind {
                topology::ExchangeKind::Topic => ExchangeKind::Topic,
                topology::ExchangeKind::Fanout => ExchangeKind::Fanout,
            },
            ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() },
            FieldTable::default(),
        );
        let declared = session.answer(declared).await;
        declared.map_err(|fault| explain(fault, "exchange", &exchange.name))?;
    }
    for queue in &topology.queues {
        let declared = channel.queue_declare(
            short(&queue.name)?,
            QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() },
            arguments(&queue.arguments),
        );
        let declared = session.answer(declared).await;
        declared.map_err(|fault| explain(fault, "queue", &queue.name))?;
    }
    for binding in &topology.bindings {
        let bound = channel.queue_bind(
            short(&binding.queue)?,
            short(&binding.exchange)?,
            short(&binding.key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        session.answer(bound).await?;
    }
    session.answer(channel.close(200, "OK".into())).await
}

/// Removes a queue. The broker answers for one that is not there as for any other.
pub(super) async fn remove(session: &AmqpSession, queue: &str) -> Result<(), Fault> {
    let channel = session.channel().await?;
    let removed = channel.queue_delete(short(queue)?, QueueDeleteOptions::default());
    session.answer(removed).await?;
    session.answer(channel.close(200, "OK".into())).await
}

/// How many messages are ready in a queue.
pub(super) async fn waiting(session: &AmqpSession, queue: &str) -> Result<u64, Fault> {
    let channel = session.channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short(queue)?, passive, FieldTable::default());
    let waiting = session.answer(asked).await?.message_count().into();
    session.answer(channel.close(200, "OK".into())).await?;
    Ok(waiting)
}

/// Says which object differs and what to do; the broker's text says how.
fn explain(fault: Fault, what: &str, name: &str) -> Fault {
    let Fault::Mismatch(text) = fault else { return fault };
    Fault::Mismatch(format!(
        "the {what} '{name}' was declared with other options ({text}); delete it when it is \
         empty, or provision with the options it has"
    ))
}

fn arguments(arguments: &[(&'static str, Argument)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}
