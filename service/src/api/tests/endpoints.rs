//! Endpoints in the API: listed, shown and steered, with a link and without.

use super::{Service, service};
use crate::api::types::{DrainAnswer, DrainRequest, EndpointAnswer, EndpointPage};
use crate::failure::GENERAL;
use crate::model::EndpointStatus;
use crate::stub_broker;
use clutch_common::id::StateId;
use clutch_common::topology;
use clutch_common::wire::{
    self, DRAIN_TYPE, FunctionOffer, InstanceDetails, Presence, RESUME_TYPE,
};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

async fn listed(service: &Service) -> EndpointPage {
    service.client.get("/v1/endpoints", &[]).await.unwrap()
}

async fn shown(service: &Service) -> EndpointAnswer {
    service.client.get("/v1/endpoints/lab", &[]).await.unwrap()
}

/// The kinds of the messages in the endpoint's control queue.
fn steered(service: &Service) -> Vec<String> {
    let queue = topology::control_queue(service.endpoint);
    let published = service.broker.published().into_iter();
    let to_it = published.filter(|(to, _)| to.routing_key == queue);
    let mut kinds: Vec<String> = to_it.filter_map(|(_, message)| message.kind).collect();
    // The session sends what the request just recorded, if it looks at that moment.
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn an_endpoint_shows_what_its_instance_told() {
    let service = service(true).await;
    let before = listed(&service).await;
    assert!(before.engaged && before.next.is_none());
    assert_eq!(before.endpoints[0].status, EndpointStatus::NeverSeen);
    assert_eq!(before.endpoints[0].queued, Some(0));
    let details = InstanceDetails {
        version: "1.2.3".to_owned(),
        host: "node-1".to_owned(),
        slots: 8,
        free: 8,
        topics: Vec::new(),
        functions: vec![FunctionOffer { name: "add".to_owned(), version: None }],
        started_at_ms: 5,
        clock_ms: 6,
        draining: false,
    };
    let active = stub_broker::active(service.endpoint, StateId::new(), Uuid::now_v7());
    let presence = Presence { details: Some(details.clone()), pending: 3, ..active };
    service.broker.deliver(wire::encode_presence(&presence));
    let heard = async {
        loop {
            let answer = shown(&service).await;
            if let [instance] = answer.endpoint.instances.as_slice() {
                return (answer.endpoint.summary.clone(), instance.clone());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await;
    let (summary, instance) = heard.unwrap();
    assert_eq!((summary.slots, summary.host.as_deref()), (Some(8), Some("node-1")));
    assert_eq!(instance.details, Some(details));
    assert_eq!((instance.pending, instance.may_hold), (3, true));
    assert_eq!(instance.clock_offset_ms, None, "the message may have waited");
}

#[tokio::test]
async fn a_drain_is_sent_once_and_a_resume_ends_it() {
    let service = service(true).await;
    let drain = async || -> DrainAnswer {
        let request = DrainRequest::default();
        service.client.post("/v1/endpoints/lab/drain", &request).await.unwrap()
    };
    let first = drain().await;
    assert!(first.draining && first.changed && first.confirmed, "{first:?}");
    let second = drain().await;
    assert!(second.draining && !second.changed, "{second:?}");
    assert_eq!(steered(&service), [DRAIN_TYPE]);
    assert!(listed(&service).await.endpoints[0].drain.is_some());
    let resume = json!({});
    let after: DrainAnswer =
        service.client.post("/v1/endpoints/lab/resume", &resume).await.unwrap();
    assert!(!after.draining && after.changed && after.confirmed, "{after:?}");
    assert_eq!(steered(&service), [DRAIN_TYPE, RESUME_TYPE]);
    let (words, code) = service.post("/v1/endpoints/lob/drain", json!({})).await;
    assert!(words.contains("no endpoint 'lob': known are lab"), "{words}");
    assert_eq!(code, GENERAL);
}

#[tokio::test]
async fn without_a_link_what_is_known_is_shown_and_a_drain_is_recorded() {
    let service = service(false).await;
    let page = listed(&service).await;
    assert!(!page.engaged && page.fault.is_some());
    assert_eq!(page.endpoints[0].status, EndpointStatus::NeverSeen);
    assert_eq!(page.endpoints[0].queued, None);
    let drain: DrainAnswer =
        service.client.post("/v1/endpoints/lab/drain", &DrainRequest::default()).await.unwrap();
    assert!(drain.draining && !drain.confirmed && drain.unsent.is_some(), "{drain:?}");
    let again: DrainAnswer =
        service.client.post("/v1/endpoints/lab/drain", &DrainRequest::default()).await.unwrap();
    assert!(!again.changed && !again.confirmed, "it is still to be sent: {again:?}");
}
