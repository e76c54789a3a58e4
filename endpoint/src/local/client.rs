//! The commands' end of the daemon's own socket: one request on one connection.
//!
//! Touches that socket. Promises that where no daemon answers, the error says what to do.

pub(super) mod task;

use super::socket;
use super::types::Refusal;
use crate::exit::{Exit, Failure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the daemon of one state folder.
pub(super) struct Client {
    state: PathBuf,
}

impl Client {
    /// Creates a client of the daemon on a state folder.
    pub(super) fn of(state: PathBuf) -> Self {
        Self { state }
    }

    /// Asks for something.
    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Failure> {
        self.ask(Method::GET, target, String::new()).await
    }

    /// Asks for something to be done.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: String,
    ) -> Result<T, Failure> {
        self.ask(Method::POST, target, body).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<T, Failure> {
        let failed = |why: String| {
            let state = self.state.display();
            Failure::new(Exit::Unavailable, format!("asking the daemon on {state}: {why}"))
        };
        let Ok(answered) = timeout(PATIENCE, self.exchange(method, target, body)).await else {
            return Err(failed(format!(
                "it takes the connection and does not answer for {PATIENCE:?}: it is stopped (see \
                 `fg`, or send it CONT), or its host is overloaded"
            )));
        };
        let (status, answer) = answered?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&answer).map_err(|error| {
                failed(format!("its answer cannot be read: {error}; is it of another version?"))
            });
        }
        let words = serde_json::from_slice::<Refusal>(&answer);
        Err(failed(words.map_or_else(|_| format!("it answers {status}"), |it| it.error.message)))
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let stream = socket::connect(&self.state)
            .await
            .map_err(|error| Failure::new(Exit::Unavailable, unreachable(&self.state, &error)))?;
        let lost = |error: &dyn std::fmt::Display| {
            let words = format!("the daemon went away while it was asked: {error}; ask again");
            Failure::new(Exit::Unavailable, words)
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        let answer = async {
            let request = Request::builder()
                .method(method)
                .uri(target)
                .header("host", "clutch-endpoint")
                .body(Full::new(Bytes::from(body)))
                .map_err(|error| lost(&error))?;
            let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| lost(&error))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }
}

/// Explains why no daemon is reached, and what to do.
fn unreachable(state: &Path, error: &Error) -> String {
    let shown = state.display();
    let none = |what: &str| {
        format!(
            "no daemon runs on the state folder {shown}: {what}. Start one with `clutch-endpoint \
             run`, or name the files of the one that runs with --config or --state"
        )
    };
    let kind = error.kind();
    if kind == ErrorKind::NotFound && !state.exists() {
        none("there is no such folder")
    } else if kind == ErrorKind::NotFound {
        none("it has no socket endpoint.sock")
    } else if kind == ErrorKind::ConnectionRefused {
        none("the one that ran there has ended")
    } else if kind == ErrorKind::PermissionDenied {
        let owner = std::fs::metadata(state).map(|found| found.uid());
        let owner = owner.map_or_else(
            |_| "another user".to_owned(),
            |uid| format!("the user with the id {uid} (`id -nu {uid}` names it)"),
        );
        format!(
            "the state folder {shown} is of {owner}, and so is its daemon: ask as that user, \
                 with `sudo -u`"
        )
    } else {
        format!("connecting to the daemon on the state folder {shown}: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_why_no_daemon_answers_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let words = |path: &Path, kind: ErrorKind| unreachable(path, &Error::from(kind));
        let gone = words(&folder.path().join("gone"), ErrorKind::NotFound);
        assert!(gone.contains("no such folder") && gone.contains("--state"), "{gone}");
        let quiet = words(folder.path(), ErrorKind::NotFound);
        assert!(quiet.contains("no socket") && quiet.contains("clutch-endpoint run"), "{quiet}");
        let killed = words(folder.path(), ErrorKind::ConnectionRefused);
        assert!(killed.contains("has ended"), "{killed}");
        let theirs = words(folder.path(), ErrorKind::PermissionDenied);
        assert!(theirs.contains("sudo -u") && theirs.contains("id -nu"), "{theirs}");
    }

    #[tokio::test]
    async fn a_folder_without_a_daemon_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::of(folder.path().to_owned());
        let failure = client.get::<super::super::types::Status>("/v1/status").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.message.contains("no daemon runs"), "{failure}");
    }
}
