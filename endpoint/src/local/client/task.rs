//! A task's end of the socket of tasks: several requests on one connection.
//!
//! Touches that socket, and the variables that name it. Promises that outside of a task, or
//! where no daemon answers, the error says what to do.

use crate::execution::os::run_tag::TASK_ID;
use crate::execution::task_side::{SOCKET, TOKEN};
use crate::exit::{Exit, Failure};
use crate::local::types::Problem;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::ffi::OsString;
use std::fmt::Display;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// An answer, or that there is none in time.
pub(in crate::local) struct Answered {
    head: hyper::http::response::Parts,
    /// The body.
    pub(in crate::local) body: Bytes,
}

impl Answered {
    /// Whether the request ended without what it waited for.
    pub(in crate::local) fn is_empty(&self) -> bool {
        self.head.status == StatusCode::NO_CONTENT
    }

    /// A header; empty if there is none.
    pub(in crate::local) fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A connection to the endpoint in the name of the task that this process is of.
pub(in crate::local) struct TaskClient {
    sender: SendRequest<Full<Bytes>>,
    token: String,
    task: Option<String>,
    _connection: JoinSet<()>,
}

impl TaskClient {
    /// Connects by what the environment says.
    pub(in crate::local) async fn connect() -> Result<Self, Failure> {
        let failed = |why: String| Failure::new(Exit::Unavailable, why);
        let (Some(socket), Some(token)) = (variable(SOCKET), variable(TOKEN)) else {
            return Err(failed(format!(
                "{SOCKET} and {TOKEN} are not set: `clutch-endpoint task` works in a task that an \
                 endpoint runs, and in what that starts with its environment"
            )));
        };
        let shown = socket.display().to_string();
        let lost = |error: &dyn Display| {
            failed(format!(
                "connecting to the endpoint at {shown}: {error}; it has ended, or the task has \
                 outlived it"
            ))
        };
        let stream = UnixStream::connect(socket).await.map_err(|error| lost(&error))?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| lost(&error))?;
        let mut driving = JoinSet::new();
        driving.spawn(async move { drop(connection.await) });
        let token = token.to_string_lossy().into_owned();
        let task = variable(TASK_ID).map(|task| task.to_string_lossy().into_owned());
        Ok(Self { sender, token, task, _connection: driving })
    }

    /// Sends a request, and returns its answer.
    pub(in crate::local) async fn ask(
        &mut self,
        method: &str,
        target: &str,
        body: Vec<u8>,
    ) -> Result<Answered, Failure> {
        let lost = |error: &dyn Display| {
            let words = format!("the endpoint went away while it was asked: {error}");
            Failure::new(Exit::Unavailable, words)
        };
        let method = if method == "POST" { Method::POST } else { Method::GET };
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "clutch-endpoint")
            .header(AUTHORIZATION, format!("Bearer {}", self.token));
        if let Some(task) = &self.task {
            request = request.header("clutch-task", task);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| lost(&error))?;
        self.sender.ready().await.map_err(|error| lost(&error))?;
        let response: Response<Incoming> =
            self.sender.send_request(request).await.map_err(|error| lost(&error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| lost(&error))?.to_bytes();
        if head.status.is_success() {
            return Ok(Answered { head, body });
        }
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => {
                Failure::new(exit(&problem.kind), format!("{}: {}", problem.kind, problem.detail))
            }
            Err(_) => lost(&head.status),
        })
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The exit code that goes with a kind of problem.
fn exit(kind: &str) -> Exit {
    match kind {
        "unknown" | "finished" | "cancelled" | "superseded" => Exit::Gone,
        "not_listening" | "timed_out" | "no_room" | "too_many" | "unreachable" | "not_held" => {
            Exit::Retry
        }
        "forbidden" | "bad_token" => Exit::Refused,
        "internal" => Exit::Internal,
        _ => Exit::Data,
    }
}
