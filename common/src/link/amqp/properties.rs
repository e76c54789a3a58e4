//! A [`Message`] as AMQP properties and body, and back. Pure. What a stranger
//! sent is taken as it is: what is missing or odd becomes `None`.

use super::dead_letter;
use super::short_name::short;
use crate::link::{Delivery, Fault, Message, Tag};
use crate::wire;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// AMQP's delivery mode for what is to outlive a restart of the broker.
const PERSISTENT: u8 = 2;

/// The sender that the broker and its tools see.
const APP_ID: &str = "clutch";

/// The header with the CRC-32 of the body.
const CRC32: &str = "crc32";

/// The properties a message is published with.
///
/// # Errors
/// When an id or the type is longer than AMQP can carry.
pub(super) fn outgoing(message: &Message, message_id: &str) -> Result<BasicProperties, Fault> {
    let mut properties = BasicProperties::default()
        .with_content_type(wire::CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_app_id(APP_ID.into())
        .with_headers(checksum(&message.body))
        .with_message_id(short(message_id)?);
    if let Some(id) = &message.correlation_id {
        properties = properties.with_correlation_id(short(id)?);
    }
    if let Some(kind) = &message.kind {
        properties = properties.with_type(short(kind)?);
    }
    if let Some(milliseconds) = message.timestamp_ms {
        properties = properties.with_timestamp(milliseconds / 1000);
    }
    Ok(properties)
}

fn checksum(body: &[u8]) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(CRC32.into(), AMQPValue::LongLongInt(crc32fast::hash(body).into()));
    headers
}

/// Says what is wrong with a body, by its checksum; nothing where there is none, as a
/// stranger may leave it out.
#[expect(clippy::wildcard_enum_match_arm, reason = "a stranger may have written any type")]
fn damage(headers: Option<&FieldTable>, body: &[u8]) -> Option<String> {
    let expected = match headers?.inner().get(CRC32)? {
        AMQPValue::LongLongInt(number) => *number,
        AMQPValue::LongInt(number) => i64::from(number.cast_unsigned()),
        AMQPValue::LongUInt(number) => i64::from(*number),
        _ => return None,
    };
    (i64::from(crc32fast::hash(body)) != expected)
        .then(|| "its body is damaged: the checksum does not hold".to_owned())
}

/// A delivery as it arrived.
pub(super) fn incoming(delivery: lapin::message::Delivery) -> Delivery {
    let properties = &delivery.properties;
    let text = |value: &Option<ShortString>| {
        value.as_ref().map(|text| text.as_str().to_owned()).filter(|text| !text.is_empty())
    };
    Delivery {
        tag: Tag(delivery.delivery_tag),
        redelivered: delivery.redelivered,
        message: Message {
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            kind: text(properties.kind()),
            timestamp_ms: properties.timestamp().map(|seconds| seconds.saturating_mul(1000)),
            deaths: dead_letter::deaths(properties.headers().as_ref()),
            damage: damage(properties.headers().as_ref(), &delivery.data),
            routing_key: routing_key(delivery.exchange.as_str(), delivery.routing_key.as_str()),
            body: delivery.data,
        },
    }
}

fn routing_key(exchange: &str, key: &str) -> Option<String> {
    (!exchange.is_empty()).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(properties: BasicProperties) -> Message {
        let mut delivery =
            lapin::message::Delivery::mock(7, "".into(), "key".into(), true, b"body".to_vec());
        delivery.properties = properties;
        let delivery = incoming(delivery);
        assert_eq!((delivery.tag, delivery.redelivered), (Tag(7), true));
        delivery.message
    }

    #[test]
    fn a_message_arrives_as_it_was_sent_but_for_the_milliseconds() {
        let message = Message {
            message_id: Some("m".to_owned()),
            correlation_id: Some("c".to_owned()),
            kind: Some("k".to_owned()),
            timestamp_ms: Some(1_700_000_000_123),
            body: b"body".to_vec(),
            ..Message::default()
        };
        let there = arrived(outgoing(&message, "m").unwrap());
        assert_eq!(there, Message { timestamp_ms: Some(1_700_000_000_000), ..message });
    }

    #[test]
    fn a_body_that_changed_on_its_way_is_told_and_one_without_a_checksum_is_taken() {
        let sent = |body: &[u8]| {
            outgoing(&Message { body: body.to_vec(), ..Message::default() }, "m").unwrap()
        };
        assert_eq!(arrived(sent(b"body")).damage, None);
        for other in [&b"bodx"[..], b"", b"body\0"] {
            assert!(arrived(sent(other)).damage.is_some());
        }
        for odd in [AMQPValue::Void, AMQPValue::Boolean(true), AMQPValue::LongString("x".into())] {
            let mut headers = FieldTable::default();
            headers.insert(CRC32.into(), odd);
            let odd = BasicProperties::default().with_headers(headers);
            assert_eq!(arrived(odd).damage, None);
        }
        let mut headers = FieldTable::default();
        let crc = crc32fast::hash(b"body");
        headers.insert(CRC32.into(), AMQPValue::LongInt(crc.cast_signed()));
        assert_eq!(arrived(BasicProperties::default().with_headers(headers)).damage, None);
    }

    #[test]
    fn what_a_stranger_left_out_or_overdid_is_tolerated() {
        let bare = arrived(BasicProperties::default());
        assert_eq!(bare, Message { body: b"body".to_vec(), ..Message::default() });
        let odd = BasicProperties::default()
            .with_message_id("".into())
            .with_timestamp(u64::MAX)
            .with_content_type("text/html".into());
        let odd = arrived(odd);
        assert_eq!((odd.message_id, odd.timestamp_ms), (None, Some(u64::MAX)));
    }

    #[test]
    fn a_name_too_long_for_amqp_is_a_fault_and_no_panic() {
        let long = "é".repeat(128);
        for message in [
            Message { correlation_id: Some(long.clone()), ..Message::default() },
            Message { kind: Some(long.clone()), ..Message::default() },
        ] {
            assert!(matches!(outgoing(&message, "m"), Err(Fault::Protocol(_))));
        }
        assert!(matches!(outgoing(&Message::default(), &long), Err(Fault::Protocol(_))));
    }
}
