//! Events in the API: what a client is told, and what it is told after it was away.

use super::{Service, request, service};
use crate::model::{FeedEvent, FeedKind};
use crate::store::conformance::spec;
use clutch_common::task::result::Outcome;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// A client that reads events.
struct Events(BufReader<UnixStream>);

/// An event as it is sent.
#[derive(Debug)]
struct Sent {
    id: String,
    event: String,
    data: Value,
}

impl Events {
    async fn open(service: &Service, query: &str, after: Option<&str>) -> Self {
        let mut client = UnixStream::connect(&service.socket).await.unwrap();
        let after = after.map(|id| format!("\r\nlast-event-id: {id}")).unwrap_or_default();
        // By this version the answer is not cut into chunks.
        let head = format!("GET /v1/events?{query} HTTP/1.0\r\nhost: x{after}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut events = Self(BufReader::new(client));
        while !events.line().await.is_empty() {}
        events
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }

    async fn next(&mut self) -> Sent {
        let mut sent = Sent { id: String::new(), event: String::new(), data: Value::Null };
        loop {
            let line = self.line().await;
            match line.split_once(": ") {
                Some(("id", id)) => sent.id = id.to_owned(),
                Some(("event", event)) => sent.event = event.to_owned(),
                Some(("data", data)) => sent.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !sent.event.is_empty() => return sent,
                _ => (),
            }
        }
    }

    /// The events up to the first with this index and kind, as index and kind.
    async fn until(&mut self, index: u64, kind: &str) -> (Vec<(u64, String)>, String) {
        let mut seen = Vec::new();
        loop {
            let Sent { id, event, data } = self.next().await;
            seen.push((data["index"].as_u64().unwrap(), event));
            if seen.last() == Some(&(index, kind.to_owned())) {
                return (seen, id);
            }
        }
    }
}

fn pairs(seen: &[(u64, &str)]) -> Vec<(u64, String)> {
    seen.iter().map(|(index, kind)| (*index, (*kind).to_owned())).collect()
}

#[tokio::test]
async fn a_client_is_told_of_each_state_of_a_task_and_goes_on_where_it_was() {
    let service = service(true).await;
    let mut events = Events::open(&service, "key=k", None).await;
    let open = events.next().await;
    assert_eq!((open.event.as_str(), &open.data), ("open", &json!({ "resumed": false })));
    service.submit(&request("other", vec![spec(&["x"])])).await.unwrap();
    let two = request("k", vec![spec(&["a"]), spec(&["b"])]);
    let ids = service.submit(&two).await.unwrap().ids;
    let (mut seen, id) = events.until(1, "submitted").await;
    seen.sort();
    let expected = [(0, "recorded"), (0, "submitted"), (1, "recorded"), (1, "submitted")];
    assert_eq!(seen, pairs(&expected));
    drop(events);
    // It is away while the first task ends, and back before the second does.
    service.finish(&ids[..1], Outcome::Failed);
    service.all_in("k", json!({ "failed": 1, "submitted": 1 })).await;
    let mut events = Events::open(&service, "key=k", Some(&id)).await;
    assert_eq!(events.next().await.data, json!({ "resumed": true }));
    let first = events.next().await;
    assert_eq!(first.data["task"], json!(ids[0]));
    assert_eq!((&first.data["state"], &first.data["attempt"]), (&json!("failed"), &json!(1)));
    assert_eq!((first.event.as_str(), &first.data["key"]), ("outcome", &json!("k")));
    service.finish(&ids[1..], Outcome::Succeeded);
    assert_eq!(events.until(1, "outcome").await.0, pairs(&[(1, "outcome")]));
    let again = json!({ "key": "k", "states": ["failed"] });
    service.client.post::<Value>("/v1/retry", &again).await.unwrap();
    let (seen, _) = events.until(0, "submitted").await;
    assert_eq!(seen, pairs(&[(0, "waiting"), (0, "submitted")]));
}

#[tokio::test]
async fn a_client_is_told_of_an_endpoint_and_filters_by_kind() {
    let service = service(false).await;
    let mut events = Events::open(&service, "kinds=outcome,endpoint&endpoint=lab", None).await;
    assert_eq!(events.next().await.event, "open");
    let ids = service.submit(&request("k", vec![spec(&["a"])])).await.unwrap().ids;
    let cancel = json!({ "tasks": ids });
    service.client.post::<Value>("/v1/cancel", &cancel).await.unwrap();
    let ended = events.next().await;
    assert_eq!((ended.event.as_str(), &ended.data["state"]), ("outcome", &json!("cancelled")));
    assert_eq!(ended.data["endpoint_name"], "lab");
}

#[tokio::test]
async fn a_place_that_is_not_known_is_reset_and_an_answer_ends_in_words() {
    let service = service(false).await;
    let mut events = Events::open(&service, "for_ms=1", Some("0-7")).await;
    let reset = events.next().await;
    assert_eq!(reset.event, "reset");
    assert!(reset.data["detail"].as_str().unwrap().contains("list again"), "{reset:?}");
    let end = events.next().await;
    assert_eq!((end.event.as_str(), &end.data["code"]), ("end", &json!("over")));
    let mut events = Events::open(&service, "", None).await;
    assert_eq!(events.next().await.event, "open");
    service.stop.cancel();
    assert_eq!(events.next().await.data["code"], "stopping");
    for (query, words) in [
        ("task=x", "not a task id"),
        ("kinds=ended", "no kind of event"),
        ("endpoint=lob", "no endpoint 'lob'"),
    ] {
        let query: Vec<(&str, &str)> = query.split_once('=').into_iter().collect();
        let service = super::service(false).await;
        let error = service.get("/v1/events", &query).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go_in_words_and_holds_no_memory() {
    let service = service(false).await;
    let mut slow = Events::open(&service, "", None).await;
    let mut other = Events::open(&service, "kinds=outcome", None).await;
    let (feed, endpoint) = (service.store.feed(), service.endpoint);
    let name = Some("x".repeat(10_000));
    let event = FeedEvent {
        kind: FeedKind::Endpoint,
        at_ms: 1,
        endpoint,
        endpoint_name: name,
        status: None,
        of: None,
    };
    // More than the ring and the buffers of the connection hold.
    for _ in 0..50 {
        feed.tell(vec![event.clone(); 100]);
    }
    assert_eq!(slow.next().await.event, "open");
    let mut read = 0;
    let end = loop {
        let sent = slow.next().await;
        if sent.event != "endpoint" {
            break sent;
        }
        read += 1;
    };
    assert_eq!((end.event.as_str(), &end.data["code"]), ("end", &json!("behind")));
    assert!(end.data["detail"].as_str().unwrap().contains("too slow"), "{end:?}");
    assert!(read < 1000, "{read} of 5000 events were held for it");
    assert_eq!(other.next().await.event, "open");
}
