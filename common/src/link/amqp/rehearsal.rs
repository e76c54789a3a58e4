//! Tries what an endpoint does at a broker, without doing it: each request has an argument
//! that no broker takes, and is looked at only after permissions and locks. What the
//! broker objects to tells how far the request came.

use super::session::AmqpSession;
use super::short_name::short;
use crate::link::{Check, Destination, Fault, InletOptions};
use lapin::BasicProperties;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};

/// Tries the lease, consuming and publishing.
pub(super) async fn rehearse(
    session: &AmqpSession,
    inlet: &InletOptions,
    results: &Destination,
) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(name) = &inlet.lease {
        checks.push(judged("the lease is free and may be taken", lease(session, name).await));
    }
    checks.push(judged("tasks may be read", consume(session, &inlet.queue).await));
    checks.push(judged("results may be published", publish(session, results).await));
    checks
}

/// An objection to the argument means that there was none before.
fn judged(what: &str, objection: Result<(), Fault>) -> Check {
    match objection {
        Ok(()) | Err(Fault::Protocol(_)) => Check::passed(what),
        Err(fault) => Check::faulty(what, fault),
    }
}

/// A table with a number below zero, where one cannot be.
fn impossible(argument: &'static str) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert(argument.into(), AMQPValue::LongLongInt(-1));
    table
}

async fn lease(session: &AmqpSession, name: &str) -> Result<(), Fault> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let channel = session.channel().await?;
    let declared = channel.queue_declare(short(name)?, exclusive, impossible("x-max-length"));
    session.answer(declared).await.map(drop)
}

async fn consume(session: &AmqpSession, queue: &str) -> Result<(), Fault> {
    let channel = session.channel().await?;
    session.answer(channel.basic_qos(1, BasicQosOptions::default())).await?;
    let mut table = FieldTable::default();
    table.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let options = BasicConsumeOptions::default();
    let consumed = channel.basic_consume(short(queue)?, "".into(), options, table);
    session.answer(consumed).await.map(drop)
}

async fn publish(session: &AmqpSession, to: &Destination) -> Result<(), Fault> {
    let channel = session.channel().await?;
    session.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let (exchange, key) = (short(&to.exchange)?, short(&to.routing_key)?);
    let published = async {
        let properties = BasicProperties::default().with_expiration("never".into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.basic_publish(exchange, key, options, b"", properties).await?.await
    };
    session.answer(published).await.map(drop)
}
