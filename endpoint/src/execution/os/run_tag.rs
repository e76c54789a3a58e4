//! The tag by which a process is recognised as a member of a run, whatever it does to
//! hide it.
//!
//! A tag has two parts that every descendant inherits. Environment variables name task,
//! attempt and state folder, until a process clears them. The soft limit on real-time
//! CPU time carries a number of the run: it is inherited through fork, exec, `setsid`
//! and `env -i`, programs have no reason to change it, and as all numbers are above 2^62
//! microseconds it limits nothing.
//!
//! Touches only that limit: this process has a run's number while it starts that run's
//! first process, which has it from its first moment on. Promises that no process
//! without a tag is ever taken for a member.

use super::proc;
use clutch_common::id::{Attempt, EndpointId, StateId};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The variable with the id of a process's task.
pub(crate) const TASK_ID: &str = "CLUTCH_TASK_ID";
/// The variable with the attempt.
pub(crate) const ATTEMPT: &str = "CLUTCH_ATTEMPT";
/// The variable with the endpoint that runs it.
pub(crate) const ENDPOINT_ID: &str = "CLUTCH_ENDPOINT_ID";
/// The variable with the state folder of that endpoint.
pub(crate) const STATE_ID: &str = "CLUTCH_STATE_ID";

/// The variable with a worker's function.
const FUNCTION: &str = "CLUTCH_FUNCTION";
/// The variable with a worker's number.
const WORKER: &str = "CLUTCH_WORKER";

/// The smallest number, in microseconds: 146,000 years.
const FIRST_NUMBER: u64 = 1 << 62;

/// Makes the tags of one endpoint's runs.
#[derive(Debug)]
pub(crate) struct RunTags {
    endpoint_id: EndpointId,
    state_id: StateId,
    /// Whether the limit is free to carry a number.
    numbered: bool,
    next: AtomicU32,
}

/// The tag of one run or of one worker, or the one that all on a state folder share.
#[derive(Clone, Debug)]
pub(crate) struct RunTag {
    /// Environment entries (`NAME=value`) that a member has all of.
    environment: Vec<String>,
    /// Numbers that only members have.
    numbers: Option<RangeInclusive<u64>>,
}

impl RunTags {
    /// Prepares tags for the runs of an endpoint on a state folder. `seed` keeps the
    /// numbers of a restarted daemon apart from those of the one before.
    pub(crate) fn new(endpoint_id: EndpointId, state_id: StateId, seed: u32) -> Self {
        let lock = SpawnLock::take();
        let now = getrlimit(Resource::Rttime);
        drop(lock);
        // A limit that is set already stays as it is: it is either meant, or the tag of
        // an endpoint that this one runs under.
        let numbered = now.current.is_none() && now.maximum.is_none();
        Self { endpoint_id, state_id, numbered, next: AtomicU32::new(seed) }
    }

    /// Returns the environment variables that every process of `attempt` starts with.
    pub(crate) fn environment(&self, attempt: Attempt) -> [(&'static str, String); 4] {
        [
            (TASK_ID, attempt.task_id.to_string()),
            (ATTEMPT, attempt.attempt.to_string()),
            (ENDPOINT_ID, self.endpoint_id.to_string()),
            (STATE_ID, self.state_id.to_string()),
        ]
    }

    /// Makes the tag of a new run.
    pub(crate) fn for_run(&self, attempt: Attempt) -> RunTag {
        self.tag(self.next.fetch_add(1, Ordering::Relaxed), &self.environment(attempt))
    }

    /// Makes the environment variables that a new worker starts with, and its tag.
    pub(crate) fn for_worker(&self, function: &str) -> ([(&'static str, String); 4], RunTag) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let environment = [
            (FUNCTION, function.to_owned()),
            (WORKER, number.to_string()),
            (ENDPOINT_ID, self.endpoint_id.to_string()),
            (STATE_ID, self.state_id.to_string()),
        ];
        let tag = self.tag(number, &environment);
        (environment, tag)
    }

    fn tag(&self, number: u32, environment: &[(&'static str, String)]) -> RunTag {
        let number = base(self.state_id) + u64::from(number);
        RunTag {
            environment: environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            numbers: self.numbered.then_some(number..=number),
        }
    }

    /// Returns the tag that all runs on the state folder share.
    pub(crate) fn for_state(&self) -> RunTag {
        self.for_another(self.state_id)
    }

    /// Returns the tag that all runs on another state folder share.
    pub(crate) fn for_another(&self, state_id: StateId) -> RunTag {
        let base = base(state_id);
        RunTag {
            environment: vec![format!("{STATE_ID}={state_id}")],
            numbers: self.numbered.then_some(base..=base + u64::from(u32::MAX)),
        }
    }
}

/// The first number of a state folder: 2^62, then 30 bits of a state folder's id, then 32 bits of a run.
fn base(state_id: StateId) -> u64 {
    let state = state_id.0.as_u64_pair().1 & ((1 << 30) - 1);
    FIRST_NUMBER | (state << 32)
}

impl RunTag {
    /// Calls `start`, which starts a process, while this process has the tag's number, so
    /// that the new one inherits it. `start` is told whether no other process is started
    /// meanwhile. Blocks while other threads do the same. Where the system does not allow
    /// the number, or another start hangs, the environment alone is the tag.
    pub(crate) fn while_inherited<T>(&self, start: impl FnOnce(bool) -> T) -> T {
        let Some(_lock) = SpawnLock::take() else { return start(false) };
        let Some(numbers) = &self.numbers else { return start(true) };
        set_own_limit(Some(*numbers.start()));
        let started = start(true);
        set_own_limit(None);
        started
    }

    /// Whether `pid` bears the tag.
    pub(crate) fn is_on(&self, pid: Pid) -> bool {
        match (&self.numbers, proc::realtime_limit(pid)) {
            (Some(numbers), Some(number)) if number >= FIRST_NUMBER => numbers.contains(&number),
            _ => self.is_in(&proc::environ(pid)),
        }
    }

    fn is_in(&self, environ: &[u8]) -> bool {
        self.environment
            .iter()
            .all(|entry| environ.split(|&byte| byte == 0).any(|found| found == entry.as_bytes()))
    }
}

/// The right to start a process: one for this process, as the limit is one for it.
#[derive(Debug)]
pub(crate) struct SpawnLock(());

static TAKEN: Mutex<bool> = Mutex::new(false);
static GIVEN_BACK: Condvar = Condvar::new();
/// How long to wait for the lock. A start takes about a millisecond, but hangs
/// with the file system that its program is on.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

impl SpawnLock {
    /// Waits for the lock; `None` if another thread keeps it for too long.
    pub(crate) fn take() -> Option<Self> {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, waited) = GIVEN_BACK
            .wait_timeout_while(taken, LOCK_TIMEOUT, |taken| *taken)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            tracing::warn!("the start of a process hangs: look at the file systems of this host");
            return None;
        }
        *taken = true;
        Some(Self(()))
    }
}

impl Drop for SpawnLock {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        GIVEN_BACK.notify_one();
    }
}

fn set_own_limit(number: Option<u64>) {
    let limit = Rlimit { current: number, maximum: None };
    if let Err(error) = prlimit(None, Resource::Rttime, limit) {
        tracing::debug!(%error, "processes could not be tagged with a number");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;

    fn attempt() -> Attempt {
        Attempt { task_id: TaskId::new(), attempt: 3 }
    }

    #[test]
    fn a_run_is_known_by_all_of_its_entries_and_nothing_else() {
        let tags = RunTags::new(EndpointId::new(), StateId::new(), 0);
        let (mine, other) = (attempt(), attempt());
        let environ = |attempt| {
            let vars = tags.environment(attempt).map(|(name, value)| format!("{name}={value}"));
            format!("HOME=/\0{}\0X=1\0", vars.join("\0")).into_bytes()
        };
        let tag = tags.for_run(mine);
        assert!(tag.is_in(&environ(mine)));
        assert!(!tag.is_in(&environ(other)));
        assert!(!tag.is_in(&environ(Attempt { attempt: 30, ..mine })));
        assert!(!tag.is_in(b""));
        assert!(tags.for_state().is_in(&environ(mine)));
        assert!(tags.for_state().is_in(&environ(other)));
        let elsewhere = RunTags::new(EndpointId::new(), StateId::new(), 0);
        assert!(!elsewhere.for_state().is_in(&environ(mine)));
    }

    #[test]
    fn numbers_tell_runs_and_state_folders_apart_and_limit_nothing() {
        let tags = RunTags::new(EndpointId::new(), StateId::new(), u32::MAX);
        let numbers = |tag: RunTag| tag.numbers.unwrap();
        let (first, second) = (numbers(tags.for_run(attempt())), numbers(tags.for_run(attempt())));
        assert_ne!(first, second);
        let all = numbers(tags.for_state());
        assert!(all.contains(first.start()) && all.contains(second.start()));
        assert!(*all.start() >= FIRST_NUMBER, "a limit that could be reached");
        let elsewhere = numbers(RunTags::new(EndpointId::new(), StateId::new(), 0).for_state());
        assert!(!all.contains(elsewhere.start()) && !elsewhere.contains(all.start()));
    }
}
