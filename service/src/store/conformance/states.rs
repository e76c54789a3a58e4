//! The states of endpoints on any engine.

use super::{ask, begin, chunk, done, record, spec, submitted_task};
use crate::store::{Batch, PresenceMessage, Store};
use crate::stub_broker;
use clutch_common::failover::{self as rules, KEPT, KnownState};
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::wire::{FunctionOffer, InstanceDetails, Presence, Role};
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
    store.mark_submitted(begun.iter().map(|one| (one.seq, 1)).collect(), 5).await.unwrap();
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

pub(super) async fn a_state_that_is_declared_lost_leaves_its_attempts_in_doubt(store: Store) {
    let endpoint = submitted_task(&store).await;
    let state = StateId::new();
    let active = stub_broker::active(endpoint, state, Uuid::now_v7());
    record(&store, &[], std::slice::from_ref(&active), 1000).await.unwrap();
    let known = states(&store).await;
    let other = Some(StateId::new());
    let lost = async |which, known, now| store.declare_lost(endpoint, (which, known), now).await;
    let none = lost(other, known.clone(), 2000).await.unwrap().unwrap();
    assert_eq!((none.states, none.tasks), (vec![], 0));
    assert_eq!(store.endpoint_record(endpoint).await.unwrap().unwrap().unaccounted, 0);

    let declared = lost(None, known.clone(), 2000).await.unwrap().unwrap();
    assert_eq!((declared.states, declared.tasks), (vec![state], 1));
    let shown = store.endpoint_record(endpoint).await.unwrap().unwrap();
    assert_eq!((shown.unaccounted, shown.unasked), (1, 1));
    assert_eq!(shown.states[0].known.given_up_at_ms, Some(2000));
    assert_eq!(lost(None, known, 3000).await.unwrap(), None, "it is not as it was");

    // It comes back: it is asked, and not given up any more.
    record(&store, &[], &[active], 4000).await.unwrap();
    assert_eq!(states(&store).await[0].given_up_at_ms, None);
    assert_eq!(ask(&store, endpoint, 10, 5000).await, 1);
}

pub(super) async fn an_endpoint_is_read_with_its_states_and_what_waits_for_it(store: Store) {
    let endpoint = submitted_task(&store).await;
    let details = InstanceDetails {
        version: "1".to_owned(),
        host: "node-1".to_owned(),
        slots: 4,
        free: 4,
        topics: vec!["cloud".to_owned()],
        functions: vec![FunctionOffer { name: "add".to_owned(), version: None }],
        started_at_ms: 5,
        clock_ms: 600,
        draining: false,
    };
    let active = stub_broker::active(endpoint, StateId::new(), Uuid::now_v7());
    let presence = Presence { details: Some(details.clone()), pending: 7, ..active.clone() };
    record(&store, &[], &[presence, Presence { pending: 2, ..active }], 1000).await.unwrap();
    let all = store.endpoint_records(String::new(), 10).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(store.endpoint_record(endpoint).await.unwrap().as_ref(), Some(&all[0]));
    let [state] = all[0].states.as_slice() else { panic!("{all:?}") };
    assert_eq!((state.known_since_ms, state.heard_at_ms), (1000, 1000));
    assert_eq!((state.told.pending, state.told.clock_offset_ms), (2, Some(400)));
    assert_eq!(state.told.details.as_ref(), Some(&details), "it is told once");
    assert_eq!(all[0].open, [("submitted".to_owned(), 1)].into());
    assert_eq!(all[0].oldest_ms, Some(1000));
    let name = all[0].endpoint.name.clone();
    assert_eq!(store.endpoint_records(name, 10).await.unwrap(), [], "none comes after it");
    assert_eq!(store.endpoint_record(EndpointId::new()).await.unwrap(), None);
}
