//! The envelope around every message: `{"version": 1, "type": …, …}`. Pure.

use super::{MAX_BODY, VERSION};
use crate::id::{EndpointId, StateId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The fields that tell the messages apart.
#[derive(Deserialize)]
pub(super) struct Head {
    version: Option<u32>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Head {
    /// The type; empty if there is none.
    pub(super) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or_default()
    }

    /// Whether the version is the one that this build reads; the reason if it is not.
    pub(super) fn expect_version(&self) -> Result<(), String> {
        match self.version {
            None => Err("the envelope has no version".to_owned()),
            Some(VERSION) => Ok(()),
            Some(other) => {
                Err(format!("the envelope has version {other}, this build reads version {VERSION}"))
            }
        }
    }

    /// Whether the envelope is of this type, and of the version that this build reads; the
    /// reason if it is not.
    pub(super) fn expect(&self, expected: &str) -> Result<(), String> {
        self.expect_version()?;
        match self.kind.as_deref() {
            Some(kind) if kind == expected => Ok(()),
            Some(other) => Err(format!("the envelope is of type '{other}', expected '{expected}'")),
            None => Err(format!("the envelope has no type, expected '{expected}'")),
        }
    }
}

/// Puts encoded parts into an envelope; `head` is its text up to the first part.
pub(super) fn packed<P: AsRef<[u8]>>(head: &str, parts: &[P]) -> Vec<u8> {
    let size: usize = parts.iter().map(|part| part.as_ref().len() + 1).sum();
    let mut body = Vec::with_capacity(head.len() + size + 2);
    body.extend_from_slice(head.as_bytes());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(part.as_ref());
    }
    body.extend_from_slice(b"]}");
    body
}

/// An envelope of which everything can be read, as nearly always.
#[derive(Deserialize)]
pub(super) struct Sound<'a, T> {
    version: u32,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    pub(super) endpoint: Option<EndpointId>,
    #[serde(default)]
    pub(super) state: Option<StateId>,
    #[serde(default)]
    pub(super) age: Option<u64>,
    #[serde(default)]
    pub(super) published_at_ms: Option<u64>,
    #[serde(alias = "results", alias = "tasks")]
    pub(super) parts: Vec<T>,
}

/// Reads an envelope of this type in one pass. `None` if it is another envelope or any part
/// of it cannot be read: then each part is to be read by itself.
pub(super) fn sound<'a, T: Deserialize<'a>>(body: &'a [u8], kind: &str) -> Option<Sound<'a, T>> {
    if body.len() > MAX_BODY {
        return None;
    }
    let sound: Sound<'_, T> = serde_json::from_slice(body).ok()?;
    let expected = sound.version == VERSION && sound.kind == kind && !sound.parts.is_empty();
    expected.then_some(sound)
}

/// Reads the head of a body, or says why it has none.
pub(super) fn head(body: &[u8]) -> Result<Head, String> {
    if body.len() > MAX_BODY {
        return Err(format!(
            "the message has {} bytes, more than the limit of {MAX_BODY}: pass large data by file",
            body.len()
        ));
    }
    serde_json::from_slice(body)
        .map_err(|error| format!("the body is not a JSON envelope: {error}"))
}

/// Whether a body begins as [`enveloped`] writes one of this type.
pub(super) fn is_begun(body: &[u8], kind: &str) -> bool {
    const HEAD: &[u8] = br#"{"version":1,"type":""#;
    let rest = body.strip_prefix(HEAD).and_then(|rest| rest.strip_prefix(kind.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(br#"","#))
}

/// Encodes a message that carries neither tasks nor results.
pub(super) fn enveloped(kind: &str, content: &impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Envelope<'a, T> {
        version: u32,
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(flatten)]
        content: &'a T,
    }
    encode(&Envelope { version: VERSION, kind, content })
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(128);
    encode_into(&mut encoded, value);
    encoded
}

#[allow(clippy::expect_used, reason = "our own types: string keys, no failing serializer")]
pub(super) fn encode_into(to: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(to, value).expect("wire types always encode");
}
