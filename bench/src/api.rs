//! The service's API over one connection that stays open.

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::Path;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// A connection.
pub(crate) struct Api {
    sender: SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

impl Api {
    /// Connects to a service's socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.with_context(|| format!("connecting to {}", socket.display()))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        // Its end is told to whoever sends the next request.
        tasks.spawn(async move { drop(connection.await) });
        Ok(Self { sender, _connection: tasks })
    }

    /// Asks, and returns the answer.
    ///
    /// # Errors
    /// With the service's words, when it does not do what it is asked.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        self.ask("POST", path, body.to_string()).await
    }

    /// Asks, and returns the answer.
    ///
    /// # Errors
    /// As [`Api::post`].
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        self.ask("GET", path, String::new()).await
    }

    async fn ask(&mut self, method: &str, path: &str, body: String) -> Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "clutch")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&bytes));
        Ok(serde_json::from_slice(&bytes)?)
    }
}
