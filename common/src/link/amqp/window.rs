//! Which published messages are open, and what the broker's answers mean for
//! them. Pure.
//!
//! lapin does not say which message a return belongs to: it queues returned
//! messages and gives one, in that order, to each confirm that it resolves.
//! When one acknowledgement covers several messages, it resolves their confirms
//! in any order. So a confirm may carry the return of another message, and an
//! unroutable message may look like a confirmed one.
//!
//! One order holds nevertheless: the broker sends a message's return before its
//! acknowledgement. So when lapin resolves the confirm of an unroutable message,
//! the message's return is still queued, and then this confirm carries a return
//! (its own, or one queued before it); or it was taken by a confirm resolved
//! earlier. Hence the rule of [`Window::settle`], given batches that are
//! complete: with a confirm comes, in that batch or an earlier one, every
//! confirm resolved before it.
//!
//! - A message is returned if a return named it.
//! - A message is in doubt if its confirm carried another message's return: its
//!   own may come later.
//! - Any other message is not unroutable, and its confirm means what it says.

use crate::link::{Settlement, Ticket};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// The broker's answer to one published message, as lapin presents it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Whether the broker acknowledged the message.
    pub(super) accepted: bool,
    /// A return that came with it, of this message or another.
    pub(super) carried: Option<Return>,
}

/// A message that no queue takes.
#[derive(Clone, Debug)]
pub(super) struct Return {
    /// The message's id; the broker sends back what it got.
    pub(super) message_id: Option<String>,
    /// The broker's words.
    pub(super) reason: String,
}

/// The messages that were published and are not settled.
#[derive(Default)]
pub(super) struct Window {
    last: u64,
    /// When the oldest open message became the oldest.
    headed: Option<Instant>,
    open: BTreeMap<Ticket, InFlight>,
}

struct InFlight {
    message_id: String,
    published: Instant,
    returned: Option<String>,
}

impl Window {
    /// A ticket for the next message.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.last += 1;
        Ticket(self.last)
    }

    /// Opens a message.
    pub(super) fn publish(&mut self, ticket: Ticket, message_id: String, now: Instant) {
        self.open.insert(ticket, InFlight { message_id, published: now, returned: None });
    }

    /// How many messages are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The oldest open message, and since when it is the oldest.
    pub(super) fn oldest(&self) -> Option<(Ticket, Instant)> {
        let (&ticket, oldest) = self.open.first_key_value()?;
        let since = self.headed.map_or(oldest.published, |headed| headed.max(oldest.published));
        Some((ticket, since))
    }

    /// Closes a message that the broker refused by itself.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.open.remove(&ticket);
    }

    /// Settles what was answered. The batch must be complete (see above).
    pub(super) fn settle(
        &mut self,
        answers: Vec<(Ticket, Answer)>,
        now: Instant,
    ) -> Vec<(Ticket, Settlement)> {
        let oldest = self.open.first_key_value().map(|(&ticket, _)| ticket);
        for carried in answers.iter().filter_map(|(_, answer)| answer.carried.as_ref()) {
            self.mark(carried);
        }
        let mut settled = Vec::with_capacity(answers.len());
        for (ticket, answer) in answers {
            let Some(entry) = self.open.remove(&ticket) else { continue };
            let settlement = match entry.returned {
                Some(reason) => Settlement::Returned(reason),
                None if answer.carried.is_some() => Settlement::Doubt,
                None if answer.accepted => Settlement::Confirmed,
                None => Settlement::Refused,
            };
            if Some(ticket) == oldest {
                self.headed = Some(now);
            }
            settled.push((ticket, settlement));
        }
        settled
    }

    /// Marks the message that a return names: the oldest of that id, for ids
    /// are unique but for a message published twice, and returns come in the
    /// order of publishing. It may be settled already, as in doubt.
    fn mark(&mut self, carried: &Return) {
        let named = self.open.values_mut().find(|entry| {
            entry.returned.is_none() && Some(&entry.message_id) == carried.message_id.as_ref()
        });
        if let Some(entry) = named {
            entry.returned = Some(carried.reason.clone());
        }
    }
}

#[cfg(test)]
mod tests;
