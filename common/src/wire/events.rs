//! Events, in which an endpoint tells about running work. Pure.
//!
//! Events travel through the exchange `events`, which is bounded: any of them may be lost,
//! and nothing that is recorded depends on one. A *complete* message tells every attempt
//! that the endpoint has; the others tell what changed since.

use super::envelope::enveloped;
use crate::id::{Attempt, EndpointId, StateId, TaskId};
use crate::task::blob::Blob;
use crate::task::json::Json;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The AMQP `type` of events.
pub const EVENTS_TYPE: &str = "clutch.events";

/// How far an attempt is at its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for a slot.
    Accepted,
    /// It has a slot.
    Running,
}

/// The last progress that a task has told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TaskProgress {
    /// How much of the work is done, from 0 to 1, where the task says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// A line for people; at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Data of the task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// When it was told, in milliseconds since the Unix epoch, by the endpoint's clock.
    pub at_ms: u64,
}

/// A send or a receive of a task that is open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MessageWait {
    /// Since when, in milliseconds since the Unix epoch, by the endpoint's clock.
    pub since_ms: u64,
    /// The addressees: one of a send, and all of a receive.
    pub addressees: Vec<String>,
    /// Of a send, the task that has not taken the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<TaskId>,
    /// Of a receive, the task that alone may have sent the message, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TaskId>,
}

impl MessageWait {
    /// The one task that can end it, where there is one.
    #[must_use]
    pub fn waits_for(&self) -> Option<TaskId> {
        self.to.or(self.from)
    }
}

/// An attempt as its endpoint has it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptEvent {
    /// The attempt.
    pub attempt: Attempt,
    /// How far it is.
    pub phase: Phase,
    /// Since when, in milliseconds since the Unix epoch, by the endpoint's clock.
    pub since_ms: u64,
    /// When it was accepted, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at_ms: Option<u64>,
    /// Its last progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<TaskProgress>,
    /// Why it waits, in words, where it waits for something other than a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Its sends and receives that have been open for a while: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<MessageWait>,
}

/// An output stream of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of the output of an attempt that is followed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OutputEvent {
    /// The attempt.
    pub attempt: Attempt,
    /// The stream.
    pub stream: StreamName,
    /// The position of its first byte in the stream, in bytes. Where it is behind the end
    /// of the piece before, the bytes between them were left out.
    pub from: u64,
    /// The bytes.
    pub bytes: Blob,
}

/// The load of an endpoint, and what keeps it from starting tasks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// How many tasks may run at once.
    pub slots: u64,
    /// How many run.
    pub running: u64,
    /// How many slots those take.
    #[serde(default)]
    pub slots_used: u64,
    /// How many are accepted and wait for a slot.
    pub accepted: u64,
    /// How many results the broker has not confirmed.
    pub undelivered: u64,
    /// Whether it starts no tasks, as it was told to drain.
    #[serde(default)]
    pub draining: bool,
    /// Whether its inbox is full, so that it reads no more tasks.
    #[serde(default)]
    pub inbox_full: bool,
    /// The troubles of the endpoint, in words: a full disk, a function with workers that do
    /// not start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// A message in which an endpoint tells about running work.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Events {
    /// The endpoint.
    pub endpoint_id: EndpointId,
    /// Its state folder.
    pub state_id: StateId,
    /// The session that tells it.
    pub instance: Uuid,
    /// When it was told, in milliseconds since the Unix epoch, by the endpoint's clock.
    pub at_ms: u64,
    /// Whether the attempts that it does not name are not at this endpoint. A complete
    /// report may take several messages: then this is true in the first only.
    #[serde(default)]
    pub complete: bool,
    /// The load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Attempts that came to a phase, or have new progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptEvent>,
    /// Output of attempts that are followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<OutputEvent>,
}

/// Encodes events into a body.
#[must_use]
pub fn encode_events(events: &Events) -> Vec<u8> {
    enveloped(EVENTS_TYPE, events)
}
