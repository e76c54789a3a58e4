//! Reads what a broker writes into the headers of a dead letter, and all that came with a
//! message besides what a [`Message`](crate::link::Message) has. Pure. A stranger may
//! have written anything there: what is odd is passed over.

#![expect(clippy::wildcard_enum_match_arm, reason = "any type may be in any place")]

use crate::link::Death;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value, json};

/// How deep headers may be nested to be shown.
const DEEPEST: usize = 8;

/// The deaths of a message, the last one first.
pub(super) fn deaths(headers: Option<&FieldTable>) -> Vec<Death> {
    let headers = headers.map(FieldTable::inner);
    let Some(AMQPValue::FieldArray(deaths)) = headers.and_then(|headers| headers.get("x-death"))
    else {
        return Vec::new();
    };
    deaths.as_slice().iter().filter_map(death).collect()
}

fn death(value: &AMQPValue) -> Option<Death> {
    let AMQPValue::FieldTable(fields) = value else { return None };
    let field = |name: &str| fields.inner().get(name);
    let text = |name: &str| match field(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    };
    Some(Death {
        queue: text("queue")?,
        reason: text("reason").unwrap_or_default(),
        at_ms: match field("time") {
            Some(AMQPValue::Timestamp(seconds)) => Some(seconds.saturating_mul(1000)),
            _ => None,
        },
        count: match field("count") {
            Some(AMQPValue::LongLongInt(count)) => u64::try_from(*count).unwrap_or(1),
            _ => 1,
        },
    })
}

/// Exchange, routing key, and the properties that have no field of their own.
pub(super) fn extra(delivery: &Delivery) -> Map<String, Value> {
    let properties = &delivery.properties;
    let text = |value: &Option<lapin::types::ShortString>| {
        value.as_ref().map(|text| Value::from(text.as_str()))
    };
    let headers = properties.headers().as_ref();
    let known = [
        ("exchange", Some(delivery.exchange.as_str().into())),
        ("routing_key", Some(delivery.routing_key.as_str().into())),
        ("content_type", text(properties.content_type())),
        ("content_encoding", text(properties.content_encoding())),
        ("app_id", text(properties.app_id())),
        ("user_id", text(properties.user_id())),
        ("reply_to", text(properties.reply_to())),
        ("expiration", text(properties.expiration())),
        ("priority", properties.priority().map(Value::from)),
        ("delivery_mode", properties.delivery_mode().map(Value::from)),
        ("headers", headers.map(|headers| table(headers, 0))),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn table(fields: &FieldTable, depth: usize) -> Value {
    let fields = fields.inner().iter();
    fields.map(|(name, value)| (name.to_string(), shown(value, depth + 1))).collect()
}

/// A header as JSON.
fn shown(value: &AMQPValue, depth: usize) -> Value {
    if depth > DEEPEST {
        return "…".into();
    }
    match value {
        AMQPValue::Boolean(flag) => json!(flag),
        AMQPValue::ShortShortInt(number) => json!(number),
        AMQPValue::ShortShortUInt(number) => json!(number),
        AMQPValue::ShortInt(number) => json!(number),
        AMQPValue::ShortUInt(number) => json!(number),
        AMQPValue::LongInt(number) => json!(number),
        AMQPValue::LongUInt(number) => json!(number),
        AMQPValue::LongLongInt(number) => json!(number),
        AMQPValue::Float(number) => json!(number),
        AMQPValue::Double(number) => json!(number),
        AMQPValue::Timestamp(seconds) => json!(seconds),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => json!(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ByteArray(bytes) => json!(String::from_utf8_lossy(bytes.as_slice())),
        AMQPValue::FieldArray(values) => {
            values.as_slice().iter().map(|value| shown(value, depth + 1)).collect()
        }
        AMQPValue::FieldTable(fields) => table(fields, depth),
        other => json!(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldArray;

    fn fields(all: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in all {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn the_brokers_words_are_read_and_what_is_odd_is_passed_over() {
        let death = fields(&[
            ("queue", text("a.tasks")),
            ("reason", text("delivery_limit")),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("count", AMQPValue::LongLongInt(3)),
        ]);
        let mut deaths_of = FieldArray::default();
        deaths_of.push(AMQPValue::FieldTable(death));
        deaths_of.push(AMQPValue::FieldTable(fields(&[("queue", text("b"))])));
        deaths_of.push(AMQPValue::FieldTable(fields(&[("queue", AMQPValue::Void)])));
        deaths_of.push(text("nonsense"));
        let headers = fields(&[("x-death", AMQPValue::FieldArray(deaths_of))]);
        let death = |queue: &str, reason: &str, at_ms, count| Death {
            queue: queue.to_owned(),
            reason: reason.to_owned(),
            at_ms,
            count,
        };
        let expected = [
            death("a.tasks", "delivery_limit", Some(1_700_000_000_000), 3),
            death("b", "", None, 1),
        ];
        assert_eq!(deaths(Some(&headers)), expected);
        assert!(deaths(Some(&fields(&[("x-death", text("nonsense"))]))).is_empty());
        assert!(deaths(None).is_empty());
    }

    #[test]
    fn headers_are_shown_however_they_are_nested() {
        let mut nested = text("bottom");
        for _ in 0..100 {
            nested = AMQPValue::FieldTable(fields(&[("down", nested)]));
        }
        let mut delivery = Delivery::mock(1, "letters".into(), "key".into(), false, vec![]);
        delivery.properties =
            delivery.properties.with_headers(fields(&[("n", nested), ("x", text("y"))]));
        let shown = extra(&delivery);
        assert_eq!((&shown["exchange"], &shown["routing_key"]), (&json!("letters"), &json!("key")));
        assert_eq!(shown["headers"]["x"], "y");
        assert!(serde_json::to_string(&shown).unwrap().contains('…'));
    }
}
