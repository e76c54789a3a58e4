//! What is measured in small: the disk queue, and the choice of the next task.
//! Each is one operation on a batch of tasks, the way the daemon does it. Touches
//! the folder it is given. For the benchmarks alone: the crate promises nobody
//! else anything.

use crate::pending::inbox::{Bounds, Held, Inbox};
use crate::pending::poison::Standing;
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
    /// An empty one in a folder that does not exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let options = Options { path, endpoint_id: EndpointId::new(), seen_max: 1_000_000 };
        let (queue, _) = DiskQueue::open(&options)?;
        Ok(Self { queue, next: 0 })
    }

    /// Takes tasks in, replaces them by their results and lets these go, each in a
    /// commit of its own.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn pass(&mut self, tasks: &[Arc<Task>], results: &[TaskResult]) -> Result<()> {
        let names = self.next..;
        self.next += tasks.len() as u64;
        let seen = self.queue.seen();
        let accept = names.clone().zip(tasks).map(|(name, task)| {
            seen.note(task.attempt());
            Change::Accept { seq: Seq(name), task: Arc::clone(task), secured: true }
        });
        self.queue.apply(&accept.collect::<Vec<_>>())?;
        let finish = names.clone().zip(results).map(|(name, result)| Change::Finish {
            inbox: Some(Seq(name)),
            out: OutSeq(name),
            result: Arc::new(Finished {
                attempt: result.attempt(),
                bytes: wire::encode_result(result),
            }),
        });
        self.queue.apply(&finish.collect::<Vec<_>>())?;
        let release = names.zip(results).map(|(name, _)| Change::Release { out: OutSeq(name) });
        self.queue.apply(&release.collect::<Vec<_>>())?;
        Ok(())
    }
}

/// The inbox of an endpoint that runs two tasks at once, one of them a call.
pub struct Choice {
    inbox: Inbox,
}

impl Choice {
    /// An empty one, where of this function one call may run.
    #[must_use]
    pub fn new(function: &str) -> Self {
        let mut inbox = Inbox::new(Bounds { max_tasks: 1000, max_bytes: 1 << 24 });
        inbox.limit(BTreeMap::from([(function.to_owned(), 1)]), 2);
        Self { inbox }
    }

    /// Puts tasks in and takes each when a slot and its function are free. Tells
    /// how many were taken.
    #[must_use]
    pub fn pass(&mut self, tasks: &[Arc<Task>]) -> usize {
        let held = (0..).zip(tasks).map(|(seq, task)| Held {
            seq: Seq(seq),
            task: Arc::clone(task),
            started: false,
            deaths: Deaths::default(),
            standing: Standing::Clear,
        });
        held.for_each(|held| self.inbox.put(held));
        let (mut taken, mut running) = (0, self.inbox.take());
        while let Some(first) = running {
            running = self.inbox.take();
            self.inbox.free(&first);
            running = running.or_else(|| self.inbox.take());
            taken += 1;
        }
        taken
    }
}
