//! Which worker of a function has which call. Pure state behind a lock.

use clutch_common::id::Attempt;
use rustix::process::Pid;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The workers that have a call, few at a time.
#[derive(Debug, Default)]
pub(super) struct BusyWorkers(Mutex<Vec<(Attempt, Pid)>>);

impl BusyWorkers {
    /// Notes that a worker has a call, until the note is dropped.
    pub(super) fn note(&self, worker: Pid, attempt: Attempt) -> BusyNote<'_> {
        self.lock().push((attempt, worker));
        BusyNote { workers: self, worker }
    }

    /// Returns the calls, each with the worker's process.
    pub(super) fn calls(&self) -> Vec<(Attempt, u32)> {
        let number = |pid: Pid| u32::try_from(pid.as_raw_nonzero().get()).ok();
        self.lock().iter().filter_map(|(attempt, pid)| Some((*attempt, number(*pid)?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Attempt, Pid)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that has a call.
pub(super) struct BusyNote<'a> {
    workers: &'a BusyWorkers,
    worker: Pid,
}

impl Drop for BusyNote<'_> {
    fn drop(&mut self) {
        let mut calls = self.workers.lock();
        if let Some(place) = calls.iter().position(|(_, worker)| *worker == self.worker) {
            calls.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;

    #[test]
    fn a_worker_has_its_call_until_it_has_answered() {
        let workers = BusyWorkers::default();
        let attempt = |attempt| Attempt { task_id: TaskId::new(), attempt };
        let (one, two) = (attempt(1), attempt(2));
        let pid = |number| Pid::from_raw(number).unwrap();
        let first = workers.note(pid(7), one);
        let second = workers.note(pid(8), two);
        assert_eq!(workers.calls(), [(one, 7), (two, 8)]);
        drop(first);
        assert_eq!(workers.calls(), [(two, 8)]);
        drop(second);
        assert_eq!(workers.calls(), []);
    }
}
