//! The runs that may use their socket, and what is known of those that ended. Pure, bounded.

use super::token::{Token, Tokens};
use crate::pending::stop::StopSignal;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::task::result::Outcome;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// How many outcomes of tasks that ended here are known.
const ENDED_MAX: usize = 10_000;
/// The most requests of one run that are open.
pub(crate) const REQUESTS_MAX: usize = 64;

/// A worker, by a number of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct WorkerNumber(u64);

/// The owner of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Run(TaskId),
    Worker(WorkerNumber),
}

/// A run that goes on.
#[derive(Debug)]
pub(super) struct LiveRun {
    /// Its attempt.
    pub(super) attempt: Attempt,
    /// The order to stop it.
    pub(super) stop: StopSignal,
    /// Wakes its requests.
    pub(super) changed: Arc<Notify>,
    /// When it began, in milliseconds since the Unix epoch.
    pub(super) since_ms: u64,
    /// How many of its requests are open.
    pub(super) open: usize,
    /// Its own token; none for a worker's call.
    token: Option<Token>,
    /// The worker that has the call.
    worker: Option<WorkerNumber>,
}

/// All runs, and the tokens.
#[derive(Debug, Default)]
pub(super) struct Runs {
    tokens: Tokens,
    owners: HashMap<Token, Owner>,
    runs: HashMap<TaskId, LiveRun>,
    ended: HashMap<TaskId, (u32, Outcome)>,
    order: VecDeque<TaskId>,
    workers: u64,
}

/// The bearer of a run's token, where it has one of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bearer {
    /// The run gets a token.
    Run,
    /// The worker has one.
    Worker(WorkerNumber),
}

impl Runs {
    /// Begins a run. Returns its token, if it gets one.
    pub(super) fn begin(
        &mut self,
        attempt: Attempt,
        stop: StopSignal,
        bearer: Bearer,
        since_ms: u64,
    ) -> Option<Token> {
        let token = (bearer == Bearer::Run).then(|| self.tokens.make());
        if let Some(token) = token {
            self.owners.insert(token, Owner::Run(attempt.task_id));
        }
        let worker = match bearer {
            Bearer::Run => None,
            Bearer::Worker(worker) => Some(worker),
        };
        self.ended.remove(&attempt.task_id);
        let changed = Arc::default();
        let run = LiveRun { attempt, stop, changed, since_ms, open: 0, token, worker };
        if let Some(before) = self.runs.insert(attempt.task_id, run) {
            self.over(&before);
        }
        token
    }

    /// Ends a run. Returns whether it went on.
    pub(super) fn end(&mut self, attempt: Attempt, outcome: Option<Outcome>) -> bool {
        let task = attempt.task_id;
        if self.runs.get(&task).is_none_or(|run| run.attempt != attempt) {
            return false;
        }
        if let Some(run) = self.runs.remove(&task) {
            self.over(&run);
        }
        if let Some(outcome) = outcome {
            if self.ended.insert(task, (attempt.attempt, outcome)).is_none() {
                self.order.push_back(task);
            }
            while self.order.len() > ENDED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.ended.remove(&oldest);
            }
        }
        true
    }

    fn over(&mut self, run: &LiveRun) {
        if let Some(token) = run.token {
            self.owners.remove(&token);
        }
        run.changed.notify_waiters();
    }

    /// Makes a token for a worker.
    pub(super) fn add_worker(&mut self) -> (WorkerNumber, Token) {
        self.workers += 1;
        let (worker, token) = (WorkerNumber(self.workers), self.tokens.make());
        self.owners.insert(token, Owner::Worker(worker));
        (worker, token)
    }

    /// A worker has ended: its token opens nothing.
    pub(super) fn remove_worker(&mut self, token: Token) {
        self.owners.remove(&token);
    }

    /// The run that a token is of. The token of a worker is of the one that is named, if the
    /// worker has that call.
    pub(super) fn of(&self, token: Token, named: Option<TaskId>) -> Option<&LiveRun> {
        match *self.owners.get(&token)? {
            Owner::Run(task) => self.runs.get(&task).filter(|_| named.is_none_or(|it| it == task)),
            Owner::Worker(worker) => {
                self.runs.get(&named?).filter(|run| run.worker == Some(worker))
            }
        }
    }

    /// The run of an attempt.
    pub(super) fn get(&self, attempt: Attempt) -> Option<&LiveRun> {
        self.runs.get(&attempt.task_id).filter(|run| run.attempt == attempt)
    }

    /// The run of an attempt, to change it.
    pub(super) fn get_mut(&mut self, attempt: Attempt) -> Option<&mut LiveRun> {
        self.runs.get_mut(&attempt.task_id).filter(|run| run.attempt == attempt)
    }

    /// Wakes the requests of a task.
    pub(super) fn wake(&self, task: TaskId) {
        if let Some(run) = self.runs.get(&task) {
            run.changed.notify_waiters();
        }
    }

    /// Wakes all requests.
    pub(super) fn wake_all(&self) {
        self.runs.values().for_each(|run| run.changed.notify_waiters());
    }

    /// How a task ended that ran here, if that is known.
    pub(super) fn ended(&self, task: TaskId) -> Option<(u32, Outcome)> {
        self.ended.get(&task).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> Attempt {
        Attempt { task_id: TaskId::new(), attempt: 1 }
    }

    fn begin(runs: &mut Runs, attempt: Attempt, bearer: Bearer) -> Option<Token> {
        runs.begin(attempt, StopSignal::new(), bearer, 0)
    }

    #[test]
    fn a_token_opens_its_run_until_that_ends_and_no_other() {
        let (mut runs, one, other) = (Runs::default(), attempt(), attempt());
        let token = begin(&mut runs, one, Bearer::Run).unwrap();
        begin(&mut runs, other, Bearer::Run).unwrap();
        assert_eq!(runs.of(token, None).unwrap().attempt, one);
        assert_eq!(runs.of(token, Some(one.task_id)).unwrap().attempt, one);
        assert!(runs.of(token, Some(other.task_id)).is_none());
        assert!(runs.end(one, Some(Outcome::Failed)));
        assert!(!runs.end(one, Some(Outcome::Failed)), "it has ended");
        assert!(runs.of(token, None).is_none());
        assert_eq!(runs.ended(one.task_id), Some((1, Outcome::Failed)));
        assert_eq!(runs.owners.len(), 1);
    }

    #[test]
    fn the_token_of_a_worker_opens_the_call_that_it_has() {
        let (mut runs, call, later) = (Runs::default(), attempt(), attempt());
        let (worker, token) = runs.add_worker();
        let (idle, other) = runs.add_worker();
        assert_ne!(worker, idle);
        assert!(begin(&mut runs, call, Bearer::Worker(worker)).is_none());
        assert_eq!(runs.of(token, Some(call.task_id)).unwrap().attempt, call);
        assert!(runs.of(token, None).is_none(), "it says whose call it is");
        assert!(runs.of(other, Some(call.task_id)).is_none(), "another worker");
        runs.end(call, None);
        begin(&mut runs, later, Bearer::Worker(worker));
        assert!(runs.of(token, Some(call.task_id)).is_none(), "the call was answered");
        assert!(runs.of(token, Some(later.task_id)).is_some());
        runs.remove_worker(token);
        assert!(runs.of(token, Some(later.task_id)).is_none());
    }

    #[test]
    fn another_run_of_a_task_ends_the_token_of_the_one_before() {
        let (mut runs, first) = (Runs::default(), attempt());
        let second = Attempt { attempt: 2, ..first };
        let token = begin(&mut runs, first, Bearer::Run).unwrap();
        begin(&mut runs, second, Bearer::Run);
        assert!(runs.of(token, None).is_none());
        assert!(!runs.end(first, Some(Outcome::Failed)));
        assert!(runs.get(second).is_some());
    }

    #[test]
    fn so_many_outcomes_are_known() {
        let mut runs = Runs::default();
        let all: Vec<Attempt> = (0..=ENDED_MAX).map(|_| attempt()).collect();
        for attempt in &all {
            begin(&mut runs, *attempt, Bearer::Run);
            runs.end(*attempt, Some(Outcome::Succeeded));
        }
        assert_eq!(runs.ended(all[0].task_id), None);
        assert!(runs.ended(all[1].task_id).is_some());
        assert_eq!((runs.runs.len(), runs.owners.len()), (0, 0));
    }
}
