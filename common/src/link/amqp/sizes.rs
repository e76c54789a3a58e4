//! How large a message a broker takes: what it has taken, and what it has refused.
//! Pure. A broker tells its limit only by closing the channel on which a larger
//! message came, so what is larger than anything it has taken goes by a channel of
//! its own. What was learnt holds for every connection to that broker.

use crate::wire::MAX_BODY;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A message as small as this, in bytes, is taken by most brokers: tasks that share a
/// message are no larger, and stay in order.
const SMALL: usize = 65 * 1024;

/// The limit of a broker on messages, in bytes, as far as it is known.
#[derive(Debug)]
pub(super) struct Sizes {
    taken: AtomicUsize,
    limit: AtomicUsize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { taken: AtomicUsize::new(SMALL), limit: AtomicUsize::new(MAX_BODY) }
    }
}

impl Sizes {
    /// The largest message worth sending.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether a message is no larger than one that the broker has taken.
    pub(super) fn is_proven(&self, size: usize) -> bool {
        size <= self.taken.load(Ordering::Relaxed)
    }

    /// Notes that the broker has taken a message.
    pub(super) fn took(&self, size: usize) {
        self.taken.fetch_max(size, Ordering::Relaxed);
    }

    /// Notes that the broker has refused a message for its size, and what it said of
    /// its limit.
    pub(super) fn refused(&self, size: usize, told: Option<usize>) {
        let limit = told.unwrap_or(size.saturating_sub(1));
        self.limit.fetch_min(limit, Ordering::Relaxed);
        self.taken.fetch_min(limit, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_proven_and_what_was_refused_is_the_limit() {
        let sizes = Sizes::default();
        assert!(sizes.is_proven(SMALL) && !sizes.is_proven(SMALL + 1));
        assert_eq!(sizes.limit(), MAX_BODY);
        sizes.took(100_000);
        assert!(sizes.is_proven(100_000) && !sizes.is_proven(100_001));
        sizes.refused(200_000, Some(131_072));
        assert_eq!(sizes.limit(), 131_072);
        sizes.refused(150_000, None);
        assert_eq!(sizes.limit(), 131_072, "the smaller one holds");
        sizes.refused(90_000, None);
        assert_eq!(sizes.limit(), 89_999);
        assert!(!sizes.is_proven(100_000));
    }
}
