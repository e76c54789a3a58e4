//! The steering of endpoints on any engine.

use crate::store::{DrainChange, Registration, Store};
use clutch_common::id::EndpointId;
use clutch_common::topology::QueueKind;
use clutch_common::wire::{Drain, Resume, Steering};

pub(super) async fn a_drain_is_numbered_once_and_sent_until_the_broker_has_it(store: Store) {
    let name = "lab".to_owned();
    let wanted = Registration { name, id: None, queue: None, lost_after: None, now_ms: 1 };
    let lab = store.register(wanted).await.unwrap().0.id;
    let drain = |deadline_ms| DrainChange::Drain { deadline_ms };
    let change = async |change, now| store.change_drain(lab, change, now).await.unwrap().unwrap();
    let pending = async || {
        let all = store.pending_drains().await.unwrap();
        all.into_iter().map(|one| one.steering).collect::<Vec<Steering>>()
    };
    assert_eq!(store.change_drain(EndpointId::new(), drain(None), 5).await.unwrap(), None);
    let (fresh, changed) = change(DrainChange::Resume, 4).await;
    assert!(!changed && !fresh.draining && fresh.number == 0, "{fresh:?}");

    let (first, changed) = change(drain(None), 5).await;
    assert!(changed && first.draining, "{first:?}");
    assert_eq!((first.number, first.since_ms), (1, Some(5)));
    assert_eq!(change(drain(None), 6).await, (first, false), "it drains already");
    assert_eq!(pending().await, [Steering::Drain(Drain { number: 1, deadline_ms: None })]);

    let (sooner, _) = change(drain(Some(90)), 7).await;
    assert_eq!((sooner.number, sooner.since_ms), (2, Some(5)), "another deadline is told");
    store.drain_confirmed(lab, 1).await.unwrap();
    assert_eq!(pending().await, [Steering::Drain(Drain { number: 2, deadline_ms: Some(90) })]);
    store.drain_confirmed(lab, 2).await.unwrap();
    assert_eq!(pending().await, []);
    for sent_again in [false, true] {
        store.declared(lab, QueueKind::Classic).await.unwrap();
        assert_eq!(!pending().await.is_empty(), sent_again, "its queue may be a new one");
    }

    let (after, changed) = change(DrainChange::Resume, 9).await;
    assert!(changed && !after.draining);
    assert_eq!((after.number, after.since_ms, after.deadline_ms), (3, None, None));
    assert_eq!(pending().await, [Steering::Resume(Resume { number: 3 })]);
    store.drain_confirmed(lab, 3).await.unwrap();
    assert!(change(DrainChange::Resume, 10).await.0.confirmed);
}
