//! The commands' end of the API: HTTP over the Unix socket, one connection per
//! request.

use super::reconnect::{NO_SERVICE, ReconnectPolicy, SILENT, WENT_AWAY};
use crate::api::types::Problem;
use crate::failure::{Failure, GENERAL, UNAVAILABLE, USAGE};
use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;

/// How long the service may say nothing at all before it is asked whether it lives,
/// and how long it may take to say so.
const SILENCE: Duration = Duration::from_secs(5);

/// A way to ask the service.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    state: PathBuf,
    silence: Duration,
    reconnect: Option<Arc<ReconnectPolicy>>,
}

impl Client {
    /// A client of the service on that state folder.
    #[must_use]
    pub(crate) fn new(state: &crate::state_folder::StateFolder) -> Self {
        Self {
            socket: state.socket(),
            state: state.path().to_path_buf(),
            silence: SILENCE,
            reconnect: None,
        }
    }

    /// The same client, which waits for a service that was there and is away: it was stopped, and
    /// is started again. It asks once more what was not answered, so it is for requests that
    /// may be repeated.
    #[must_use]
    pub(crate) fn reconnecting(self, give_up_after: Option<Duration>) -> Self {
        Self { reconnect: Some(Arc::new(ReconnectPolicy::new(give_up_after))), ..self }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// With the service's own words, or when no service answers.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> anyhow::Result<T> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters);
        let target = format!("{path}?{}", query.finish());
        self.ask(Method::GET, &target, Bytes::new()).await
    }

    /// Sends something and takes the answer.
    ///
    /// # Errors
    /// With the service's own words, or when no service answers.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> anyhow::Result<T> {
        let ask = || self.ask_once(method.clone(), target, body.clone());
        match &self.reconnect {
            Some(reconnect) => reconnect.ask(ask).await,
            None => ask().await,
        }
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> anyhow::Result<T> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "clutch")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let (status, answer) = tokio::select! {
            biased;
            answer = self.exchange(request) => answer?,
            stopped = self.stopped() => return Err(stopped.into()),
        };
        if status == StatusCode::OK {
            return serde_json::from_slice(&answer).context("the service's answer cannot be read");
        }
        Err(refused(status, &answer).into())
    }

    /// Resolves when the service does not answer at all: an answer may take long, that
    /// it lives may not.
    async fn stopped(&self) -> Failure {
        loop {
            tokio::time::sleep(self.silence).await;
            let health = Request::get("/v1/health").header("host", "clutch").body(Full::default());
            let Ok(health) = health else { continue };
            if tokio::time::timeout(self.silence, self.exchange(health)).await.is_err() {
                let words = format!(
                    "the service at {} takes connections and does not answer: it is stopped, or \
                     its host is overloaded; look at its process and its log",
                    self.socket.display()
                );
                return Failure::new(UNAVAILABLE, words).of_kind(SILENT).in_doubt();
            }
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let lost = |error: hyper::Error| {
            let words = format!("the service went away while it was asked: {error}");
            Failure::new(UNAVAILABLE, words).of_kind(WENT_AWAY).in_doubt()
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(lost)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
            Ok((status, body))
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        let no_service =
            [ErrorKind::NotFound, ErrorKind::ConnectionRefused].contains(&error.kind());
        if !no_service {
            return Failure::new(UNAVAILABLE, format!("cannot connect to {socket}: {error}"));
        }
        let state = self.state.display();
        Failure::new(UNAVAILABLE, format!("no service is listening at {socket}"))
            .of_kind(NO_SERVICE)
            .with_help(format!("start one with `clutch-service serve --state {state}`"))
    }
}

/// The service's own words, and the exit code that goes with their kind.
fn refused(status: StatusCode, answer: &[u8]) -> Failure {
    let (kind, message) = serde_json::from_slice::<Problem>(answer).map_or_else(
        |_| (None, format!("the service answered {status}")),
        |Problem { code, detail, .. }| (Some(code), detail),
    );
    let code = match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => USAGE,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
        _ => GENERAL,
    };
    let failure = Failure::new(code, message);
    let failure = match kind {
        Some(kind) => failure.of_kind(kind),
        None => failure,
    };
    if status.is_server_error() { failure.in_doubt() } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit_code;

    #[tokio::test]
    async fn a_service_that_is_stopped_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut client = Client::new(&crate::state_folder::StateFolder::new(folder.path()));
        client.silence = Duration::from_millis(50);
        let _stopped = tokio::net::UnixListener::bind(&client.socket).unwrap();
        let asked = client.get::<serde_json::Value>("/v1/tasks", &[]);
        let error = tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap();
        let error = error.unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
        assert_eq!(exit_code(&error), UNAVAILABLE);
    }
}
