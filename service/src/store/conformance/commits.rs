//! The commits that states have seen, on any engine.

use super::record;
use crate::store::{Batch, PresenceMessage, Registration, Store};
use crate::stub_broker;
use clutch_common::id::{EndpointId, StateId};
use clutch_common::wire::{self, Presence};
use std::collections::BTreeMap;
use std::sync::Arc;

async fn registered(store: &Store) -> EndpointId {
    let name = "lab".to_owned();
    let wanted = Registration { name, id: None, queue: None, lost_after: None, now_ms: 1 };
    store.register(wanted).await.unwrap().0.id
}

/// The first presence of the `chance`th run, on a disk that has seen so many commits.
fn presence(endpoint_id: EndpointId, chance: u64, age: u64) -> Presence {
    let state_id = StateId(uuid::Uuid::from_u128(1));
    let active = stub_broker::active(endpoint_id, state_id, wire::session_name(chance, age, 1));
    Presence { asks: true, pending: 1, ..active }
}

/// Whether an instance that says this is told that its disk went back.
async fn is_behind(store: &Store, message: PresenceMessage) -> bool {
    let instance = message.presence.instance;
    let batch = Arc::new(Batch { presences: vec![message], ..Batch::default() });
    store.record(batch, 5, |_| ()).await.unwrap();
    let asking = store.pending_welcomes().await.unwrap();
    let [one] = asking.as_slice() else { panic!("{asking:?}") };
    assert_eq!(one.welcome.instance, instance);
    store.welcomed(*one).await.unwrap();
    assert_eq!(store.pending_welcomes().await.unwrap(), []);
    one.welcome.behind
}

pub(super) async fn a_state_that_has_seen_fewer_commits_than_known_is_told_so_once(store: Store) {
    let endpoint = registered(&store).await;
    let message = |chance, age| {
        let presence = presence(endpoint, chance, age);
        PresenceMessage { presence, message: None, commits: None, waited: false }
    };
    assert!(!is_behind(&store, message(1, 10)).await);
    let commits = BTreeMap::from([((endpoint, presence(endpoint, 1, 10).state_id), 30)]);
    let batch = Arc::new(Batch { commits, ..Batch::default() });
    store.record(batch, 5, |_| ()).await.unwrap();
    assert!(!is_behind(&store, message(1, 10)).await, "another session of the run");
    assert!(!is_behind(&store, message(2, 30)).await, "a restart");
    assert!(is_behind(&store, message(3, 29)).await, "a snapshot");
    assert!(!is_behind(&store, message(4, 29)).await, "it goes on from there");
    let read = PresenceMessage { commits: Some(31), ..message(5, 30) };
    assert!(is_behind(&store, read).await, "what it had sent was read just now");
    let stranger = presence(EndpointId::new(), 1, 1);
    record(&store, &[], &[stranger], 5).await.unwrap();
    assert_eq!(store.pending_welcomes().await.unwrap(), []);
}
