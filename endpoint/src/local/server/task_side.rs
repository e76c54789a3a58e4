//! Answers the requests of running tasks on their socket (`docs/messages.md`).
//!
//! Touches the connections of that socket, and the standard error of a process that logs a line
//! by it. Promises that each request has a token; that connections and what they bring are
//! bounded; and that what a receiver holds by its connection is given back when that closes.

use super::connections::{answer_all, read_rest};
use crate::execution::live::Live;
use crate::execution::live::progress;
use crate::local::Local;
use crate::local::task_log;
use crate::local::task_requests::{self, Query};
use crate::local::types::{Delivered, Problem, SendAnswer, StopView, WhoAmI};
use crate::messages::Messages;
use crate::messages::mailbox::Given;
use crate::messages::outgoing::SendEnd;
use crate::messages::requests::{Caller, HoldFor, Sending};
use crate::pending::stop::StopReason;
use clutch_common::id::TaskId;
use clutch_common::system::clock::now_ms;
use clutch_common::task::json::Json;
use clutch_common::wire::MAX_MESSAGE;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many large bodies are read at once.
const LARGE_BODIES: usize = 4;
/// The size from which on a body is large, in bytes.
const LARGE: u64 = 64 * 1024;
/// How long the reading of a body may take.
const READING: Duration = Duration::from_secs(60);
/// How much of a body that is too large is read, so that its sender sees the answer.
const SKIPPED: u64 = 64 * 1024 * 1024;
/// How long a task waits for the answer to a submission, where it does not say.
const SUBMISSION: Duration = Duration::from_secs(90);

/// The parts that answers are made from.
pub(crate) struct TaskServer {
    /// The daemon.
    pub(crate) local: Arc<Local>,
    /// Messages between tasks.
    pub(crate) messages: Arc<Messages>,
    /// The progress of tasks.
    pub(crate) live: Arc<Live>,
    /// How many connections are answered at once; further ones wait.
    pub(crate) connections: usize,
}

/// Answers requests until it is dropped.
pub(crate) async fn serve_tasks(listener: UnixListener, server: Arc<TaskServer>) {
    let bodies = Arc::new(Semaphore::new(LARGE_BODIES));
    let answer = |stream| {
        let (server, bodies) = (Arc::clone(&server), Arc::clone(&bodies));
        let held = Mutex::default();
        connection(stream, Arc::new(Connection { server, bodies, held }))
    };
    answer_all(listener, server.connections, answer).await;
}

/// A connection, with what its receivers hold by it.
struct Connection {
    server: Arc<TaskServer>,
    bodies: Arc<Semaphore>,
    held: Mutex<Vec<(TaskId, u64)>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (task, delivery) in held.drain(..) {
            self.server.messages.give_back(task, delivery);
        }
    }
}

type TaskAnswer = Response<Full<Bytes>>;

async fn connection(stream: UnixStream, connection: Arc<Connection>) {
    let service = service_fn(|request| {
        let connection = Arc::clone(&connection);
        async move {
            let answer = connection.answer(request).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|problem| problem_answer(&problem)))
        }
    });
    // A connection that is kept open and says nothing has no timer.
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a task's connection ended");
    }
}

impl Connection {
    /// Answers a request. Of a body that is not wanted so much is read that its sender sees the
    /// answer.
    async fn answer(&self, request: Request<Incoming>) -> Result<TaskAnswer, Problem> {
        let (head, mut body) = request.into_parts();
        let answer = self.answer_to(&head, &mut body).await;
        read_rest(&mut body, SKIPPED, READING).await;
        answer
    }

    async fn answer_to(&self, head: &Parts, body: &mut Incoming) -> Result<TaskAnswer, Problem> {
        let caller = self.caller(&head.headers)?;
        let query = Query::read(head.uri.query())?;
        let path: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
        let _open = if waits(&head.method, &path) { Some(caller.open()?) } else { None };
        match (&head.method, path.as_slice()) {
            (&Method::GET, ["v1", "whoami"]) => self.who_am_i(&caller),
            (&Method::POST, ["v1", "messages"]) => {
                let sending = task_requests::sending(query)?;
                let body = self.body(body, MAX_MESSAGE).await?;
                send(&caller, Sending { body: body[..].into(), ..sending }).await
            }
            (&Method::GET, ["v1", "messages"]) => self.receive(&caller, query).await,
            (&Method::POST, ["v1", "messages", delivery, what @ ("ack" | "nack")]) => {
                self.settle(&caller, delivery, *what == "ack")
            }
            (&Method::POST, ["v1", "progress"]) => {
                let line = self.body(body, progress::LINE_MAX).await?;
                let told = progress::last_line(&line, now_ms());
                let told = told.ok_or_else(|| Problem::bad_request("say how far it is".into()))?;
                self.server.live.tell_progress(caller.attempt, told);
                Ok(nothing())
            }
            (&Method::POST, ["v1", "log"]) => {
                let line = self.body(body, task_log::LINE_MAX).await?;
                let pid = self.server.local.process_of(caller.attempt).await;
                task_log::write(pid, &line).await.map_err(Problem::internal)?;
                Ok(nothing())
            }
            (&Method::GET, ["v1", "cancelled"]) => {
                let within = task_requests::waiting(query, "timeout")?;
                let reason = caller.stopped(within).await;
                reason.map_or_else(|| Ok(nothing()), |reason| json(&stop_view(reason)))
            }
            (&Method::POST, ["v1", "tasks"]) => {
                let (key, wait) = task_requests::submitting(query)?;
                let body = self.body(body, MAX_MESSAGE).await?;
                let tasks: Json = serde_json::from_slice(&body)
                    .map_err(|error| Problem::bad_request(format!("reading the body: {error}")))?;
                ended(caller.submit(key, tasks, wait.unwrap_or(SUBMISSION)).await?)
            }
            (&Method::GET, ["v1", "tasks", task]) => {
                let task = task.parse();
                let task = task.map_err(|_| Problem::not_found("that is no task's id".into()))?;
                let wait = task_requests::waiting(query, "wait")?.unwrap_or_default();
                ended(caller.outcome(task, wait).await?)
            }
            _ => Err(nothing_there(head)),
        }
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let token = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let Some(token) = token else {
            let words = "the header `Authorization: Bearer TOKEN` is missing; the token is in \
                         CLUTCH_TOKEN";
            return Err(Problem::bad_token(words.to_owned()));
        };
        let named = match text(HeaderName::from_static("clutch-task")) {
            Some(named) => Some(named.parse().map_err(|_| {
                Problem::bad_request("the header Clutch-Task is no task's id".to_owned())
            })?),
            None => None,
        };
        let unknown = || Problem::bad_token("the token is none of this endpoint".to_owned());
        let token = token.trim().parse().map_err(|()| unknown())?;
        Ok(self.server.messages.caller(token, named)?)
    }

    /// Reads a body of so many bytes at most.
    async fn body(&self, body: &mut Incoming, most: usize) -> Result<Bytes, Problem> {
        let expected = body.size_hint();
        let _large = if expected.upper().is_none_or(|upper| upper >= LARGE) {
            self.bodies.acquire().await.ok()
        } else {
            None
        };
        let read = async {
            let (mut bytes, mut seen) = (Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                let frame = frame
                    .map_err(|error| Problem::bad_request(format!("reading the body: {error}")))?;
                let Ok(data) = frame.into_data() else { continue };
                seen += data.len() as u64;
                if seen > SKIPPED || expected.lower() > SKIPPED {
                    break;
                }
                if bytes.len() + data.len() <= most {
                    bytes.extend_from_slice(&data);
                }
            }
            Ok::<_, Problem>((bytes, seen))
        };
        let Ok(read) = timeout(READING, read).await else {
            return Err(Problem::bad_request(format!("the body did not come within {READING:?}")));
        };
        let (bytes, seen) = read?;
        if seen > most as u64 {
            return Err(Problem::too_large(most));
        }
        Ok(bytes.into())
    }

    fn who_am_i(&self, caller: &Caller) -> Result<TaskAnswer, Problem> {
        let task = caller.task()?;
        let walltime = task.walltime_ms;
        json(&WhoAmI {
            task: task.id,
            attempt: task.attempt,
            endpoint: self.server.local.ledger.endpoint_id,
            endpoint_name: self.server.local.name.clone(),
            name: task.name.clone(),
            parent: task.parent,
            cores: task.cores,
            walltime_ends_ms: walltime.map(|walltime| caller.since_ms.saturating_add(walltime)),
        })
    }

    async fn receive(&self, caller: &Caller, query: Query) -> Result<TaskAnswer, Problem> {
        let receiving = task_requests::receiving(query)?;
        let task = caller.attempt.task_id;
        let given = caller.receive(&receiving.wanted, receiving.timeout, receiving.hold).await?;
        let Some(given) = given else { return Ok(nothing()) };
        if receiving.hold == HoldFor::Connection {
            self.held().push((task, given.delivery));
        }
        message(given)
    }

    fn settle(
        &self,
        caller: &Caller,
        delivery: &str,
        is_taken: bool,
    ) -> Result<TaskAnswer, Problem> {
        let words = || Problem::bad_request("a delivery is a number".to_owned());
        let delivery = delivery.parse().map_err(|_| words())?;
        self.held().retain(|(_, held)| *held != delivery);
        let had = if is_taken { caller.acknowledge(delivery) } else { caller.give_back(delivery) };
        if had { Ok(nothing()) } else { Err(Problem::not_held(delivery)) }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<(TaskId, u64)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(caller: &Caller, sending: Sending) -> Result<TaskAnswer, Problem> {
    let (message, end) = caller.send(sending).await?;
    if let SendEnd::Delivered(attempt) = end {
        let delivered = Some(Delivered { attempt });
        return json(&SendAnswer { message, delivered, kept: false });
    }
    if end == SendEnd::Kept {
        return json(&SendAnswer { message, delivered: None, kept: true });
    }
    ended(end)
}

/// The answer to a question to the service.
fn ended(end: SendEnd) -> Result<TaskAnswer, Problem> {
    match Problem::of(end) {
        Ok(problem) => Err(problem),
        Err(SendEnd::Submitted(tasks)) => json(&serde_json::json!({ "tasks": tasks })),
        Err(SendEnd::Ended(task)) => json(&task),
        Err(_) => Ok(nothing()),
    }
}

/// A message, with what is known of it in headers.
fn message(given: Given) -> Result<TaskAnswer, Problem> {
    let Given { delivery, letter } = given;
    let addressee = utf8_percent_encode(&letter.addressee, NON_ALPHANUMERIC).to_string();
    let mut response = Response::new(Full::new(Bytes::from_owner(letter.body)));
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, octets);
    for (name, value) in [
        ("clutch-source", letter.source.task_id.to_string()),
        ("clutch-source-attempt", letter.source.attempt.to_string()),
        ("clutch-addressee", addressee),
        ("clutch-message", letter.id.to_string()),
        ("clutch-delivery", delivery.to_string()),
    ] {
        let value = HeaderValue::from_str(&value);
        let value = value.map_err(|error| Problem::internal(error.to_string()))?;
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    Ok(response)
}

/// Whether a request may wait for something. So many of a run may be open.
fn waits(method: &Method, path: &[&str]) -> bool {
    match path {
        ["v1", "messages" | "cancelled" | "tasks"] => true,
        ["v1", "tasks", _] => method == Method::GET,
        _ => false,
    }
}

fn stop_view(reason: StopReason) -> StopView {
    let reason = match reason {
        StopReason::Cancelled => "cancelled",
        StopReason::Walltime => "walltime",
        StopReason::Shutdown => "shutdown",
        StopReason::Drained => "drained",
    };
    StopView { reason: reason.to_owned() }
}

fn nothing_there(head: &Parts) -> Problem {
    Problem::not_found(format!(
        "there is no {} {}; there are GET /v1/whoami, /v1/messages, /v1/cancelled and \
         /v1/tasks/ID, and POST /v1/messages, /v1/messages/DELIVERY/ack and …/nack, /v1/progress, \
         /v1/log and /v1/tasks",
        head.method,
        head.uri.path()
    ))
}

fn nothing() -> TaskAnswer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn json(body: &impl Serialize) -> Result<TaskAnswer, Problem> {
    let text = serde_json::to_string(body);
    let text = text.map_err(|error| Problem::internal(error.to_string()))?;
    Ok(text_answer(StatusCode::OK, "application/json", text))
}

fn problem_answer(problem: &Problem) -> TaskAnswer {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_string(problem).unwrap_or_default();
    text_answer(status, "application/problem+json", text)
}

fn text_answer(status: StatusCode, kind: &'static str, text: String) -> TaskAnswer {
    let mut response = Response::new(Full::new(Bytes::from(text + "\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
