//! Answers HTTP on the daemon's own socket.
//!
//! Touches the connections of that socket. Promises that they are bounded in number, time
//! and size, and that one that is open costs an idle daemon nothing until it speaks.

mod connections;
mod task_side;

use super::types::{DrainRequest, ErrorWords, Refusal};
use super::{Local, socket};
use connections::{answer_all, read_rest};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

pub(crate) use task_side::{TaskServer, serve_tasks};

/// How many connections are answered at once; further ones wait.
const CONNECTIONS: usize = 16;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be open.
const LIFETIME: Duration = Duration::from_secs(60);
/// The largest body of a request, in bytes.
const BODY: usize = 64 * 1024;
/// How much of a body that is not wanted is read, so that its sender sees the answer.
const SKIPPED: u64 = 1024 * 1024;
/// How many tasks an answer lists, unless the request says otherwise.
const LISTED: usize = 1000;

/// An answer: a status and a JSON body.
type HttpAnswer = (StatusCode, String);

/// Answers requests until it is dropped.
pub(crate) async fn serve(local: Arc<Local>) {
    let listener = match socket::bind(&local.state) {
        Ok(listener) => listener,
        Err(error) => return warn(&local.state, &error),
    };
    let answer = |stream| {
        let local = Arc::clone(&local);
        async move { drop(timeout(LIFETIME, connection(stream, local)).await) }
    };
    answer_all(listener, CONNECTIONS, answer).await;
}

fn warn(state: &Path, error: &std::io::Error) {
    tracing::warn!(
        %error,
        state = %state.display(),
        "the local socket cannot be made: `clutch-endpoint status`, `tasks`, `drain` and `resume` \
         do not reach this daemon; all else works. See what is at endpoint.sock in the state folder"
    );
}

async fn connection(stream: UnixStream, local: Arc<Local>) {
    let service = service_fn(|request: Request<Incoming>| {
        let local = Arc::clone(&local);
        async move {
            let (head, mut body) = request.into_parts();
            let (status, answer) = answer(&local, &head, &mut body).await;
            read_rest(&mut body, SKIPPED, HEAD).await;
            let mut response = Response::new(Full::new(Bytes::from(answer + "\n")));
            *response.status_mut() = status;
            let json = hyper::header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the local socket ended");
    }
}

async fn answer(local: &Local, head: &Parts, body: &mut Incoming) -> HttpAnswer {
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/v1/status") => json(&local.status()),
        (&Method::GET, "/v1/tasks") => match limit(head.uri.query()) {
            Ok(limit) => json(&local.tasks(limit).await),
            Err(why) => refused(StatusCode::BAD_REQUEST, why),
        },
        (&Method::POST, "/v1/drain") => {
            let bytes = match Limited::new(body, BODY).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => return refused(StatusCode::BAD_REQUEST, error.to_string()),
            };
            let asked = if bytes.is_empty() {
                Ok(DrainRequest::default())
            } else {
                serde_json::from_slice(&bytes)
            };
            match asked {
                Ok(asked) => done(local, local.drain(asked).await),
                Err(error) => refused(
                    StatusCode::BAD_REQUEST,
                    format!("reading the body: {error}; it is {{\"within_ms\": 600000}}, or empty"),
                ),
            }
        }
        (&Method::POST, "/v1/resume") => done(local, local.resume().await),
        (_, "/v1/status" | "/v1/tasks" | "/v1/drain" | "/v1/resume") => refused(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{} does not take {}", head.uri.path(), head.method),
        ),
        (_, path) => refused(
            StatusCode::NOT_FOUND,
            format!(
                "there is nothing at {path}; there are GET /v1/status and /v1/tasks, and POST \
                 /v1/drain and /v1/resume"
            ),
        ),
    }
}

/// Answers with the status, once a request has been done.
fn done(local: &Local, done: std::io::Result<()>) -> HttpAnswer {
    match done {
        Ok(()) => json(&local.status()),
        Err(error) => refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "writing into the state folder {}: {error}; nothing is changed. Make room there, \
                 or see to its permissions",
                local.state.display()
            ),
        ),
    }
}

fn limit(query: Option<&str>) -> Result<usize, String> {
    match query.and_then(|query| query.strip_prefix("limit=")) {
        Some(limit) => limit.parse().map_err(|_| format!("limit={limit} is no number")),
        None if query.is_some_and(|query| !query.is_empty()) => {
            Err("the one parameter is limit=N".to_owned())
        }
        None => Ok(LISTED),
    }
}

fn json(body: &impl Serialize) -> HttpAnswer {
    match serde_json::to_string(body) {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn refused(status: StatusCode, message: String) -> HttpAnswer {
    let refusal = Refusal { error: ErrorWords { message } };
    (status, serde_json::to_string(&refusal).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_left_out() {
        assert_eq!(limit(None), Ok(LISTED));
        assert_eq!(limit(Some("")), Ok(LISTED));
        assert_eq!(limit(Some("limit=7")), Ok(7));
        assert!(limit(Some("limit=x")).unwrap_err().contains("limit=x"));
        assert!(limit(Some("page=2")).unwrap_err().contains("limit=N"));
    }
}
