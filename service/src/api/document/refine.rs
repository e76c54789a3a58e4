//! Refines the document that the routes make: bounds of integers, what may be null, and rules
//! about several members of a body, which the types alone do not give. Pure; in tests only, as
//! the document is served as it is kept.

use crate::model::TaskState;
use clutch_common::task::result::Outcome;
use serde_json::{Map, Value, json};

/// The document with all that it has to say.
pub(super) fn refined(document: Value) -> Value {
    let mut document = refine(document);
    for (schema, rule, alternatives) in rules() {
        let schema = &mut document["components"]["schemas"][schema];
        assert!(schema.is_object(), "there is no such schema");
        schema[rule] = alternatives;
    }
    let states = TaskState::OPEN.map(TaskState::as_str);
    let open = json!({ "type": "string", "enum": states });
    document["components"]["schemas"]["CancelRequest"]["properties"]["states"]["items"] = open;
    let again = |outcome: &Outcome| ![Outcome::Succeeded, Outcome::Cancelled].contains(outcome);
    let again: Vec<&str> =
        Outcome::ALL.iter().filter(|it| again(it)).map(|it| it.as_str()).collect();
    let again = json!({ "type": "string", "enum": again });
    document["components"]["schemas"]["RetryPolicy"]["properties"]["on"]["items"] = again;
    document
}

/// Rules about several members of a schema.
fn rules() -> [(&'static str, &'static str, Value); 5] {
    let given =
        |name: &str, schema: Value| json!({ "required": [name], "properties": { name: schema } });
    let text = |name| given(name, json!({ "type": "string" }));
    let tasks = || given("tasks", json!({ "type": "array", "minItems": 1 }));
    let age = given("older_than_ms", json!({ "type": "integer" }));
    let program = json!({
        "required": ["argv"],
        "properties": { "argv": { "minItems": 1 }, "call": { "type": "null" } },
    });
    let call = json!({
        "required": ["call"],
        "properties": {
            "call": { "type": "object" },
            "argv": { "maxItems": 0 },
            "env": { "maxProperties": 0 },
            "cwd": { "type": "null" },
            "stdin": { "const": "" },
        },
    });
    [
        ("WaitRequest", "oneOf", json!([text("key"), tasks()])),
        ("RetryRequest", "oneOf", json!([text("key"), tasks()])),
        ("ForgetRequest", "oneOf", json!([text("key"), age])),
        ("CancelRequest", "anyOf", json!([tasks(), text("key"), text("endpoint"), text("name")])),
        ("TaskSpec", "oneOf", json!([program, call])),
    ]
}

/// Adds the bounds of integers, which a format alone does not give; has what may be null meet
/// one of two schemas or both, as any JSON may be null; and joins the lines of a description.
fn refine(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(refine).collect(),
        Value::Object(members) => {
            let bounds = bounds(&members);
            let member = |(name, value): (String, Value)| match (name.as_str(), value) {
                ("oneOf", value) if may_be_null(&value) => ("anyOf".to_owned(), refine(value)),
                ("description", Value::String(text)) => (name, joined(&text).into()),
                (_, value) => (name, refine(value)),
            };
            let mut members: Map<String, Value> = members.into_iter().map(member).collect();
            if let Some((format, minimum, maximum)) = bounds {
                members.insert("format".to_owned(), format.into());
                members.entry("minimum").or_insert(minimum);
                members.entry("maximum").or_insert(maximum);
            }
            Value::Object(members)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// The format and the bounds of an integer: what is not negative has more room.
fn bounds(schema: &Map<String, Value>) -> Option<(&'static str, Value, Value)> {
    let unsigned = schema.get("minimum").is_some_and(Value::is_u64);
    match (schema.get("format")?.as_str()?, unsigned) {
        ("int32", false) => Some(("int32", i32::MIN.into(), i32::MAX.into())),
        ("int32", true) => Some(("uint32", 0.into(), u32::MAX.into())),
        ("int64", false) => Some(("int64", i64::MIN.into(), i64::MAX.into())),
        ("int64", true) => Some(("uint64", 0.into(), u64::MAX.into())),
        _ => None,
    }
}

fn may_be_null(schemas: &Value) -> bool {
    schemas.as_array().is_some_and(|schemas| schemas.iter().any(|one| one["type"] == "null"))
}

/// The text with each paragraph on a line.
fn joined(text: &str) -> String {
    let paragraphs: Vec<String> = text.split("\n\n").map(|one| one.replace('\n', " ")).collect();
    paragraphs.join("\n\n")
}
