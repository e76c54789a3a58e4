//! The endpoint's durable queue: the *inbox* of accepted tasks, the *outbox* of results not
//! yet released, and the *history* of attempts that finished.
//!
//! Sync, with one writer. A commit is durable as a whole or not at all. It is made in this
//! order: payloads that are large go into spool files ([`spool_files`]), which are made
//! durable; the records that hold or point to payloads ([`packing`]) are written to the
//! store ([`store`], in the daemon sled) and flushed; spool files that no record points to
//! any longer are removed.
//!
//! Promises:
//! - a value of the store stays below 1.5 KiB, so that a page of values stays far below a
//!   segment of sled's;
//! - a damaged record is put into quarantine and becomes a result that says so.

mod commit_counter;
mod damage;
mod deaths;
mod folder;
mod history;
mod home;
mod look;
mod open;
mod packing;
mod queue;
mod record;
mod reserve;
mod results;
mod running;
mod seen;
mod sled_store;
mod spill_policy;
mod spool_files;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod timer_slack;

#[cfg(test)]
pub(crate) use commit_counter::CommitCounter;
pub(crate) use deaths::Deaths;
pub(crate) use folder::FolderError;
pub(crate) use history::SeenView;
pub(crate) use home::Origin;
pub(crate) use look::{FolderLook, look};
#[cfg(test)]
pub(crate) use open::Parts;
pub(crate) use open::{OpenError, Options};
pub(crate) use queue::DiskQueue;
pub(crate) use running::{Note, NotedRun, RunNotes, Running};

use clutch_common::id::Attempt;
use clutch_common::task::Task;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

/// The sequence number of a task in the inbox; grows in the order of acceptance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Seq(pub u64);

/// The sequence number of a result in the outbox; grows in the order of finishing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct OutSeq(pub u64);

/// A result on its way into the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finished {
    /// The attempt that it is the result of.
    pub(crate) attempt: Attempt,
    /// The result as [`clutch_common::wire::encode_result`] wrote it.
    pub(crate) bytes: Vec<u8>,
}

/// A result in the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OutboxRecord {
    /// Its sequence number.
    pub(crate) seq: OutSeq,
    /// The attempt that it is the result of.
    pub(crate) attempt: Attempt,
    /// The result as [`clutch_common::wire::encode_result`] wrote it.
    pub(crate) bytes: Vec<u8>,
}

/// A task found in the inbox.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Accepted {
    /// Its sequence number.
    pub(crate) seq: Seq,
    /// The task.
    pub(crate) task: Task,
    /// Whether its start is on disk: it may have run.
    pub(crate) started: bool,
    /// Set for a task that is not [secured](Change::Secure).
    pub(crate) unsecured: Option<Unsecured>,
}

/// A task that another instance may be given as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unsecured {
    /// The highest attempt at the task that was known before it.
    pub(crate) before: Option<u32>,
}

/// One change to the queue.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A task enters the inbox.
    Accept {
        /// Its sequence number, above all used before.
        seq: Seq,
        /// The task.
        task: Arc<Task>,
        /// Whether no other instance can be given it.
        secured: bool,
    },
    /// No other instance can be given a task any more.
    Secure {
        /// The task.
        seq: Seq,
    },
    /// A task is about to start.
    Start {
        /// The task.
        seq: Seq,
    },
    /// A task leaves the inbox, and its result enters the outbox.
    Finish {
        /// The task; none if it was never in the inbox.
        inbox: Option<Seq>,
        /// The result's sequence number, above all used before.
        out: OutSeq,
        /// The result.
        result: Arc<Finished>,
    },
    /// A task leaves the inbox as if it had never been accepted, and a result that says so
    /// enters the outbox.
    HandBack {
        /// The task.
        inbox: Seq,
        /// The highest attempt at the task that was known before it was accepted.
        before: Option<u32>,
        /// The result's sequence number, above all used before.
        out: OutSeq,
        /// The result.
        result: Arc<Finished>,
    },
    /// A result leaves the outbox.
    Release {
        /// The result.
        out: OutSeq,
    },
}

/// Why the queue cannot go on. Nothing that was committed is lost by it.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the disk queue in {path} failed")]
pub(crate) struct Error {
    path: PathBuf,
    doing: &'static str,
    source: Box<dyn StdError + Send + Sync>,
}
