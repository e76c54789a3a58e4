//! The operations that the microbenchmarks measure: the disk queue, and the choice of the
//! next task, each on a batch of tasks as the daemon does it. Touches the folder it is
//! given. For the benchmarks alone: not a public interface.

use crate::pending::inbox::{Bounds, FreeSlots, Held, Inbox};
use crate::pending::poison::Standing;
use crate::pending::stop::StopSignal;
use crate::storage::disk_queue::{Change, Deaths, DiskQueue, Finished, Options, OutSeq, Seq};
use anyhow::Result;
use clutch_common::id::EndpointId;
use clutch_common::task::Task;
use clutch_common::task::result::TaskResult;
use clutch_common::wire;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The disk queue.
pub struct Queue {
    queue: DiskQueue,
    next: u64,
}

impl Queue {
    /// Makes an empty queue in a folder that does not exist.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let options = Options { path, endpoint_id: EndpointId::new(), seen_max: 1_000_000 };
        let (queue, _) = DiskQueue::open(&options)?;
        Ok(Self { queue, next: 0 })
    }

    /// Accepts tasks, replaces them by their results and releases these, each in a
    /// commit of its own.
    ///
    /// # Errors
    /// The disk fails.
    pub fn pass(&mut self, tasks: &[Arc<Task>], results: &[TaskResult]) -> Result<()> {
        let seqs = self.next..;
        self.next += tasks.len() as u64;
        let seen = self.queue.seen();
        let accept = seqs.clone().zip(tasks).map(|(seq, task)| {
            seen.note(task.attempt());
            Change::Accept { seq: Seq(seq), task: Arc::clone(task), secured: true }
        });
        self.queue.apply(&accept.collect::<Vec<_>>())?;
        let finish = seqs.clone().zip(results).map(|(seq, result)| Change::Finish {
            inbox: Some(Seq(seq)),
            out: OutSeq(seq),
            result: Arc::new(Finished {
                attempt: result.attempt(),
                bytes: wire::encode_result(result),
            }),
        });
        self.queue.apply(&finish.collect::<Vec<_>>())?;
        let release = seqs.zip(results).map(|(seq, _)| Change::Release { out: OutSeq(seq) });
        self.queue.apply(&release.collect::<Vec<_>>())?;
        Ok(())
    }
}

/// The inbox of an endpoint with two slots, where one function may have one call.
pub struct Choice {
    inbox: Inbox,
}

impl Choice {
    /// Creates an empty inbox; one call of `function` may run at once.
    #[must_use]
    pub fn new(function: &str) -> Self {
        let mut inbox = Inbox::new(Bounds { max_tasks: 1000, max_bytes: 1 << 24 });
        inbox.limit(BTreeMap::from([(function.to_owned(), 1)]));
        Self { inbox }
    }

    /// Puts tasks in and takes each when a slot and its function are free. Returns how
    /// many were taken.
    #[must_use]
    pub fn pass(&mut self, tasks: &[Arc<Task>]) -> usize {
        let held = (0..).zip(tasks).map(|(seq, task)| Held {
            seq: Seq(seq),
            task: Arc::clone(task),
            started: false,
            accepted_at_ms: None,
            deaths: Deaths::default(),
            standing: Standing::Clear,
            stop: StopSignal::new(),
        });
        held.for_each(|held| self.inbox.put(held));
        let slots = FreeSlots { free: 1, all: 2 };
        let (mut taken, mut running) = (0, self.inbox.take_fitting(slots));
        while let Some(first) = running {
            running = self.inbox.take_fitting(slots);
            self.inbox.free(&first);
            running = running.or_else(|| self.inbox.take_fitting(slots));
            taken += 1;
        }
        taken
    }
}
