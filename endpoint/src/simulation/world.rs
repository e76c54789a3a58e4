//! The world of a run: the random numbers, the plan, the conditions, the oracle and the
//! trace, which all parts of it share. Reads no clock but the runtime's, which stands still while anything
//! can go on.

use super::oracle::{Broken, Oracle};
use super::plan::{Mishap, Plan};
use super::process::Life;
use super::rng::Rng;
use super::trace::Trace;
use super::wire::Wire;
use clutch_common::link::Message;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many messages or orders may be under way in one direction: more than a run has.
pub(super) const QUEUED: usize = 100_000;

/// The world of one run.
pub(super) struct World {
    pub(super) plan: Plan,
    began: tokio::time::Instant,
    /// The tasks of the network between processes.
    pub(super) network: TaskTracker,
    /// Cancelled when a promise was broken.
    pub(super) broken: CancellationToken,
    rng: Mutex<Rng>,
    oracle: Mutex<Oracle>,
    trace: Mutex<Trace>,
    verdict: Mutex<Option<Broken>>,
    faults_over: AtomicBool,
    conditions: Mutex<Conditions>,
    lives: Mutex<Vec<Arc<Life>>>,
}

/// The faults of the network that last, and the way to the instance that has the lease.
#[derive(Default)]
pub(super) struct Conditions {
    /// The broker is not there.
    pub(super) broker_down: bool,
    /// These instances reach nothing.
    pub(super) cut_off: BTreeSet<usize>,
    /// The connection that had the lease last, and where calls reach it.
    pub(super) holder: Option<(Arc<Wire>, mpsc::Sender<Message>)>,
}

impl World {
    /// The world of a seed.
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let most = plan.message_tasks as usize;
        let inbox_max = plan.bounds.max_tasks - 1 + most;
        let world = Self {
            oracle: Mutex::new(Oracle::new(&plan, inbox_max)),
            plan,
            began: tokio::time::Instant::now(),
            network: TaskTracker::new(),
            broken: CancellationToken::new(),
            rng: Mutex::new(rng),
            trace: Mutex::new(Trace::new()),
            verdict: Mutex::new(None),
            faults_over: AtomicBool::new(false),
            conditions: Mutex::default(),
            lives: Mutex::default(),
        };
        world.note(format_args!("{:?}", world.plan));
        Arc::new(world)
    }

    /// Whether something goes wrong here and now.
    pub(super) fn mishap(&self, mishap: Mishap) -> bool {
        let times = self.plan.once_in(mishap).filter(|_| !self.faults_are_over());
        times.is_some_and(|times| lock(&self.rng).once_in(times))
    }

    /// The time by the service's clock, in milliseconds since the Unix epoch.
    pub(super) fn clock_ms(&self) -> u64 {
        1_000_000 + self.began.elapsed().as_millis() as u64
    }

    /// True half of the times.
    pub(super) fn flip(&self) -> bool {
        lock(&self.rng).once_in(2)
    }

    /// A number of a range.
    pub(super) fn within(&self, range: Range<u64>) -> u64 {
        lock(&self.rng).within(range)
    }

    /// A number of milliseconds of a range.
    pub(super) fn millis(&self, range: Range<u64>) -> Duration {
        lock(&self.rng).millis(range)
    }

    /// Waits as long as something takes on its way.
    pub(super) async fn travel(&self) {
        let slow = self.mishap(Mishap::SlowLink);
        tokio::time::sleep(self.millis(if slow { 100..8_000 } else { 0..20 })).await;
    }

    /// Nothing goes wrong from now on.
    pub(super) fn end_faults(&self) {
        self.faults_over.store(true, Ordering::Relaxed);
        {
            let mut conditions = self.conditions();
            conditions.broker_down = false;
            conditions.cut_off.clear();
        }
        self.lives().iter().for_each(|life| life.gate.freeze(false));
        self.note(format_args!("no more faults"));
    }

    /// Whether nothing goes wrong any more.
    pub(super) fn faults_are_over(&self) -> bool {
        self.faults_over.load(Ordering::Relaxed)
    }

    /// The faults of the network that last.
    pub(super) fn conditions(&self) -> MutexGuard<'_, Conditions> {
        lock(&self.conditions)
    }

    /// Sends a call to the connection that has the lease.
    pub(super) fn call(&self, call: Message) {
        if let Some((wire, calls)) = &self.conditions().holder
            && !wire.is_severed()
        {
            drop(calls.try_send(call));
        }
    }

    /// The processes that there have been.
    pub(super) fn lives(&self) -> MutexGuard<'_, Vec<Arc<Life>>> {
        lock(&self.lives)
    }

    /// Notes an event.
    pub(super) fn note(&self, event: fmt::Arguments<'_>) {
        lock(&self.trace).note(event);
    }

    /// Tells the oracle something, or asks it.
    pub(super) fn tell<T>(&self, what: impl FnOnce(&mut Oracle) -> T) -> T {
        what(&mut lock(&self.oracle))
    }

    /// Lets the oracle judge something. The first promise that is broken ends
    /// the run.
    pub(super) fn judge<T>(
        &self,
        what: impl FnOnce(&mut Oracle) -> Result<T, Broken>,
    ) -> Option<T> {
        self.tell(what).map_err(|broken| self.fail(broken)).ok()
    }

    /// A promise is broken.
    pub(super) fn fail(&self, broken: Broken) {
        self.note(format_args!("BROKEN: {broken}"));
        lock(&self.verdict).get_or_insert(broken);
        self.broken.cancel();
    }

    /// The promise that was broken first, and the trace so far.
    pub(super) fn end(&self) -> (Option<Broken>, Trace) {
        let trace = std::mem::replace(&mut *lock(&self.trace), Trace::new());
        (lock(&self.verdict).take(), trace)
    }
}

/// Locks what no panic leaves in between.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
