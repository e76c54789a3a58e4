//! The endpoint's pending work: tasks that are accepted, run, or wait, and results that are
//! sent, confirmed and released.
//!
//! [`Pending`] decides all of it: the order in which tasks start, the room there is, the
//! sequence numbers, and the changes that the disk has to make. It is pure, and one lock is
//! around it. [`ledger`] joins it with the journal on disk; [`inbox`] and [`outbox`] are its
//! parts, [`poison`] judges tasks with which the endpoint died.

pub(crate) mod cancels;
pub(crate) mod claims;
pub(crate) mod drain;
pub(crate) mod inbox;
pub(crate) mod ledger;
pub(crate) mod look;
pub(crate) mod offer;
pub(crate) mod outbox;
pub(crate) mod poison;
mod slots;
pub(crate) mod stop;
#[cfg(test)]
mod tests;

use crate::storage::disk_queue::Change;
use crate::storage::journal::{Accepted, Deaths, Finished, OutSeq, OutboxRecord, Recovered, Seq};
use cancels::Cancels;
use clutch_common::id::Attempt;
use clutch_common::task::Task;
use clutch_common::wire::Cancel;
use drain::{Drained, DrainedBy, Drains};
use inbox::listing::Listed;
use inbox::{Bounds, FreeSlots, Held, Inbox, UnsecuredTask};
use outbox::{Next, Outbox};
use poison::Standing;
use slots::RunningTasks;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use stop::{StopReason, StopSignal};

/// Limits that pending work keeps to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How much the inbox takes.
    pub(crate) bounds: Bounds,
    /// How often the daemon may die while a task runs; 0 for no limit.
    pub(crate) poison_after: u64,
}

/// The parts of the daemon that something may have changed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wakes {
    /// A task may start.
    pub(crate) engine: bool,
    /// There may be room in the inbox.
    pub(crate) subscriber: bool,
    /// A result may be sent.
    pub(crate) publisher: bool,
    /// The endpoint is drained, or not any more, or has another deadline for that.
    pub(crate) drain: bool,
    /// A task came where none was pending.
    pub(crate) first: bool,
    /// An attempt of a topic may be claimed, or given up.
    pub(crate) claims: bool,
}

/// How a cancel found an attempt that has no slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// It waits in the inbox.
    Waiting,
    /// It was never accepted.
    Unknown,
}

/// How many attempts a cancel found, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CancelCounts {
    /// They waited.
    pub(crate) waiting: usize,
    /// They run, and are being stopped.
    pub(crate) running: usize,
    /// They were never accepted.
    pub(crate) unknown: usize,
}

/// All pending work, and every decision about it.
#[derive(Debug)]
pub(crate) struct Pending {
    inbox: Inbox,
    outbox: Outbox,
    slots: RunningTasks,
    cancels: Cancels,
    drains: Drains,
    /// The sequence number of the next task.
    next_task: Seq,
    /// How often the daemon died while each task ran.
    deaths: HashMap<Attempt, Deaths>,
    poison_after: u64,
    /// How many slots there are, as the engine said last.
    all_slots: usize,
    wakes: Wakes,
}

impl Pending {
    /// The pending work that an earlier life of the daemon left on disk. Tasks that it had
    /// not secured are unsecured again, as it is not known what became of them.
    pub(crate) fn restore(found: &mut Recovered, limits: Limits) -> Self {
        let mut pending = Self {
            inbox: Inbox::new(limits.bounds),
            outbox: Outbox::new(found.next_out, found.outbox),
            slots: RunningTasks::default(),
            cancels: Cancels::default(),
            drains: Drains::default(),
            next_task: found.next_task,
            deaths: std::mem::take(&mut found.deaths),
            poison_after: limits.poison_after,
            all_slots: 0,
            wakes: Wakes::default(),
        };
        for Accepted { seq, task, started, unsecured } in found.tasks.drain(..) {
            let held = pending.hold(seq, Arc::new(task), started, None);
            match unsecured {
                Some(unsecured) => {
                    pending.inbox.put_unsecured(UnsecuredTask { held, before: unsecured.before });
                }
                None => pending.put(held),
            }
        }
        pending
    }

    /// The parts to wake since the last call.
    pub(crate) fn take_wakes(&mut self) -> Wakes {
        std::mem::take(&mut self.wakes)
    }

    /// Accepts tasks at a time, which may start at once. One that is cancelled has a result instead,
    /// which `cancelled` makes.
    pub(crate) fn accept(
        &mut self,
        tasks: Vec<Arc<Task>>,
        now_ms: u64,
        cancelled: impl Fn(Attempt) -> Arc<Finished>,
    ) -> (Vec<OutSeq>, Vec<Change>) {
        let mut outs = Vec::new();
        self.wakes.first |= self.tasks() == 0 && !tasks.is_empty();
        let accept = |task: Arc<Task>| {
            if let Some(change) = self.refuse_cancelled(&task, &mut outs, &cancelled) {
                return change;
            }
            let seq = self.next_seq();
            self.put(self.hold(seq, Arc::clone(&task), false, Some(now_ms)));
            Change::Accept { seq, task, secured: true }
        };
        let changes = tasks.into_iter().map(accept).collect();
        (outs, changes)
    }

    /// Accepts tasks at a time, which may start once they are [secured](Pending::secure), each with
    /// the highest attempt at it that was known before.
    pub(crate) fn accept_unsecured(
        &mut self,
        tasks: Vec<(Option<u32>, Arc<Task>)>,
        now_ms: u64,
        cancelled: impl Fn(Attempt) -> Arc<Finished>,
    ) -> (Vec<OutSeq>, Vec<Change>) {
        let mut outs = Vec::new();
        self.wakes.first |= self.tasks() == 0 && !tasks.is_empty();
        let accept = |(before, task): (Option<u32>, Arc<Task>)| {
            if let Some(change) = self.refuse_cancelled(&task, &mut outs, &cancelled) {
                self.inbox.skip_unsecured();
                return change;
            }
            let seq = self.next_seq();
            let held = self.hold(seq, Arc::clone(&task), false, Some(now_ms));
            self.inbox.put_unsecured(UnsecuredTask { held, before });
            Change::Accept { seq, task, secured: false }
        };
        let changes = tasks.into_iter().map(accept).collect();
        (outs, changes)
    }

    /// The result of a task that a cancel in force covers.
    fn refuse_cancelled(
        &mut self,
        task: &Task,
        outs: &mut Vec<OutSeq>,
        cancelled: impl Fn(Attempt) -> Arc<Finished>,
    ) -> Option<Change> {
        let attempt = task.attempt();
        if !self.cancels.cover(attempt) {
            return None;
        }
        let (out, change) = self.finish(None, cancelled(attempt));
        self.hold_back(out);
        outs.push(out);
        Some(change)
    }

    /// Lets the `count` tasks start that have been unsecured for longest.
    pub(crate) fn secure(&mut self, count: usize) -> Vec<Change> {
        self.wakes.engine = true;
        self.wakes.claims = true;
        self.inbox.secure(count).into_iter().map(|seq| Change::Secure { seq }).collect()
    }

    /// Whether any task is unsecured.
    pub(crate) fn has_unsecured(&mut self) -> bool {
        self.inbox.has_unsecured()
    }

    /// Counts all tasks that wait for a slot as unsecured.
    pub(crate) fn unsecure_waiting(&mut self) {
        self.inbox.unsecure_waiting();
    }

    /// Hands back all unsecured tasks: each leaves the inbox, is forgotten, and has a result
    /// that says so, which `result` makes.
    pub(crate) fn hand_back(
        &mut self,
        result: impl Fn(Attempt) -> Arc<Finished>,
    ) -> (Vec<OutSeq>, Vec<Change>) {
        let unsecured = self.inbox.take_unsecured();
        self.wakes.subscriber |= !unsecured.is_empty();
        let hand_back = |UnsecuredTask { held, before }| {
            let result = result(held.task.attempt());
            let out = self.put_out(Arc::clone(&result));
            (out, Change::HandBack { inbox: held.seq, before, out, result })
        };
        unsecured.into_iter().map(hand_back).unzip()
    }

    /// Adds the result of a task, which leaves the inbox if it was in it.
    pub(crate) fn finish(
        &mut self,
        held: Option<&Held>,
        result: Arc<Finished>,
    ) -> (OutSeq, Change) {
        let out = self.put_out(Arc::clone(&result));
        if let Some(held) = held {
            self.slots.free(held.seq);
            self.wakes.engine |= self.inbox.free(held);
            self.wakes.subscriber = true;
            self.wakes.claims |= self.inbox.has_unclaimed();
        }
        (out, Change::Finish { inbox: held.map(|held| held.seq), out, result })
    }

    /// Has a result sent only once it is on disk: the task has not run to its end, and must not
    /// start again after it was said that it will not.
    pub(crate) fn hold_back(&mut self, result: OutSeq) {
        self.outbox.hold_back(result);
    }

    /// Notes that results are on disk.
    pub(crate) fn on_disk(&mut self, results: &[OutSeq]) {
        self.outbox.on_disk(results);
    }

    /// Releases results that the broker has confirmed.
    pub(crate) fn release(&mut self, results: &[OutSeq]) -> Vec<Change> {
        self.outbox.release(results);
        results.iter().map(|out| Change::Release { out: *out }).collect()
    }

    /// Notes that the disk has released results.
    pub(crate) fn released(&mut self, results: &[OutSeq]) {
        self.outbox.released(results);
    }

    /// Where the results from `next` on are: at most `max` of those in memory, at most
    /// `max_bytes` unless the first alone is larger.
    pub(crate) fn results(&mut self, next: OutSeq, max: usize, max_bytes: usize) -> Next {
        self.outbox.from(next, max, max_bytes)
    }

    /// The results to be sent, of all that the disk has in a range.
    pub(crate) fn unreleased(
        &mut self,
        range: Range<OutSeq>,
        page: Vec<OutboxRecord>,
    ) -> Vec<OutboxRecord> {
        self.outbox.unreleased(range, page)
    }

    /// Has no more calls of these functions run than they allow. To be told before the first
    /// task is taken.
    pub(crate) fn limit(&mut self, functions: BTreeMap<String, usize>) {
        self.inbox.limit(functions);
    }

    /// Changes the limits. Tasks that are here keep their standing.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.inbox.set_bounds(limits.bounds);
        self.poison_after = limits.poison_after;
        self.wakes.subscriber = true;
    }

    /// Lets no task start until [`Pending::open`].
    pub(crate) fn shut(&mut self) {
        self.inbox.shut();
    }

    /// Lets tasks start.
    pub(crate) fn open(&mut self) {
        self.wakes.engine |= self.inbox.open();
        self.wakes.claims |= self.inbox.has_unclaimed();
    }

    /// Whether no task may start, and one waits for that.
    pub(crate) fn holds_back(&self) -> bool {
        self.inbox.holds_back()
    }

    /// Takes the task that is to start next, if it fits.
    pub(crate) fn take_fitting(&mut self, slots: FreeSlots) -> Option<Held> {
        self.all_slots = slots.all;
        if self.drains.is_draining() {
            return None;
        }
        let held = self.inbox.take_fitting(slots)?;
        self.slots.take(&held);
        self.wakes.claims |= held.task.topic.is_some() && self.inbox.has_unclaimed();
        Some(held)
    }

    /// Takes the task that is to start next.
    #[cfg(test)]
    pub(crate) fn take(&mut self) -> Option<Held> {
        self.take_fitting(FreeSlots::ENOUGH)
    }

    /// Takes a task back that was stopped without an outcome: it waits again.
    pub(crate) fn put_back(&mut self, held: Held) {
        self.slots.free(held.seq);
        self.wakes.engine |= self.inbox.put_back(Held { stop: StopSignal::new(), ..held });
        self.wakes.engine |= !self.drains.is_draining();
    }

    /// Puts a cancel in force, and obeys it: tasks that wait leave the inbox, each with a
    /// result that `result` makes, and tasks that run are stopped. Attempts that are `unknown`
    /// have a result that says so.
    pub(crate) fn cancel(
        &mut self,
        cancel: &Cancel,
        unknown: Vec<Attempt>,
        result: impl Fn(Attempt, Found) -> Arc<Finished>,
    ) -> (CancelCounts, Vec<OutSeq>, Vec<Change>) {
        self.cancels.add(cancel.number, &cancel.attempts);
        let mut named = Cancels::default();
        named.add(cancel.number, &cancel.attempts);
        let waiting = self.inbox.cancel(|attempt| named.cover(attempt));
        let running = self.slots.cancel(|attempt| named.cover(attempt));
        self.wakes.subscriber |= !waiting.is_empty();
        let counts = CancelCounts { waiting: waiting.len(), running, unknown: unknown.len() };
        let waiting = waiting.into_iter().map(|held| {
            let result = result(held.task.attempt(), Found::Waiting);
            (Some(held.seq), result)
        });
        let unknown = unknown.into_iter().map(|attempt| (None, result(attempt, Found::Unknown)));
        let ended = waiting.chain(unknown).map(|(inbox, result)| {
            let out = self.put_out(Arc::clone(&result));
            if inbox.is_some() {
                self.hold_back(out);
            }
            (out, Change::Finish { inbox, out, result })
        });
        let (outs, changes) = ended.unzip();
        (counts, outs, changes)
    }

    /// Whether a cancel in force covers an attempt.
    pub(crate) fn is_cancelled(&self, attempt: Attempt) -> bool {
        self.cancels.cover(attempt)
    }

    /// Ends the cancels up to a number.
    pub(crate) fn release_cancels(&mut self, up_to: u64) {
        self.cancels.release(up_to);
    }

    /// Ends all cancels: those that are in force are read anew.
    pub(crate) fn forget_cancels(&mut self) {
        self.cancels.clear();
    }

    /// Stops all tasks that have a slot.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.slots.stop(reason);
    }

    /// Begins, changes or ends a drain.
    pub(crate) fn drain(&mut self, by: DrainedBy, drained: Option<Drained>) {
        let changed = self.drains.set(by, drained);
        let goes_on = changed && !self.drains.is_draining();
        self.wakes.engine |= goes_on;
        self.wakes.subscriber |= goes_on;
        self.wakes.drain |= changed;
        self.wakes.claims |= changed && self.inbox.has_unclaimed();
    }

    /// The drains that there are.
    pub(crate) fn drains(&self) -> Drains {
        self.drains
    }

    /// For how many small tasks there is room; none while the endpoint is drained.
    pub(crate) fn room(&self) -> usize {
        if self.drains.is_draining() { 0 } else { self.inbox.room() }
    }

    /// For how many copies of urgent tasks there is room; none while the endpoint is drained.
    pub(crate) fn room_for_copies(&self) -> usize {
        if self.drains.is_draining() { 0 } else { self.inbox.room_for_copies() }
    }

    /// How many slots the tasks take that have one.
    pub(crate) fn slots_used(&self) -> usize {
        self.slots.used()
    }

    /// How many tasks have a slot.
    pub(crate) fn running(&self) -> usize {
        self.slots.count()
    }

    /// Lists at most `most` tasks that are accepted and not finished: those that have a slot,
    /// then those that wait.
    pub(crate) fn list(&self, most: usize) -> Vec<Listed> {
        let running = self.slots.tasks().take(most);
        let running = running.map(|task| Listed { task: Arc::clone(task), waits: None });
        let mut listed: Vec<Listed> = running.collect();
        let left = most - listed.len();
        listed.extend(self.inbox.waiting_tasks(left, self.drains.is_draining()));
        listed
    }

    /// How many tasks are accepted and not finished.
    pub(crate) fn tasks(&self) -> usize {
        self.inbox.tasks()
    }

    /// How many tasks wait for a slot.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.waiting()
    }

    /// How many results the broker has not confirmed.
    pub(crate) fn undelivered(&self) -> u64 {
        self.outbox.undelivered()
    }

    fn put(&mut self, held: Held) {
        self.wakes.claims |= held.task.topic.is_some();
        self.inbox.put(held);
        self.wakes.engine = true;
    }

    fn put_out(&mut self, result: Arc<Finished>) -> OutSeq {
        self.wakes.publisher = true;
        self.outbox.put(result)
    }

    fn next_seq(&mut self) -> Seq {
        let seq = self.next_task;
        self.next_task = Seq(seq.0 + 1);
        seq
    }

    fn hold(&self, seq: Seq, task: Arc<Task>, started: bool, accepted_at_ms: Option<u64>) -> Held {
        let deaths = self.deaths.get(&task.attempt()).copied().unwrap_or_default();
        // What was started and must not run again will not.
        let suspicious = if started && !task.rerun { Deaths::default() } else { deaths };
        let standing = Standing::after(suspicious, self.poison_after);
        Held { seq, task, started, accepted_at_ms, deaths, standing, stop: StopSignal::new() }
    }
}
