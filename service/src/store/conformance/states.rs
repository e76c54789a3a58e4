//! The states of endpoints on any engine.

use super::{begin, chunk, done, record, spec};
use crate::store::{Batch, PresenceMessage, Store};
use crate::stub_broker;
use clutch_common::failover::{self as rules, KEPT, KnownState};
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::wire::{Presence, Role};
use std::sync::Arc;
use uuid::Uuid;

/// How many messages the service records at once.
const AT_ONCE: usize = 32;

fn says(endpoint: EndpointId, state: StateId, role: Role, standby: bool) -> Presence {
    let active = stub_broker::active(endpoint, state, Uuid::now_v7());
    Presence { role, standby, pending: 1, ..active }
}

async fn states(store: &Store) -> Vec<KnownState> {
    store.endpoint_states().await.unwrap().into_iter().flat_map(|one| one.states).collect()
}

pub(super) async fn however_many_states_are_claimed_few_are_kept_and_the_real_ones_among_them(
    store: Store,
) {
    let endpoint = EndpointId::new();
    let begun = begin(&store, chunk(endpoint, "k", &[spec(&["a"]), spec(&["b"])])).await.unwrap();
    store.mark_submitted(begun.iter().map(|one| one.seq).collect(), 5).await.unwrap();
    let [active, waiting] = [(); 2].map(|()| StateId::new());
    let ours = TaskResult { state_id: Some(active), ..done(&begun[0], 1, Outcome::Succeeded) };
    let real = says(endpoint, active, Role::Active, true);
    let spare = says(endpoint, waiting, Role::Standby, true);
    record(&store, &[ours], &[real.clone(), spare], 1000).await.unwrap();

    let forged = |number: usize| {
        let role = if number.is_multiple_of(2) { Role::Active } else { Role::Standby };
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        Presence {
            delivered: Some(attempt),
            ..says(endpoint, StateId::new(), role, number % 4 > 1)
        }
    };
    let messages = |numbers: std::ops::Range<usize>| {
        let message = |presence| PresenceMessage {
            presence,
            message: Some(Uuid::now_v7().to_string()),
            commits: None,
            waited: false,
        };
        numbers.map(forged).map(message).collect()
    };
    for first in (0..640).step_by(AT_ONCE) {
        let batch = Batch { presences: messages(first..first + AT_ONCE), ..Batch::default() };
        store.record(Arc::new(batch), 2000 + first as u64, |_| ()).await.unwrap();
        assert!(states(&store).await.len() <= KEPT, "after {first}");
    }
    let kept = states(&store).await;
    for real in [active, waiting] {
        assert!(kept.iter().any(|state| state.id == real), "{real} is forgotten: {kept:?}");
    }
    // It takes over again as one that was active before, not as a new disk.
    let again = Presence { instance: Uuid::now_v7(), ..real };
    record(&store, &[], &[again], 9000).await.unwrap();
    let kept = states(&store).await;
    assert_eq!(rules::active(&kept).map(|state| state.id), Some(active));
    assert!(kept.len() <= KEPT);

    // A day later those that claimed to wait are gone, with the next presence of any state.
    let day = 24 * 60 * 60 * 1000;
    let idle = |state, pending| Presence { pending, ..says(endpoint, state, Role::Standby, true) };
    let old = StateId::new();
    record(&store, &[], &[idle(old, 0)], 9000).await.unwrap();
    assert!(states(&store).await.iter().any(|state| state.id == old));
    record(&store, &[], &[idle(waiting, 0)], 9001 + day).await.unwrap();
    assert!(!states(&store).await.iter().any(|state| state.id == old));
}
