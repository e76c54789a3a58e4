//! Facts about a running service that its operator should know. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Counts, since the service started, of messages that were not outcomes of its tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Anomalies {
    /// Results of tasks that were not in the records, and are kept as tasks of their own.
    pub(crate) unknown: u64,
    /// Of these, those from endpoints that this service did not provision.
    pub(crate) foreign: u64,
    /// Results of tasks that are forgotten, which came too late to be kept.
    #[serde(default)]
    pub(crate) forgotten: u64,
    /// Results that contradict the records, and are not recorded.
    pub(crate) refused: u64,
    /// Claims and results of attempts at tasks of topics that were placed anew since, or that are
    /// not known: they end nothing.
    #[serde(default)]
    pub(crate) stale: u64,
    /// Messages that could not be read, or are not their sender's: dead letters.
    pub(crate) dead_lettered: u64,
    /// Control messages of a kind or version that this build does not know, passed by.
    pub(crate) passed_by: u64,
}

/// A term of a queue of ours that takes messages from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct QueueHazard {
    /// The queue.
    pub(crate) queue: String,
    /// Its source, its effect and its remedy.
    pub(crate) words: String,
}
