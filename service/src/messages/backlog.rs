//! The messages that were sent to each endpoint and that it has not given a verdict of. Pure.
//!
//! An endpoint reads its control queue in order, and gives a verdict of each message at once. So
//! a verdict shows that all before its message was read. An endpoint that reads nothing is sent
//! [`MAX_MESSAGES`] and [`MAX_BYTES`] at most: its queue stays small, however many copies are
//! asked for.

use clutch_common::id::EndpointId;
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

/// The most messages without a verdict, for one endpoint.
const MAX_MESSAGES: usize = 1000;
/// The most bytes of these messages.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The messages on their way, by endpoint.
#[derive(Debug, Default)]
pub(super) struct Backlog(BTreeMap<EndpointId, SentMessages>);

/// The messages on their way to one endpoint, in order.
#[derive(Debug, Default)]
struct SentMessages {
    messages: VecDeque<(Uuid, u32, usize)>,
    bytes: usize,
}

impl Backlog {
    /// Whether a message of so many bytes may be sent to an endpoint.
    pub(super) fn has_room(&self, endpoint: EndpointId, bytes: usize) -> bool {
        self.0.get(&endpoint).is_none_or(|sent| {
            let fits = sent.messages.is_empty() || sent.bytes + bytes <= MAX_BYTES;
            fits && sent.messages.len() < MAX_MESSAGES
        })
    }

    /// Notes a copy that is sent.
    pub(super) fn sent(&mut self, endpoint: EndpointId, message: Uuid, copy: u32, bytes: usize) {
        let sent = self.0.entry(endpoint).or_default();
        sent.messages.push_back((message, copy, bytes));
        sent.bytes += bytes;
    }

    /// Whether a copy was sent to an endpoint, and it has given no verdict of that yet.
    pub(super) fn has_sent(&self, endpoint: EndpointId, message: Uuid, copy: u32) -> bool {
        self.0.get(&endpoint).is_some_and(|sent| {
            sent.messages.iter().any(|(one, number, _)| (*one, *number) == (message, copy))
        })
    }

    /// Notes a verdict of a copy.
    pub(super) fn judged(&mut self, endpoint: EndpointId, message: Uuid, copy: u32) {
        let Some(sent) = self.0.get_mut(&endpoint) else { return };
        let is_it = |(one, number, _): &(Uuid, u32, usize)| (*one, *number) == (message, copy);
        let Some(place) = sent.messages.iter().position(is_it) else { return };
        sent.bytes -= sent.messages.drain(..=place).map(|(_, _, bytes)| bytes).sum::<usize>();
        if sent.messages.is_empty() {
            self.0.remove(&endpoint);
        }
    }

    /// Forgets what was sent to an endpoint: its queue is empty.
    pub(super) fn clear(&mut self, endpoint: EndpointId) {
        self.0.remove(&endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_verdicts_is_sent_a_bounded_number_of_messages_and_bytes() {
        let mut backlog = Backlog::default();
        let (silent, other) = (EndpointId::new(), EndpointId::new());
        let ids: Vec<Uuid> = (0..MAX_MESSAGES as u128).map(Uuid::from_u128).collect();
        for id in &ids {
            assert!(backlog.has_room(silent, 1));
            backlog.sent(silent, *id, 1, 1);
        }
        assert!(!backlog.has_room(silent, 1) && backlog.has_room(other, MAX_BYTES));
        backlog.judged(silent, ids[1], 2);
        backlog.judged(other, ids[1], 1);
        assert!(!backlog.has_room(silent, 1), "that copy was not sent");
        backlog.judged(silent, ids[1], 1);
        assert!(backlog.has_room(silent, 1), "two were read");
        backlog.clear(silent);
        backlog.sent(silent, ids[0], 1, MAX_BYTES + 1);
        assert!(!backlog.has_room(silent, 0));
        backlog.judged(silent, ids[0], 1);
        assert!(backlog.has_room(silent, MAX_BYTES + 1), "one larger than the bound goes alone");
    }

    #[test]
    fn a_verdict_shows_that_all_before_its_message_was_read() {
        let mut backlog = Backlog::default();
        let endpoint = EndpointId::new();
        let [first, second, third] = [1, 2, 3].map(Uuid::from_u128);
        for (id, copy) in [(first, 1), (second, 1), (first, 2), (third, 1)] {
            backlog.sent(endpoint, id, copy, 10);
        }
        let sent = |backlog: &Backlog, id, copy| backlog.has_sent(endpoint, id, copy);
        assert!(sent(&backlog, first, 1) && sent(&backlog, first, 2) && !sent(&backlog, third, 2));
        assert!(!backlog.has_sent(EndpointId::new(), first, 1), "to another endpoint");
        backlog.judged(endpoint, first, 2);
        assert!(!sent(&backlog, second, 1) && sent(&backlog, third, 1));
        assert_eq!(backlog.0[&endpoint].bytes, 10);
        backlog.judged(endpoint, first, 1);
        assert_eq!(backlog.0[&endpoint].messages.len(), 1, "it was counted before");
        backlog.judged(endpoint, third, 1);
        assert!(backlog.0.is_empty());
    }
}
