//! Finds the ids of the tasks in a body that cannot be read, so that each gets an answer.
//! Pure.
//!
//! A task is named by each UUID that it gives as its `id`; where its `attempt` is not a
//! whole number from 1 to 4,294,967,295, it is taken for the first. A body is read as
//! far as it is JSON: what follows it, or is cut off, does not matter.

use crate::id::{Attempt, TaskId};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// The mark that UTF-8 may begin with, and JSON may not.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The attempts that a task of a list names: one, unless it has several ids.
pub(super) fn of_task(raw: &str) -> Vec<Attempt> {
    let mut found = Vec::new();
    // What comes before the first fault counts.
    drop(TaskNames(&mut found).deserialize(&mut serde_json::Deserializer::from_str(raw)));
    found
}

/// The attempts that the tasks of an envelope name.
pub(super) fn of_body(body: &[u8]) -> Vec<Attempt> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let mut found = Vec::new();
    drop(EnvelopeNames(&mut found).deserialize(&mut serde_json::Deserializer::from_slice(body)));
    found
}

/// Adds what an envelope's `tasks` name.
struct EnvelopeNames<'a>(&'a mut Vec<Attempt>);

/// Adds what a list of tasks names, or one task in its place.
struct ListNames<'a>(&'a mut Vec<Attempt>);

/// Adds what one task names.
struct TaskNames<'a>(&'a mut Vec<Attempt>);

macro_rules! seed {
    ($name:ident) => {
        impl<'de> DeserializeSeed<'de> for $name<'_> {
            type Value = ();
            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
                from.deserialize_any(self)
            }
        }
    };
}

seed!(EnvelopeNames);
seed!(ListNames);
seed!(TaskNames);

/// Visits values that hold no id.
macro_rules! nameless {
    ($($method:ident: $type:ty),*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }
        $(fn $method<E>(self, _: $type) -> Result<(), E> { Ok(()) })*
        fn visit_unit<E>(self) -> Result<(), E> { Ok(()) }
    };
}

impl<'de> Visitor<'de> for EnvelopeNames<'_> {
    type Value = ();
    nameless!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<Cow<'_, str>>()? {
            match &*key {
                "tasks" => fields.next_value_seed(ListNames(self.0))?,
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for ListNames<'_> {
    type Value = ();
    nameless!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(TaskNames(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        TaskNames(self.0).visit_map(fields)
    }
}

impl<'de> Visitor<'de> for TaskNames<'_> {
    type Value = ();
    nameless!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let (mut ids, mut attempt) = (Vec::new(), None);
        let read = read_task(&mut fields, &mut ids, &mut attempt);
        let attempt = attempt.unwrap_or(1);
        for task_id in ids {
            let named = Attempt { task_id, attempt };
            if self.0.last() != Some(&named) {
                self.0.push(named);
            }
        }
        read
    }
}

fn read_task<'de, A: MapAccess<'de>>(
    fields: &mut A,
    ids: &mut Vec<TaskId>,
    attempt: &mut Option<u32>,
) -> Result<(), A::Error> {
    while let Some(key) = fields.next_key::<Cow<'_, str>>()? {
        match &*key {
            "id" => {
                let id = fields.next_value::<Scalar>()?.0;
                let id = id.as_str().and_then(|id| id.parse().ok());
                ids.extend(id.filter(|id| !ids.contains(id)));
            }
            "attempt" => {
                let number = fields.next_value::<Scalar>()?.0.as_u64();
                let number = number.and_then(|number| u32::try_from(number).ok());
                *attempt = attempt.or(number.filter(|number| *number > 0));
            }
            _ => drop(fields.next_value::<IgnoredAny>()?),
        }
    }
    Ok(())
}

/// A string or a whole number; null for all else, however deep it is.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&serde_json::value::RawValue>::deserialize(from)?.get();
        Ok(Self(if raw.starts_with(['{', '[']) {
            Value::Null
        } else {
            serde_json::from_str(raw).unwrap_or_default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::id::Attempt;
    use crate::wire::{Tasks, decode_tasks};

    const A: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const B: &str = "01890a5d-ac96-774b-bcce-b302099a8058";
    const WORK: &str = r#""work":{"process":{"argv":["true"]}}"#;

    fn named(id: &str, attempt: u32) -> Attempt {
        Attempt { task_id: id.parse().unwrap(), attempt }
    }

    fn envelope(tasks: &str) -> String {
        format!(r#"{{"version":1,"type":"clutch.tasks","tasks":{tasks}}}"#)
    }

    /// The attempts that get an answer; the message has something that cannot be read.
    fn answered(body: impl AsRef<[u8]>, correlation_id: Option<&str>) -> Vec<Attempt> {
        let Tasks { tasks, unreadable } = decode_tasks(body.as_ref(), correlation_id);
        let shown = String::from_utf8_lossy(body.as_ref()).into_owned();
        assert!(!unreadable.is_empty(), "{shown} is read as {tasks:?}");
        unreadable.into_iter().filter_map(|one| one.attempt).collect()
    }

    #[test]
    fn a_task_that_cannot_be_read_is_named_by_its_id_whatever_else_it_says() {
        for (fields, attempt) in [
            (r#""attempt":-1"#, 1),
            (r#""attempt":1.0"#, 1),
            (r#""attempt":"1""#, 1),
            (r#""attempt":4294967296"#, 1),
            (r#""attempt":1e400"#, 1),
            (r#""attempt":null"#, 1),
            (r#""attempt":[[2]]"#, 1),
            (r#""attempt":3,"rerun":null"#, 3),
            (r#""attempt":3,"attempt":4"#, 3),
            (r#""work":null"#, 1),
            (r#""work":{"spell":{}}"#, 1),
            (r#""walltime_ms":-1"#, 1),
            (r#""name":7"#, 1),
            (r#""name":"\ud800""#, 1),
        ] {
            let work = if fields.contains("work") { "" } else { WORK };
            let comma = if work.is_empty() { "" } else { "," };
            for task in [
                format!(r#"{{"id":"{A}",{fields}{comma}{work}}}"#),
                format!(r#"{{{fields}{comma}{work},"id":"{A}"}}"#).replace(",,", ","),
            ] {
                if task.contains("ud800") && !task.starts_with("{\"id") {
                    continue;
                }
                assert_eq!(answered(envelope(&format!("[{task}]")), None), [named(A, attempt)]);
            }
        }
        let deep = format!(r#""work":{{"call":{{"function":"f","args":{}"#, "[".repeat(10_000));
        let deep = format!(r#"[{{"id":"{A}",{deep}{}}}}}}}]"#, "]".repeat(10_000));
        let decoded = decode_tasks(envelope(&deep).as_bytes(), None);
        assert!(decoded.unreadable.iter().all(|one| one.attempt == Some(named(A, 1))));
    }

    #[test]
    fn every_id_that_a_task_gives_is_answered_and_one_without_goes_by_its_messages() {
        let twice = envelope(&format!(r#"[{{"id":"{A}","id":"{A}",{WORK}}}]"#));
        assert_eq!(answered(&twice, None), [named(A, 1)]);
        let both = envelope(&format!(r#"[{{"id":"{A}",{WORK},"id":"{B}"}}]"#));
        assert_eq!(answered(&both, None), [named(A, 1), named(B, 1)]);
        for id in ["", r#""id":7,"#, r#""id":"x","#, r#""id":null,"#, r#""id":{},"#] {
            let without = envelope(&format!("[{{{id}{WORK}}}]"));
            assert_eq!(answered(&without, Some(A)), [named(A, 1)], "{id}");
            assert_eq!(answered(&without, None), [], "{id}");
            assert_eq!(answered(&without, Some("x")), [], "{id}");
        }
        for odd in ["7", "[]", "null", "\"x\""] {
            assert_eq!(answered(envelope(&format!("[{odd}]")), Some(A)), [named(A, 1)], "{odd}");
        }
        let two = envelope(&format!(r#"[{{"id":"{A}"}},{{{WORK}}}]"#));
        assert_eq!(answered(&two, Some(B)), [named(A, 1), named(B, 1)]);
        assert_eq!(answered(&two, Some(A)), [named(A, 1)], "the id is another task's");
    }

    #[test]
    fn what_runs_is_not_refused_by_the_same_message() {
        let task = format!(r#"{{"id":"{A}",{WORK}}}"#);
        let body = envelope(&format!(r#"[{task},{{"id":"{A}","work":0}}]"#));
        assert_eq!(answered(&body, Some(A)), []);
        let later = envelope(&format!(r#"[{task},{{"id":"{A}","attempt":2,"work":0}}]"#));
        assert_eq!(answered(&later, None), [named(A, 2)]);
    }

    #[test]
    fn the_tasks_of_a_body_that_cannot_be_read_are_named_as_far_as_it_can() {
        let task = format!(r#"{{"id":"{A}","attempt":2,{WORK}}}"#);
        let good = envelope(&format!("[{task}]"));
        for (body, what) in [
            (good.replace(":1,", ":9,"), "a version that is not known"),
            (good.replace(":1,", r#":"1","#), "a version that is text"),
            (good.replace(r#""version":1,"#, ""), "no version"),
            (good.replace("clutch.tasks", "clutch.jobs"), "a type that is not known"),
            (good.replace(r#""clutch.tasks""#, "null"), "no type"),
            (good.replace(":1,", r#":1,"version":1,"#), "a version twice"),
            (format!("\u{feff}{good}"), "a byte order mark"),
            (format!("{good}x"), "something after it"),
            (format!("{good}{good}"), "another one after it"),
            (good[..good.len() - 2].to_owned(), "a cut at the end"),
            (good[..good.len() - 20].to_owned(), "a cut in the task"),
            (envelope(&task), "one task for a list"),
        ] {
            assert_eq!(answered(&body, None), [named(A, 2)], "{what}");
            assert_eq!(answered(&body, Some(A)), [named(A, 2)], "{what}");
            assert_eq!(answered(&body, Some(B)), [named(A, 2), named(B, 1)], "{what}");
        }
        let twice = format!(
            r#"{{"version":1,"type":"clutch.tasks","tasks":[{task}],"tasks":[{{"id":"{B}"}}]}}"#
        );
        assert_eq!(answered(&twice, None), [named(A, 2), named(B, 1)]);
        let wide: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for body in [&wide[..], b"", b"null", b"[]", b"{}", b"\xff", b"{\"tasks\":null}"] {
            assert_eq!(answered(body, Some(A)), [named(A, 1)]);
            assert_eq!(answered(body, None), []);
        }
        let nested = "[".repeat(100_000);
        assert_eq!(answered(&nested, Some(A)), [named(A, 1)]);
        assert_eq!(answered(format!(r#"{{"tasks":{nested}"#), Some(A)), [named(A, 1)]);
    }
}
