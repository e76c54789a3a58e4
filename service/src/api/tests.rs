//! The API over a real Unix socket, with the real session on a fake broker.

mod document;
mod endpoints;
mod events;
mod schedules;

use super::connections::{self, Bounds};
use super::types::*;
use super::{Api, Signals};
use crate::broker::health::HealthState;
use crate::broker::ownership::Claimant;
use crate::broker::session::{LinkState, SessionContext, keep_engaged};
use crate::client::Client;
use crate::failure::{GENERAL, UNAVAILABLE, USAGE, exit_code};
use crate::model::{Progress, TaskSpec};
use crate::publishing::Placements;
use crate::state_folder::StateFolder;
use crate::store::conformance::spec;
use crate::store::{Registration, Store};
use crate::stub_broker::{Broker, result_of};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::link::Settlement;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::wire;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

struct Service {
    _temp: tempfile::TempDir,
    _running: JoinSet<()>,
    client: Client,
    broker: Broker,
    stop: CancellationToken,
    endpoint: EndpointId,
    socket: PathBuf,
    submissions: TaskTracker,
    store: Store,
}

/// A service with the endpoint `lab`; its broker link is up if `engaged`.
async fn service(engaged: bool) -> Service {
    let temp = tempfile::tempdir().unwrap();
    let folder = StateFolder::new(temp.path());
    let store = Store::open(&folder).await.unwrap();
    let wanted =
        Registration { name: "lab".to_owned(), id: None, queue: None, lost_after: None, now_ms: 1 };
    let endpoint = store.register(wanted).await.unwrap().0.id;
    let broker = Broker::default().patient();
    let (link, mut link_state) = watch::channel(LinkState::Disengaged("not yet".into()));
    let commits = watch::Sender::new(0);
    let stop = CancellationToken::new();
    let (news, _) = watch::channel(0);
    let (told, submissions) = (HealthState::default(), TaskTracker::new());
    let placements = Placements::default();
    let api = Api::new(
        store.clone(),
        link_state.clone(),
        Signals { recorded: commits.clone(), timers: watch::channel(0).0, news: news.clone() },
        told.clone(),
        submissions.clone(),
        placements.clone(),
        stop.clone(),
    );
    let listener = tokio::net::UnixListener::bind(folder.socket()).unwrap();
    let mut running = JoinSet::new();
    let serving = connections::serve(listener, api.router(), Bounds::default(), stop.clone());
    running.spawn(async move { serving.await.unwrap() });
    let transport = Arc::new(broker.clone());
    let ask_after = Duration::from_secs(600);
    let claimant = Claimant { service: store.service_id().await.unwrap(), take_over: false };
    let (closer, management) = (None, None);
    let context = SessionContext {
        transport,
        store: store.clone(),
        link,
        commits,
        news,
        closer,
        management,
        ask_after,
        claimant,
        told,
        submissions: submissions.clone(),
        placements: placements.clone(),
        rules: crate::messages::Rules::default(),
    };
    let session_stop = stop.clone();
    running.spawn(async move {
        if engaged {
            keep_engaged(&context, || (), &session_stop).await.unwrap();
        } else {
            session_stop.cancelled().await;
            drop(context);
        }
    });
    if engaged {
        link_state.wait_for(|link| matches!(link, LinkState::Engaged(_))).await.unwrap();
    }
    let client = Client::new(&folder);
    let socket = folder.socket();
    let (_temp, _running) = (temp, running);
    Service { _temp, _running, client, broker, stop, endpoint, socket, submissions, store }
}

fn request(key: &str, tasks: Vec<TaskSpec>) -> SubmitRequest {
    let total = tasks.len() as u64;
    SubmitRequest {
        due: None,
        endpoint: Some("lab".into()),
        topic: None,
        function_version: None,
        start_within_ms: None,
        place_within_ms: None,
        key: key.into(),
        total,
        first: 0,
        tasks,
        retry: None,
        wait_ms: 0,
        confirmed: false,
    }
}

impl Service {
    async fn submit(&self, request: &SubmitRequest) -> anyhow::Result<SubmitAnswer> {
        self.client.post("/v1/tasks", request).await
    }

    /// How many tasks of a submission are in each state.
    async fn states(&self, key: &str) -> Value {
        let wait = json!({ "key": key, "timeout_ms": 0 });
        let progress: Value = self.client.post("/v1/wait", &wait).await.unwrap();
        progress["states"].clone()
    }

    /// Waits until so many tasks of a submission are in each state.
    async fn all_in(&self, key: &str, states: Value) {
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.states(key).await;
            if seen == states {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{seen}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn post(&self, path: &str, body: Value) -> (String, u8) {
        let error = self.client.post::<Value>(path, &body).await.unwrap_err();
        (error.to_string(), exit_code(&error))
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Value> {
        let parameters: Vec<(&str, String)> =
            parameters.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        self.client.get(path, &parameters).await
    }

    fn finish(&self, ids: &[TaskId], outcome: Outcome) {
        let results: Vec<Vec<u8>> = ids
            .iter()
            .map(|&task_id| {
                let result = result_of(Attempt { task_id, attempt: 1 }, outcome);
                wire::encode_result(&TaskResult { endpoint_id: self.endpoint, ..result })
            })
            .collect();
        self.broker.deliver(wire::pack_results(self.endpoint, &results));
    }
}

#[tokio::test]
async fn a_submission_is_published_once_however_often_it_is_submitted() {
    let service = service(true).await;
    let mut request = request("k", (0..250).map(|n| spec(&["echo", &n.to_string()])).collect());
    let first = service.submit(&request).await.unwrap();
    let again = service.submit(&request).await.unwrap();
    assert_eq!((first.recorded, again.recorded), (250, 0));
    assert_eq!(first.ids, again.ids);
    request.confirmed = true;
    service.all_in("k", json!({ "submitted": 250 })).await;
    service.submit(&request).await.unwrap();
    let published = service.broker.published();
    assert_eq!(published.len(), 3);
    let sent: Vec<TaskId> = published
        .iter()
        .flat_map(|(to, message)| {
            assert_eq!(to.routing_key, format!("{}.tasks", service.endpoint));
            wire::decode_tasks(&message.body, None).tasks
        })
        .map(|task| task.id)
        .collect();
    assert_eq!(sent, first.ids);
}

#[tokio::test]
async fn a_submission_is_answered_before_the_broker_has_it_and_a_confirmed_one_after() {
    let service = service(true).await;
    service.broker.silence(true);
    let mut request = request("k", vec![spec(&["a"])]);
    service.submit(&request).await.unwrap();
    assert_eq!(service.states("k").await, json!({ "waiting": 1 }));
    request.confirmed = true;
    let confirmed = service.submit(&request);
    let speak = async {
        while service.broker.published().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        service.broker.silence(false);
    };
    let (confirmed, ()) = tokio::join!(confirmed, speak);
    assert_eq!(confirmed.unwrap().recorded, 0);
    assert_eq!(service.states("k").await, json!({ "submitted": 1 }));
}

#[tokio::test]
async fn what_the_broker_does_not_take_is_told_and_placed_later() {
    let service = service(true).await;
    let large = TaskSpec { stdin: vec![b'x'; 200_000].into(), ..spec(&["cat"]) };
    let request = SubmitRequest { confirmed: true, ..request("k", vec![large; 3]) };
    service.broker.settle_with([
        Settlement::Confirmed,
        Settlement::Returned("NO_ROUTE".into()),
        Settlement::Confirmed,
    ]);
    let error = service.submit(&request).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("no queue for the endpoint 'lab'"), "{words}");
    assert!(words.contains("1 of 3 tasks are not submitted"), "{words}");
    assert!(words.contains("wait, and are placed when"), "{words}");
    assert_eq!(exit_code(&error), UNAVAILABLE);
    assert_eq!(service.states("k").await, json!({ "waiting": 1, "submitted": 2 }));
    let waiting = service.get("/v1/tasks", &[("state", "waiting")]).await.unwrap();
    let id = waiting["tasks"][0]["id"].as_str().unwrap().to_owned();
    let task = service.get(&format!("/v1/tasks/{id}"), &[]).await.unwrap();
    assert_eq!(task["why"]["cause"], "no_queue", "{task}");
    service.broker.settle_with([Settlement::Refused]);
    let words = service.submit(&request).await.unwrap_err().to_string();
    assert!(words.contains("queue of the endpoint 'lab' full"), "{words}");
    // It is tried again by itself.
    service.all_in("k", json!({ "submitted": 3 })).await;
    let mut other = request.clone();
    other.tasks[0].argv.push("x".into());
    let error = service.submit(&other).await.unwrap_err();
    assert!(error.to_string().contains("choose another key"), "{error}");
}

#[tokio::test]
async fn a_task_that_no_broker_takes_ends_as_rejected_and_wakes_those_that_wait() {
    let service = service(true).await;
    service.broker.settle_with([Settlement::TooLarge(10)]);
    let request = SubmitRequest { wait_ms: 60_000, ..request("k", vec![spec(&["a"])]) };
    let answer = service.submit(&request).await.unwrap();
    assert_eq!(answer.progress.unwrap().states["rejected"], 1);
    let task = service.get(&format!("/v1/tasks/{}", answer.ids[0]), &[]).await.unwrap();
    let reason = task["results"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("pass large data by file"), "{reason}");
}

#[tokio::test]
async fn a_submission_is_recorded_to_its_end_though_its_client_is_gone() {
    let service = service(true).await;
    service.broker.silence(true);
    let request = SubmitRequest { confirmed: true, ..request("k", vec![spec(&["a"])]) };
    let body = serde_json::to_string(&request).unwrap();
    let mut client = UnixStream::connect(&service.socket).await.unwrap();
    let head = format!("POST /v1/tasks HTTP/1.1\r\nhost: x\r\ncontent-length: {}", body.len());
    client.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    while service.broker.published().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.shutdown().await.unwrap();
    // The service's end closes when it has given the request up.
    assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    assert_eq!(service.states("k").await, json!({ "waiting": 1 }));
    assert_eq!(service.submissions.len(), 1);
    service.broker.silence(false);
    service.submissions.close();
    service.submissions.wait().await;
    assert_eq!(service.states("k").await, json!({ "submitted": 1 }));
    assert_eq!(service.broker.published().len(), 1);
}

#[tokio::test]
async fn waiting_wakes_with_the_last_result_and_sees_progress_on_the_way() {
    let service = service(true).await;
    let ids = service.submit(&request("k", vec![spec(&["a"]), spec(&["b"])])).await.unwrap().ids;
    let wait = |seen, timeout_ms| {
        let request = WaitRequest { key: Some("k".into()), seen, timeout_ms, tasks: vec![] };
        let client = service.client.clone();
        async move { client.post::<Progress>("/v1/wait", &request).await.unwrap() }
    };
    let soon = wait(None, 20).await;
    assert_eq!((soon.done, soon.total, soon.complete()), (0, 2, false));
    let finish = async |id, outcome| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        service.finish(&[id], outcome);
    };
    let (some, ()) = tokio::join!(wait(Some(0), 60_000), finish(ids[0], Outcome::Succeeded));
    assert_eq!((some.done, some.succeeded), (1, 1));
    let (all, ()) = tokio::join!(wait(None, 60_000), finish(ids[1], Outcome::Failed));
    assert_eq!((all.done, all.succeeded, all.complete()), (2, 1, true));
    let request = json!({ "tasks": [ids[0], TaskId::new()], "timeout_ms": 1 });
    assert!(service.post("/v1/wait", request).await.0.contains("1 of the tasks are not recorded"));
}

#[tokio::test]
async fn a_waiter_is_told_when_the_service_stops() {
    let service = service(true).await;
    service.submit(&request("k", vec![spec(&["a"])])).await.unwrap();
    let wait = service.post("/v1/wait", json!({ "key": "k", "timeout_ms": 60_000 }));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        service.stop.cancel();
    };
    let ((words, code), ()) = tokio::join!(wait, stop);
    assert!(words.contains("stopping"), "{words}");
    assert_eq!(code, UNAVAILABLE);
}

#[tokio::test]
async fn without_a_broker_tasks_are_recorded_and_wait() {
    let service = service(false).await;
    let mut request = request("k", vec![spec(&["a"])]);
    request.confirmed = true;
    let error = service.submit(&request).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("no link to the broker: not yet; nothing was recorded"), "{words}");
    assert_eq!(exit_code(&error), UNAVAILABLE);
    assert_eq!(service.get("/v1/tasks", &[]).await.unwrap()["tasks"], json!([]));
    request.confirmed = false;
    let answer = service.submit(&request).await.unwrap();
    assert!(answer.waiting.unwrap().contains("no link to the broker: not yet"));
    assert_eq!(service.states("k").await, json!({ "waiting": 1 }));
    let task = service.get(&format!("/v1/tasks/{}", answer.ids[0]), &[]).await.unwrap();
    assert_eq!(task["why"]["cause"], "no_link", "{task}");
    let health = service.get("/v1/health", &[]).await.unwrap();
    assert_eq!((&health["engaged"], &health["fault"]), (&json!(false), &json!("not yet")));
}

#[tokio::test]
async fn results_and_details_hold_what_the_endpoint_sent() {
    let service = service(true).await;
    let ids = service.submit(&request("k", vec![spec(&["a", "b"])])).await.unwrap().ids;
    let id = ids[0].to_string();
    let open = service.get("/v1/results", &[("task", &id)]).await.unwrap();
    assert_eq!(open["results"][0]["result"], Value::Null);
    service.finish(&ids, Outcome::Expired);
    let wait = WaitRequest { tasks: ids, timeout_ms: 60_000, ..WaitRequest::default() };
    service.client.post::<Progress>("/v1/wait", &wait).await.unwrap();
    let done = service.get("/v1/results", &[("key", "k")]).await.unwrap();
    assert_eq!(done["results"][0]["result"]["reason"], "because");
    let detail = service.get(&format!("/v1/tasks/{id}"), &[]).await.unwrap();
    assert_eq!(detail["task"]["work"]["process"]["argv"], json!(["a", "b"]));
    assert_eq!((&detail["state"], &detail["command"]), (&json!("expired"), &json!("a b")));
}

#[tokio::test]
async fn bad_requests_are_told_apart_in_words() {
    let service = service(true).await;
    let task = json!({ "argv": ["a"] });
    let submit = |endpoint: &str, key: &str, total: u64, tasks: Value| json!({ "endpoint": endpoint, "key": key, "total": total, "tasks": tasks });
    for (body, words, code) in [
        (json!({ "endpoint": "lab" }), "missing field", USAGE),
        (submit("lab", "k", 1, json!([{ "argv": ["a"], "x": 1 }])), "unknown field `x`", USAGE),
        (submit("lab", "", 1, json!([task])), "key must have", USAGE),
        (submit("lab", "k", 0, json!([task])), "must lie within total", USAGE),
        (submit("lab", "k", 1, json!([])), "from 1 to 1000", USAGE),
        (submit("lab", "k", 2, json!([task, { "argv": [] }])), "task 1: argv is empty", USAGE),
        (submit("lob", "k", 1, json!([task])), "no endpoint 'lob': known are lab", GENERAL),
    ] {
        let (said, exit) = service.post("/v1/tasks", body).await;
        assert!(said.contains(words), "{said}");
        assert_eq!(exit, code, "{said}");
    }
    let error = async |path, parameters: &[(&str, &str)]| {
        service.get(path, parameters).await.unwrap_err().to_string()
    };
    assert!(error("/v1/nothing", &[]).await.contains("nothing at /v1/nothing"));
    assert!(error("/v1/tasks", &[("limit", "0")]).await.contains("from 1 to 1000"));
    assert!(error("/v1/tasks", &[("state", "lost")]).await.contains("'lost' is not a state"));
    assert!(error("/v1/tasks", &[("colour", "red")]).await.contains("colour"));
    assert!(error("/v1/results", &[("key", "none")]).await.contains("under the key 'none'"));
    assert!(error("/v1/tasks/x", &[]).await.contains("not a task id"));
    assert!(service.broker.published().is_empty());
}

#[tokio::test]
async fn without_a_service_the_words_say_how_to_start_one() {
    let temp = tempfile::tempdir().unwrap();
    let client = Client::new(&StateFolder::new(temp.path()));
    let error = client.get::<Value>("/v1/health", &[]).await.unwrap_err();
    assert!(error.to_string().contains("start one with `clutch-service serve --state"), "{error}");
    assert_eq!(exit_code(&error), UNAVAILABLE);
}
