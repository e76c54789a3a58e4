//! The limit of file descriptors: raises it, and tells how many tasks it is enough for.
//!
//! Touches: the soft limit of this process, once, and those of its children, which get
//! back what the daemon was started with: programs that use select(2) do not bear a
//! limit above 1,024. Promises that the daemon keeps enough for itself, so that no
//! record fails for want of a descriptor.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use std::sync::OnceLock;

/// Descriptors of the daemon itself: its streams, links, records and timers.
const OWN: u64 = 40;
/// Descriptors of a slot while its task starts: six ends of pipes, a handle, and a
/// reserve.
const SLOT: u64 = 8;
/// Descriptors of a worker: three ends of pipes and a handle.
const WORKER: u64 = 4;

/// Descriptors for connections of tasks, where there are enough.
const CONNECTIONS: u64 = 256;
/// How many connections of tasks there may be in any case.
const LEAST_CONNECTIONS: u64 = 4;

/// The limit that children get back, where the daemon's was raised.
static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit as far as `slots` need it, each of which may have a worker of each
/// function, and returns how many slots there can be.
pub(crate) fn provide(slots: usize, functions: usize) -> usize {
    let found = getrlimit(Resource::Nofile);
    let demand = Demand::by(slots, functions);
    let limit = demand.limit(&found);
    let raised = Rlimit { current: limit, maximum: found.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of descriptors could not be raised");
            found.current
        }
    };
    if limit != found.current {
        ORIGINAL.get_or_init(|| found);
    }
    let afforded = demand.slots(limit);
    if afforded < slots {
        tracing::warn!(
            limit,
            slots = afforded,
            configured = slots,
            "there are too few descriptors for all slots: fewer tasks run at once. Raise the limit \
             (ulimit -n, or LimitNOFILE of the service)"
        );
    }
    afforded
}

/// Returns how many connections of tasks there may be at once, beside all slots.
pub(crate) fn connections(slots: usize, functions: usize) -> usize {
    Demand::by(slots, functions).connections(getrlimit(Resource::Nofile).current)
}

/// Restores the limit that the daemon was started with for a child. The child runs
/// already, and may have read the limit before on a busy machine.
pub(crate) fn restore_for(child: Pid) {
    if let Some(original) = ORIGINAL.get() {
        let original = Rlimit { current: original.current, maximum: original.maximum };
        if let Err(error) = prlimit(Some(child), Resource::Nofile, original) {
            tracing::debug!(%error, "a process keeps the endpoint's limit of descriptors");
        }
    }
}

/// The demand for descriptors.
#[derive(Clone, Copy, Debug)]
struct Demand {
    slots: usize,
    /// Descriptors of each slot.
    each: u64,
}

impl Demand {
    fn by(slots: usize, functions: usize) -> Self {
        Self { slots, each: SLOT + WORKER * functions as u64 }
    }

    /// Computes the soft limit: no lower than it was found, no higher than allowed, and
    /// no higher than needed.
    fn limit(self, found: &Rlimit) -> Option<u64> {
        let needed = self.needed().saturating_add(CONNECTIONS);
        let allowed = found.maximum.map_or(needed, |maximum| maximum.min(needed));
        found.current.map(|current| current.max(allowed))
    }

    fn needed(self) -> u64 {
        OWN.saturating_add(self.each.saturating_mul(self.slots as u64))
    }

    /// Computes how many connections of tasks a soft limit leaves room for.
    fn connections(self, limit: Option<u64>) -> usize {
        let left = limit.map_or(CONNECTIONS, |limit| limit.saturating_sub(self.needed()));
        usize::try_from(left.clamp(LEAST_CONNECTIONS, CONNECTIONS)).unwrap_or(usize::MAX)
    }

    /// Computes how many slots a soft limit is enough for; one at least.
    fn slots(self, limit: Option<u64>) -> usize {
        let Some(limit) = limit else { return self.slots };
        let enough = limit.saturating_sub(OWN) / self.each;
        usize::try_from(enough).unwrap_or(usize::MAX).clamp(1, self.slots.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_allowed_and_slots_keep_to_it() {
        for (slots, functions, current, maximum, limit, afforded, connections) in [
            (4, 0, Some(1024), Some(524_288), Some(1024), 4, 256),
            (200, 0, Some(1024), Some(524_288), Some(1896), 200, 256),
            (200, 2, Some(1024), Some(524_288), Some(3496), 200, 256),
            (200, 0, Some(1024), None, Some(1896), 200, 256),
            (200, 0, None, None, None, 200, 256),
            (120, 0, Some(1024), Some(1024), Some(1024), 120, 24),
            (200, 0, Some(1024), Some(1024), Some(1024), 123, 4),
            (40, 0, Some(64), Some(64), Some(64), 3, 4),
            (40, 0, Some(20), Some(20), Some(20), 1, 4),
        ] {
            let demand = Demand::by(slots, functions);
            let found = demand.limit(&Rlimit { current, maximum });
            let afford = (found, demand.slots(found), demand.connections(found));
            assert_eq!(afford, (limit, afforded, connections), "{slots} of {current:?}");
        }
    }
}
