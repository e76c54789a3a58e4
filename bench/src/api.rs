//! HTTP over a Unix socket, by one connection that stays open: the service's API, and the socket
//! that an endpoint gives its tasks. A connection to the API is made anew where the service has
//! closed it, as it does with one that is not used.

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// How many tasks a request may have (design/0006).
const REQUEST: usize = 1000;

/// A connection.
pub(crate) struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

impl HttpConnection {
    /// Connects to a socket.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.with_context(|| format!("connecting to {}", socket.display()))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        // The next request fails with its end.
        tasks.spawn(async move { drop(connection.await) });
        Ok(Self { sender, _connection: tasks })
    }

    /// Sends a request with a body, and returns the answer, which has to be a good one.
    pub(crate) async fn ask(
        &mut self,
        [method, path]: [&str; 2],
        (header, value): (&str, &str),
        body: Bytes,
    ) -> Result<Response<Bytes>> {
        let request = Request::builder().method(method).uri(path).header("host", "clutch");
        let request = request.header(header, value).body(Full::new(body))?;
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let status = head.status;
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(Response::from_parts(head, body))
    }
}

/// A connection to the service's API.
pub(crate) struct Api {
    socket: PathBuf,
    connection: HttpConnection,
}

impl Api {
    /// Connects to a service's socket.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let connection = HttpConnection::connect(socket).await?;
        Ok(Self { socket: socket.to_owned(), connection })
    }

    /// Has an endpoint echo a value under a key, and says how long that took until
    /// it was recorded.
    pub(crate) async fn echo(
        &mut self,
        endpoint: &str,
        key: &str,
        value: &Value,
    ) -> Result<Duration> {
        let request = json!({
            "endpoint": endpoint, "key": key, "total": 1, "first": 0, "wait_ms": 60_000,
            "tasks": [{"call": {"function": "clutch.echo", "args": [value]}}],
        });
        let started = Instant::now();
        let answer = self.ask("POST", "/v1/tasks", request.to_string()).await?;
        let took = started.elapsed();
        ensure!(answer["progress"]["succeeded"] == 1, "{key}: {answer}");
        Ok(took)
    }

    /// Has an endpoint run a program so many times, without an argument of its own
    /// for any, and waits until all are recorded.
    pub(crate) async fn run(
        &mut self,
        endpoint: &str,
        key: &str,
        program: &str,
        count: usize,
    ) -> Result<()> {
        let mut first = 0;
        while first < count {
            let next = count.min(first + REQUEST);
            let tasks = vec![json!({"argv": [program]}); next - first];
            let request = json!({
                "endpoint": endpoint, "key": key, "total": count, "first": first, "tasks": tasks,
            });
            self.ask("POST", "/v1/tasks", request.to_string()).await?;
            first = next;
        }
        let wait = json!({ "key": key, "timeout_ms": 600_000 });
        let waited = self.ask("POST", "/v1/wait", wait.to_string()).await?;
        ensure!(waited["succeeded"] == count, "{key}: {waited}");
        Ok(())
    }

    /// Asks, and returns the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        self.ask("GET", path, String::new()).await
    }

    /// Sends a request with a body, and returns the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        self.ask("POST", path, body.to_string()).await
    }

    async fn ask(&mut self, method: &str, path: &str, body: String) -> Result<Value> {
        if self.connection.sender.is_closed() {
            self.connection = HttpConnection::connect(&self.socket).await?;
        }
        let json = ("content-type", "application/json");
        let answer = self.connection.ask([method, path], json, body.into()).await?;
        Ok(serde_json::from_slice(answer.body())?)
    }
}
