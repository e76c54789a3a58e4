//! Endpoints and single values on any engine.

use crate::store::{Error, Registration, Store};
use clutch_common::id::EndpointId;
use clutch_common::topology::QueueKind;

pub(super) async fn an_endpoint_keeps_its_id_and_contradictions_are_refused(store: Store) {
    let wanted = |name: &str, id, queue| Registration {
        name: name.to_owned(),
        id,
        queue,
        lost_after: None,
        now_ms: 1,
    };
    let (lab, new) = store.register(wanted("lab", None, None)).await.unwrap();
    assert!(new);
    assert_eq!(
        store.register(wanted("lab", Some(lab.id), None)).await.unwrap(),
        (lab.clone(), false)
    );
    let refused = async |wanted| store.register(wanted).await.unwrap_err().to_string();
    assert!(refused(wanted("lab", Some(EndpointId::new()), None)).await.contains("leave --id out"));
    assert!(refused(wanted("other", Some(lab.id), None)).await.contains("endpoint 'lab'"));
    let quorum = Some(QueueKind::Quorum);
    let (changed, _) = store.register(wanted("lab", None, quorum)).await.unwrap();
    assert_eq!(changed.queue, QueueKind::Quorum, "until it is declared, the kind may change");
    let (changed, _) = store.register(wanted("lab", None, None)).await.unwrap();
    assert_eq!(changed.queue, QueueKind::Classic, "and a kind that failed does not stick");
    store.register(wanted("lab", None, quorum)).await.unwrap();
    store.declared(lab.id, QueueKind::Classic).await.unwrap();
    let words = refused(wanted("lab", None, Some(QueueKind::Classic))).await;
    assert!(words.contains("has a quorum queue"), "{words}");
    assert_eq!(store.shared_queue_kind().await.unwrap(), Some(QueueKind::Classic));
    assert_eq!(store.endpoint(&lab.id.to_string()).await.unwrap().unwrap().name, "lab");
    assert_eq!(store.endpoint("nobody").await.unwrap(), None);
}

pub(super) async fn the_id_of_the_service_is_made_once(store: Store) {
    let id = store.service_id().await.unwrap();
    assert_eq!(store.service_id().await.unwrap(), id);
}

pub(super) async fn a_closed_store_answers_nothing(store: Store) {
    store.close().await;
    assert!(matches!(store.service_id().await, Err(Error::Silent)));
}
