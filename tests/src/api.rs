//! The service's API as a test needs it, asked over the socket without starting a process.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How far a submission is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// How many tasks it has.
    pub total: u64,
    /// How many have an outcome.
    pub done: u64,
    /// How many of these succeeded.
    pub succeeded: u64,
}

/// Asks the service at a socket how far the submission under a key is.
pub fn progress(socket: &Path, key: &str) -> Result<Progress> {
    let body = json!({ "key": key, "seen": u64::MAX, "timeout_ms": 0 });
    let answer = post(socket, "/v1/wait", &body)?;
    let count = |name: &str| answer[name].as_u64().with_context(|| format!("no {name}: {answer}"));
    Ok(Progress { total: count("total")?, done: count("done")?, succeeded: count("succeeded")? })
}

/// The answer of the service at a socket to a request for a path.
pub fn get(socket: &Path, path: &str) -> Result<Value> {
    ask(socket, "GET", path, "")
}

/// The answer of the service at a socket to a request with a body.
pub fn post(socket: &Path, path: &str, body: &Value) -> Result<Value> {
    ask(socket, "POST", path, &body.to_string())
}

fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).context("asking the service")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: clutch\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the service's answer")?;
    parse(&answer)
}

fn parse(answer: &str) -> Result<Value> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the service's answer has no body")?;
    let good = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
    ensure!(good, "the service refused: {body}");
    serde_json::from_str(body).context("the service's answer is no JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_json_or_an_error_with_the_services_words() {
        let head = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\n\r\n");
        let good = parse(&format!("{}{{\"total\":5}}", head("200 OK")));
        assert_eq!(good.unwrap(), json!({ "total": 5 }));
        let refused = "{\"error\":{\"message\":\"no such key\"}}";
        let bad = parse(&format!("{}{refused}", head("404 Not Found"))).unwrap_err();
        assert!(bad.to_string().contains("no such key"), "{bad}");
    }
}
