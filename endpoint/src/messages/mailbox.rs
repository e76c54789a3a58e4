//! The mailboxes of the tasks that are here: messages that wait for a process to take them. Pure.
//!
//! A message is *free*, or *given* to a receiver that has not acknowledged it. It is *taken*
//! when it is acknowledged. A *verdict* is what became of a message that waits no longer.
//! Promises:
//! - Of one sender to one addressee the first free message is given first. One that is given back
//!   is in its place again.
//! - A message is given to one receiver at a time, and to none once it has a verdict.
//! - A message that was taken is known as long as its task runs here and for [`KEPT`] after that,
//!   among the last [`VERDICTS_MAX`] verdicts: a copy of it is given to no process.
//! - A message that no process takes within its wait is told as such only when no receiver has
//!   it, and copies that were sent before that are given to no process either.
//! - No more waits for one task than [`MESSAGES_MAX`] and [`BYTES_MAX`].

mod verdicts;

use super::letter::{Letter, LetterKey};
use clutch_common::id::TaskId;
use clutch_common::task::result::Outcome;
use clutch_common::wire::Judgement;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use verdicts::Verdicts;

/// The most messages that wait for one task.
pub(crate) const MESSAGES_MAX: usize = 1000;
/// The most bytes that wait for one task.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most verdicts that are known.
pub(crate) const VERDICTS_MAX: usize = 100_000;
/// How long the verdicts of a task are known after its end.
pub(crate) const KEPT: Duration = Duration::from_secs(600);

/// A moment: the time since some beginning.
pub(crate) type Moment = Duration;

/// How long a receiver may have a message before it acknowledges it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// Until a moment.
    Until(Moment),
    /// Until it is given back.
    Connection,
}

/// A message that is given to a receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    /// The number of the delivery, by which it is acknowledged.
    pub(crate) delivery: u64,
    /// The message.
    pub(crate) letter: Letter,
}

/// The wish of a receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    /// The addressees.
    pub(crate) addressees: Vec<String>,
    /// The one sender that it takes messages of, where it names one.
    pub(crate) from: Option<TaskId>,
}

/// A message that waits.
#[derive(Debug)]
struct WaitingLetter {
    letter: Letter,
    /// Until when its sender waits.
    until: Moment,
    /// The delivery by which a receiver has it.
    given: Option<(u64, Hold)>,
}

impl WaitingLetter {
    /// When something is to be done about it.
    fn due(&self) -> Option<Moment> {
        match self.given {
            None => Some(self.until),
            Some((_, Hold::Until(moment))) => Some(moment),
            Some((_, Hold::Connection)) => None,
        }
    }
}

/// The mailbox of a task.
#[derive(Debug, Default)]
struct Mailbox {
    /// The attempt that is here.
    attempt: u32,
    /// The messages, in the order in which they were accepted.
    waiting: BTreeMap<u64, WaitingLetter>,
    places: HashMap<LetterKey, u64>,
    given: HashMap<u64, u64>,
    bytes: usize,
}

/// The mailboxes of all tasks here.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes {
    boxes: HashMap<TaskId, Mailbox>,
    verdicts: Verdicts,
    /// When something is to be done about which message.
    due: BTreeSet<(Moment, TaskId, u64)>,
    next: u64,
    bytes: usize,
    /// Verdicts that are to be told.
    told: Vec<(Letter, Judgement)>,
}

impl Mailboxes {
    /// Takes a message, or a copy of one, to a task of which this attempt is here, for as long as
    /// its sender waits. `room` is how many more bytes the endpoint takes.
    pub(crate) fn offer(
        &mut self,
        letter: Letter,
        attempt: u32,
        until: Moment,
        room: usize,
        now: Moment,
    ) -> Judgement {
        self.pass(now);
        let (key, new) = (letter.key(), self.next + 1);
        if let Some(verdict) = self.verdicts.about(&key, letter.copy()) {
            return verdict;
        }
        let mailbox = self.open(letter.to, attempt);
        if let Some(place) = mailbox.places.get(&key).copied() {
            self.renew(letter, place, until);
            return Judgement::Held;
        }
        let size = letter.body.len();
        let full = mailbox.waiting.len() >= MESSAGES_MAX || mailbox.bytes + size > BYTES_MAX;
        let refused = if letter.attempt.is_some_and(|pinned| pinned < mailbox.attempt) {
            Some(Judgement::Superseded(mailbox.attempt))
        } else {
            (full || size > room).then_some(Judgement::NoRoom)
        };
        if let Some(verdict) = refused {
            self.verdicts.decide(&letter, verdict);
            self.tidy(letter.to);
            return verdict;
        }
        let task = letter.to;
        mailbox.bytes += size;
        mailbox.places.insert(key, new);
        mailbox.waiting.insert(new, WaitingLetter { letter, until, given: None });
        self.bytes += size;
        self.next = new;
        self.due.insert((until, task, new));
        Judgement::Held
    }

    /// The mailbox of a task of which this attempt is here, made if there is none.
    fn open(&mut self, task: TaskId, attempt: u32) -> &mut Mailbox {
        self.verdicts.lives(task);
        let mailbox = self.boxes.entry(task).or_default();
        mailbox.attempt = mailbox.attempt.max(attempt);
        mailbox
    }

    /// Takes a further copy of a message that waits.
    fn renew(&mut self, letter: Letter, place: u64, until: Moment) {
        self.change(letter.to, place, |waiting| {
            waiting.until = waiting.until.max(until);
            waiting.letter.cover(letter.origin);
        });
    }

    /// Changes a message that waits.
    fn change(&mut self, task: TaskId, place: u64, change: impl FnOnce(&mut WaitingLetter)) {
        let Some(mailbox) = self.boxes.get_mut(&task) else { return };
        let Some(waiting) = mailbox.waiting.get_mut(&place) else { return };
        if let Some(due) = waiting.due() {
            self.due.remove(&(due, task, place));
        }
        let before = waiting.given.map(|(delivery, _)| delivery);
        change(waiting);
        let after = waiting.given.map(|(delivery, _)| delivery);
        if before != after {
            before.and_then(|delivery| mailbox.given.remove(&delivery));
            after.and_then(|delivery| mailbox.given.insert(delivery, place));
        }
        if let Some(due) = waiting.due() {
            self.due.insert((due, task, place));
        }
    }

    /// Gives a run of a task the first message that it wants, if there is one.
    pub(crate) fn give(
        &mut self,
        task: TaskId,
        attempt: u32,
        wanted: &Wanted,
        hold: Hold,
        now: Moment,
    ) -> Option<Given> {
        self.pass(now);
        let mailbox = self.boxes.get(&task)?;
        let fits = |waiting: &WaitingLetter| {
            let letter = &waiting.letter;
            waiting.given.is_none()
                && letter.attempt.is_none_or(|pinned| pinned == attempt)
                && wanted.from.is_none_or(|from| from == letter.source.task_id)
                && wanted.addressees.contains(&letter.addressee)
        };
        let (place, waiting) = mailbox.waiting.iter().find(|(_, waiting)| fits(waiting))?;
        let (place, letter) = (*place, waiting.letter.clone());
        self.next += 1;
        let delivery = self.next;
        self.change(task, place, |waiting| waiting.given = Some((delivery, hold)));
        Some(Given { delivery, letter })
    }

    /// Notes that a process of a run has taken what it was given. Returns whether it had that.
    pub(crate) fn acknowledge(
        &mut self,
        task: TaskId,
        attempt: u32,
        delivery: u64,
        now: Moment,
    ) -> bool {
        self.pass(now);
        let Some(place) = self.place(task, delivery) else { return false };
        self.decide(task, place, Judgement::Taken(attempt));
        true
    }

    /// Takes back what a process was given. Returns whether it had that.
    pub(crate) fn give_back(&mut self, task: TaskId, delivery: u64, now: Moment) -> bool {
        self.pass(now);
        let Some(place) = self.place(task, delivery) else { return false };
        self.change(task, place, |waiting| waiting.given = None);
        self.pass(now);
        true
    }

    fn place(&self, task: TaskId, delivery: u64) -> Option<u64> {
        self.boxes.get(&task)?.given.get(&delivery).copied()
    }

    /// Gives a message its verdict: it waits no longer.
    fn decide(&mut self, task: TaskId, place: u64, verdict: Judgement) {
        let Some(mailbox) = self.boxes.get_mut(&task) else { return };
        let Some(waiting) = mailbox.waiting.remove(&place) else { return };
        if let Some(due) = waiting.due() {
            self.due.remove(&(due, task, place));
        }
        if let Some((delivery, _)) = waiting.given {
            mailbox.given.remove(&delivery);
        }
        let letter = waiting.letter;
        mailbox.places.remove(&letter.key());
        mailbox.bytes -= letter.body.len();
        self.bytes -= letter.body.len();
        self.verdicts.decide(&letter, verdict);
        self.told.push((letter, verdict));
        self.tidy(task);
    }

    /// Removes the mailbox of a task if it is empty.
    fn tidy(&mut self, task: TaskId) {
        if self.boxes.get(&task).is_some_and(|mailbox| mailbox.waiting.is_empty()) {
            self.boxes.remove(&task);
        }
    }

    /// Does what is due: gives back what was held for too long, and tells of messages that
    /// waited long enough.
    pub(crate) fn pass(&mut self, now: Moment) {
        while let Some((due, task, place)) = self.due.first().copied()
            && due <= now
        {
            let is_given = self.boxes.get(&task).and_then(|mailbox| mailbox.waiting.get(&place));
            if is_given.is_some_and(|waiting| waiting.given.is_some()) {
                self.change(task, place, |waiting| waiting.given = None);
            } else {
                self.decide(task, place, Judgement::NotListening);
            }
        }
        self.verdicts.pass(now);
    }

    /// When something is due next.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// Notes the end of a run. Without an outcome its task waits for another one, and keeps its
    /// messages.
    pub(crate) fn ended(
        &mut self,
        task: TaskId,
        attempt: u32,
        outcome: Option<Outcome>,
        now: Moment,
    ) {
        let mailbox = self.boxes.get(&task);
        if mailbox.is_some_and(|mailbox| mailbox.attempt > attempt) {
            return;
        }
        let places = mailbox.map(|mailbox| mailbox.waiting.keys().copied().collect::<Vec<_>>());
        for place in places.unwrap_or_default() {
            match outcome {
                None => self.change(task, place, |waiting| waiting.given = None),
                Some(outcome) => self.decide(task, place, Judgement::Ended(outcome)),
            }
        }
        if outcome.is_some() {
            self.verdicts.ended(task, now);
        }
        self.pass(now);
    }

    /// Notes that a task is not here any more, and not run here: its messages go where it is.
    pub(crate) fn gone(&mut self, task: TaskId) {
        let places = self.boxes.get(&task).map(|mailbox| mailbox.waiting.keys().copied());
        let places: Vec<u64> = places.map(Iterator::collect).unwrap_or_default();
        places.into_iter().for_each(|place| self.decide(task, place, Judgement::NotHere));
    }

    /// The knowledge about a message: that it waits, or its verdict.
    pub(crate) fn about(&self, letter: &Letter) -> Option<Judgement> {
        let key = letter.key();
        let waits = self.boxes.get(&letter.to).is_some_and(|it| it.places.contains_key(&key));
        if waits {
            return Some(Judgement::Held);
        }
        self.verdicts.last(&key)
    }

    /// Verdicts since the last call.
    pub(crate) fn take_told(&mut self) -> Vec<(Letter, Judgement)> {
        std::mem::take(&mut self.told)
    }

    /// Whether no message waits and no verdict is known.
    pub(crate) fn is_idle(&self) -> bool {
        self.boxes.is_empty() && self.verdicts.is_empty()
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
