//! Which states of an endpoint the service forgets, so that their number is bounded
//! whatever presences come. Pure.

use super::states::KnownState;
use crate::id::StateId;
use std::cmp::Reverse;
use std::time::Duration;

/// The most states of an endpoint that are kept.
pub const KEPT: usize = 32;
/// How long a state is kept that never had the lease and holds nothing.
const NEVER_ACTIVE_LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a state is kept that had the lease and holds nothing more: an instance on a
/// forgotten one that starts without `--standby` is taken for one on a new disk.
const SPENT_LASTS: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A state, and what speaks for keeping it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The state.
    pub state: &'a KnownState,
    /// Whether a result came from it. Otherwise only presences claim that it exists.
    pub proven: bool,
    /// When its first presence came.
    pub known_since_ms: u64,
    /// When its last presence came.
    pub heard_at_ms: u64,
}

impl Candidate<'_> {
    fn is_old(&self, now_ms: u64) -> bool {
        let never_active = self.state.active_since_ms.is_none();
        let lasts = if never_active { NEVER_ACTIVE_LASTS } else { SPENT_LASTS };
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        !self.state.counts() && now_ms.saturating_sub(self.heard_at_ms) > lasts
    }

    /// The order of forgetting, smallest first: unproven states, of these the newest, so that
    /// any number of claims leaves the states before them; then proven states that hold
    /// nothing, of these the oldest; then the rest.
    fn order(&self) -> (bool, Reverse<u64>, bool, u64) {
        if self.proven {
            (true, Reverse(0), self.state.counts(), self.heard_at_ms)
        } else {
            (false, Reverse(self.known_since_ms), false, 0)
        }
    }
}

/// The states to forget when a presence of `speaker` has come; `speaker` and the active
/// state are never among them.
pub fn to_forget(candidates: &[Candidate<'_>], speaker: StateId, now_ms: u64) -> Vec<StateId> {
    let may_go = |one: &&Candidate<'_>| one.state.id != speaker && !one.state.is_active();
    let (old, mut rest): (Vec<&Candidate<'_>>, Vec<&Candidate<'_>>) =
        candidates.iter().filter(may_go).partition(|one| one.is_old(now_ms));
    let surplus = (candidates.len() - old.len()).saturating_sub(KEPT);
    // Of two that came in the same millisecond the later one is the newer.
    rest.reverse();
    rest.sort_by_key(|one| one.order());
    old.into_iter().chain(rest.into_iter().take(surplus)).map(|one| one.state.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Role;
    use uuid::Uuid;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn state(n: u128, had_lease: bool, holds: bool) -> KnownState {
        KnownState {
            id: StateId(Uuid::from_u128(n)),
            instance: Uuid::from_u128(n),
            role: Role::Standby,
            holds,
            active_since_ms: had_lease.then_some(1),
            superseded_at_ms: had_lease.then_some(2),
            given_up_at_ms: None,
        }
    }

    fn forgotten(states: &[(KnownState, bool, u64)], speaker: u128, now_ms: u64) -> Vec<u128> {
        let candidate = |(state, proven, at): &(KnownState, bool, u64)| Candidate {
            state: Box::leak(Box::new(state.clone())),
            proven: *proven,
            known_since_ms: *at,
            heard_at_ms: *at,
        };
        let candidates: Vec<Candidate<'_>> = states.iter().map(candidate).collect();
        let forgotten = to_forget(&candidates, StateId(Uuid::from_u128(speaker)), now_ms);
        forgotten.into_iter().map(|id| id.0.as_u128()).collect()
    }

    #[test]
    fn what_has_nothing_ages_out_and_later_if_it_had_the_lease() {
        let states = [
            (state(1, false, false), false, 0),
            (state(2, false, true), false, 0),
            (state(3, true, false), false, 0),
            (state(4, true, true), false, 0),
        ];
        assert_eq!(forgotten(&states, 9, DAY), [0; 0]);
        assert_eq!(forgotten(&states, 9, DAY + 1), [1]);
        assert_eq!(forgotten(&states, 1, DAY + 1), [0; 0], "the one that speaks stays");
        assert_eq!(forgotten(&states, 9, 30 * DAY + 1), [1, 3]);
    }

    #[test]
    fn of_too_many_the_newest_claims_go_and_what_has_proven_itself_stays() {
        let mut states: Vec<(KnownState, bool, u64)> =
            (0..KEPT as u64).map(|n| (state(100 + u128::from(n), true, true), false, n)).collect();
        states.push((state(1, true, false), true, 99));
        let newest = 100 + KEPT as u128 - 1;
        assert_eq!(forgotten(&states, 1, 99), [newest]);
        assert_eq!(forgotten(&states, newest, 99), [newest - 1]);
        for one in &mut states {
            one.1 = true;
        }
        assert_eq!(forgotten(&states, 100, 99), [1], "what has nothing goes before what has");
        states[KEPT].0 = state(1, true, true);
        assert_eq!(forgotten(&states, 100, 99), [101], "the oldest");
        states[1].0 =
            KnownState { role: Role::Active, superseded_at_ms: None, ..state(101, true, true) };
        assert_eq!(forgotten(&states, 100, 99), [102], "the active one stays");
    }
}
