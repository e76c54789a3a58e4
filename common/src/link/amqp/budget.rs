//! How many deliveries a broker may have under way, so that these are not too many
//! bytes. Pure. AMQP counts messages, and lapin keeps all that come: one is
//! asked for first, and more as they turn out to be small.

/// How many bytes may be under way, about.
const BYTES: usize = 16 * 1024 * 1024;
/// How many deliveries are asked for while nothing is known of their size.
const FIRST: u16 = 1;
/// A prefetch of at most this many is asked for at once: another consumer in the place of
/// the last one may change the order in which a quorum queue delivers again.
const FEW: u16 = 8;
/// By how much more are asked for at a time.
const STEP: u16 = 8;

/// The sizes of a queue's messages, as far as they are known.
pub(super) struct DeliveryBudget {
    /// The most that may be under way, whatever their size.
    most: u16,
    /// About the largest of the last messages, in bytes.
    size: usize,
    granted: u16,
    fixed: bool,
    /// How many have come since that was granted.
    seen: u16,
}

impl DeliveryBudget {
    /// For at most so many deliveries, at least one.
    pub(super) fn new(most: u16) -> Self {
        let most = most.max(1);
        if most <= FEW {
            return Self::fixed(most);
        }
        Self { most, size: 0, granted: most.min(FIRST), fixed: false, seen: 0 }
    }

    /// For so many deliveries, whatever their size.
    pub(super) fn fixed(prefetch: u16) -> Self {
        let granted = prefetch.max(1);
        Self { most: granted, size: 0, granted, fixed: true, seen: 0 }
    }

    /// How many deliveries are to be under way.
    pub(super) fn granted(&self) -> u16 {
        self.granted
    }

    /// Notes the size of a delivery.
    pub(super) fn came(&mut self, bytes: usize) {
        self.size = bytes.max(self.size - self.size / 8);
        self.seen = self.seen.saturating_add(1);
    }

    /// How many deliveries are to be asked for instead, if that is worth it while so
    /// many are not settled. Asking anew takes until the last consumer is gone.
    pub(super) fn change(&self, unsettled: usize) -> Option<u16> {
        if self.fixed {
            return None;
        }
        let fitting = u16::try_from(BYTES / self.size.max(1)).unwrap_or(u16::MAX);
        let wanted = fitting.clamp(1, self.most);
        let more = wanted.min(self.granted.saturating_mul(STEP));
        let grows = more > self.granted && (more == self.most || more >= self.granted * 2);
        let exhausted = unsettled >= usize::from(self.granted);
        let shrinks = wanted <= self.granted / 2;
        if shrinks && unsettled == 0 {
            return Some(wanted);
        }
        let seen = self.seen >= self.granted && (unsettled == 0 || exhausted);
        (grows && seen && usize::from(more) > unsettled).then_some(more)
    }

    /// Notes how many are asked for from now on, of so many that are to be under way
    /// together with those that are not settled.
    pub(super) fn grant(&mut self, wanted: u16, unsettled: usize) -> u16 {
        let taken = u16::try_from(unsettled).unwrap_or(u16::MAX);
        self.granted = wanted.saturating_sub(taken).max(1);
        self.seen = 0;
        self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(budget: &mut DeliveryBudget, count: usize, bytes: usize) {
        (0..count).for_each(|_| budget.came(bytes));
    }

    #[test]
    fn small_messages_are_asked_for_by_the_prefetch_and_large_ones_one_by_one() {
        let mut budget = DeliveryBudget::new(64);
        assert_eq!((budget.granted(), budget.change(0)), (1, None));
        came(&mut budget, 1, 1000);
        assert_eq!(budget.change(1), Some(8), "all are here, and not settled");
        assert_eq!(budget.grant(8, 1), 7);
        came(&mut budget, 7, 1000);
        assert_eq!(budget.change(3), None, "some are under way still");
        assert_eq!(budget.change(0), Some(56));
        assert_eq!(budget.grant(64, 0), 64);
        came(&mut budget, 64, 1000);
        assert_eq!(budget.change(0), None);
        budget.came(15_000_000);
        assert_eq!((budget.change(1), budget.change(0)), (None, Some(1)));
    }

    #[test]
    fn what_is_large_from_the_start_is_never_many() {
        let mut budget = DeliveryBudget::new(64);
        for _ in 0..40 {
            budget.came(15_000_000);
            if let Some(wanted) = budget.change(0) {
                assert!(budget.grant(wanted, 0) <= FIRST);
            }
        }
        assert_eq!(budget.granted(), 1);
    }

    #[test]
    fn a_small_prefetch_or_a_fixed_one_stays() {
        let mut budget = DeliveryBudget::new(0);
        came(&mut budget, 9, 1);
        assert_eq!((budget.granted(), budget.change(0)), (1, None));
        assert_eq!((DeliveryBudget::new(8).granted(), DeliveryBudget::new(9).granted()), (8, 1));
        let mut fixed = DeliveryBudget::fixed(64);
        came(&mut fixed, 64, 15_000_000);
        assert_eq!((fixed.granted(), fixed.change(0)), (64, None));
    }
}
