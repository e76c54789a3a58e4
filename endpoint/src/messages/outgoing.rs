//! One request of a task that waits for its answer: a message to another task, or a question to
//! the service. Pure; time and what is known are passed in.
//!
//! A request goes to the *mailbox* of the target if that is here, and else to the *service*, by
//! copies with growing pauses until there is a final answer. Promises:
//! - There is an answer at the latest [`VERDICT_GRACE`] after the end of the wait.
//! - [`SendEnd::Delivered`] is answered only for a message that a process took, and
//!   [`SendEnd::NotListening`] and [`SendEnd::NoRoom`] only for one that none took and none will
//!   take. A copy is *open* until it is known that it was held nowhere, or what became of it.
//! - No copy is sent after the wait, nor without a link.

use super::mailbox::Moment;
use clutch_common::id::TaskId;
use clutch_common::task::json::Json;
use clutch_common::task::reason::Reason;
use clutch_common::task::result::Outcome;
use clutch_common::wire::{Judgement, Reply, VERDICT_GRACE};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The pause after the first copy; each one after that is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two copies.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause before another copy of a large message that its target's endpoint holds.
const LARGE_PAUSE: Duration = Duration::from_secs(30);
/// The size from which on a message is large, in bytes.
const LARGE: usize = 256 * 1024;
/// How many copies without an answer are told apart. With more than that it counts as unknown
/// for good whether each of them was held.
const OPEN_MAX: usize = 1024;
/// How often it is looked whether a target that waits for its start is still here.
const LOOK: Duration = Duration::from_secs(5);

/// Where the target of a message is, as far as its sender's endpoint knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// It is here, by this attempt, accepted or running.
    Here(u32),
    /// It was here, and ended so.
    EndedHere(Outcome),
    /// It is not here.
    Elsewhere,
}

/// The knowledge of the sender's endpoint at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    /// The moment.
    pub(crate) now: Moment,
    /// Where the target is.
    pub(crate) target: Target,
    /// Whether there is a link to the service.
    pub(crate) link: bool,
    /// The word of the mailbox here about the message, once it was offered.
    pub(crate) mailbox: Option<Judgement>,
}

/// The next step.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum NextStep {
    /// Offer the message to the mailbox of this attempt, and ask again.
    Offer(u32),
    /// Send this copy to the service, and ask again.
    Publish(u32),
    /// Ask again when something has changed, or at this moment.
    Wait(Moment),
    /// The request is answered.
    End(SendEnd),
}

/// The answer to a request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum SendEnd {
    /// A process of this attempt took the message.
    Delivered(u32),
    /// The service keeps the message.
    Kept,
    /// No such task.
    Unknown,
    /// The target has ended.
    Finished {
        /// Its outcome.
        outcome: Outcome,
        /// Whether it is certain that no process took the message.
        certain: bool,
    },
    /// The sender named an attempt, and a newer one is there.
    Superseded {
        /// The newer one.
        attempt: u32,
        /// Whether it is certain that no process took the message.
        certain: bool,
    },
    /// No process took it within the wait, and none will.
    NotListening,
    /// There was no answer in time.
    TimedOut,
    /// Too much waits for the target, or at its endpoint.
    NoRoom,
    /// The broker takes no message as large: it was sent nowhere.
    TooLarge,
    /// There is no link, and the target is not here.
    Unreachable,
    /// The rules forbid it, in words.
    Forbidden(Reason),
    /// It cannot be done, in words.
    Refused(Reason),
    /// These tasks were submitted.
    Submitted(Vec<TaskId>),
    /// The task that was asked for has ended.
    Ended(Json),
    /// The task that was asked for has not ended within the wait.
    NotEnded,
}

/// Where a request is.
#[derive(Clone, PartialEq, Debug)]
enum Way {
    /// It has just begun.
    New,
    /// With the mailbox here.
    Mailbox,
    /// With the service.
    Service,
}

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    way: Way,
    /// The end of the wait.
    until: Moment,
    /// The number of the next copy.
    copy: u32,
    next_at: Moment,
    pause: Duration,
    /// How many bytes it has.
    size: usize,
    /// Copies that may be held somewhere, or may have been taken.
    open: BTreeSet<u32>,
    /// The last answer that says that no process took some copies.
    refused: Option<SendEnd>,
    /// Whether more copies are open than are told apart.
    lost_count: bool,
    /// Whether any copy was sent.
    sent: bool,
    answer: Option<SendEnd>,
}

impl Outgoing {
    /// Begins a request that waits until a moment. Its copies are numbered from `copy` on;
    /// `size` is that of its body.
    pub(crate) fn new(until: Moment, copy: u32, size: usize) -> Self {
        Self {
            way: Way::New,
            until,
            copy,
            next_at: Moment::ZERO,
            pause: FIRST_PAUSE,
            size,
            open: BTreeSet::new(),
            refused: None,
            lost_count: false,
            sent: false,
            answer: None,
        }
    }

    /// The end of the wait.
    pub(crate) fn until(&self) -> Moment {
        self.until
    }

    /// Whether the mailbox here has it.
    pub(crate) fn is_with_mailbox(&self) -> bool {
        self.way == Way::Mailbox
    }

    /// Waits longer: it is asked for again.
    pub(crate) fn extend(&mut self, until: Moment) {
        self.until = self.until.max(until);
    }

    /// Notes that a copy was not sent after all.
    pub(crate) fn not_sent(&mut self, copy: u32) {
        self.open.remove(&copy);
    }

    /// Notes that the broker takes no message as large.
    pub(crate) fn too_large(&mut self) {
        self.answer.get_or_insert(SendEnd::TooLarge);
    }

    /// Takes an answer of the service to some copies.
    pub(crate) fn answered(&mut self, copies: RangeInclusive<u32>, reply: Reply) {
        let end = match reply {
            Reply::Held => {
                if self.size >= LARGE {
                    self.next_at += LARGE_PAUSE;
                }
                return;
            }
            Reply::NotStarted => return self.open.retain(|copy| !copies.contains(copy)),
            Reply::Delivered(attempt) => SendEnd::Delivered(attempt),
            Reply::Kept => SendEnd::Kept,
            Reply::Unknown => SendEnd::Unknown,
            Reply::Finished(outcome) => {
                self.open.retain(|copy| !copies.contains(copy));
                SendEnd::Finished { outcome, certain: self.is_nowhere() }
            }
            Reply::Superseded(attempt) => {
                self.open.retain(|copy| !copies.contains(copy));
                SendEnd::Superseded { attempt, certain: self.is_nowhere() }
            }
            Reply::NotListening => return self.refuse(&copies, SendEnd::NotListening),
            Reply::NoRoom => return self.refuse(&copies, SendEnd::NoRoom),
            Reply::Forbidden(why) => SendEnd::Forbidden(why),
            Reply::Refused(why) => SendEnd::Refused(why),
            Reply::Submitted(tasks) => SendEnd::Submitted(tasks),
            Reply::Ended(task) => SendEnd::Ended(task),
            Reply::NotEnded => SendEnd::NotEnded,
        };
        self.answer.get_or_insert(end);
    }

    /// Notes that no process took, or will take, these copies. Later ones may be under way, and be
    /// taken; earlier ones may have been, by an earlier run of the target's endpoint.
    fn refuse(&mut self, copies: &RangeInclusive<u32>, end: SendEnd) {
        self.open.retain(|copy| !copies.contains(copy));
        self.refused = Some(end);
    }

    /// Whether no copy that was sent is open.
    fn is_nowhere(&self) -> bool {
        self.open.is_empty() && !self.lost_count
    }

    /// The next step.
    pub(crate) fn step(&mut self, known: &Known) -> NextStep {
        if let Some(end) = &self.answer {
            return NextStep::End(end.clone());
        }
        match self.way {
            Way::New => self.begin(known),
            Way::Mailbox => self.with_mailbox(known),
            Way::Service => self.with_service(known),
        }
    }

    fn begin(&mut self, known: &Known) -> NextStep {
        match known.target {
            Target::Here(attempt) => {
                self.way = Way::Mailbox;
                NextStep::Offer(attempt)
            }
            Target::EndedHere(outcome) if !known.link => {
                NextStep::End(SendEnd::Finished { outcome, certain: self.is_nowhere() })
            }
            Target::Elsewhere if !known.link => NextStep::End(SendEnd::Unreachable),
            // Another attempt at it may be elsewhere.
            Target::EndedHere(_) | Target::Elsewhere => {
                self.way = Way::Service;
                self.with_service(known)
            }
        }
    }

    fn with_mailbox(&mut self, known: &Known) -> NextStep {
        match known.mailbox {
            Some(Judgement::Taken(attempt)) => NextStep::End(SendEnd::Delivered(attempt)),
            Some(Judgement::Superseded(attempt)) => {
                NextStep::End(SendEnd::Superseded { attempt, certain: true })
            }
            Some(Judgement::NoRoom) => NextStep::End(SendEnd::NoRoom),
            Some(Judgement::NotListening) => NextStep::End(SendEnd::NotListening),
            Some(Judgement::Ended(_) | Judgement::NotHere) | None => {
                self.way = Way::New;
                self.begin(known)
            }
            Some(Judgement::Held) => {
                let last = self.until + VERDICT_GRACE;
                if known.now >= last {
                    return NextStep::End(SendEnd::TimedOut);
                }
                let next = if known.now < self.until { self.until } else { last };
                NextStep::Wait(next.min(known.now + LOOK))
            }
        }
    }

    fn with_service(&mut self, known: &Known) -> NextStep {
        if self.is_nowhere()
            && let Some(end) = &self.refused
        {
            return NextStep::End(end.clone());
        }
        if known.now >= self.until && self.is_nowhere() {
            let end = if self.sent { SendEnd::NotListening } else { SendEnd::Unreachable };
            return NextStep::End(end);
        }
        let last = self.until + VERDICT_GRACE;
        if known.now >= last {
            return NextStep::End(SendEnd::TimedOut);
        }
        if known.now >= self.until {
            return NextStep::Wait(last);
        }
        if known.now < self.next_at {
            return NextStep::Wait(self.next_at.min(self.until));
        }
        if !known.link {
            return NextStep::Wait(self.until);
        }
        let copy = self.copy;
        self.copy = self.copy.saturating_add(1);
        self.next_at = known.now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.sent = true;
        if self.open.len() < OPEN_MAX {
            self.open.insert(copy);
        } else {
            self.lost_count = true;
        }
        NextStep::Publish(copy)
    }
}

#[cfg(test)]
mod tests;
