//! The service's API as a test needs it: how far a submission is, asked over
//! the socket without starting a process.

use anyhow::{Context as _, Result};
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
    let body = json!({ "key": key, "seen": u64::MAX, "timeout_ms": 0 }).to_string();
    let mut stream = UnixStream::connect(socket).context("asking the service")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "POST /v1/wait HTTP/1.1\r\nhost: clutch\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the service's answer")?;
    parse(&answer)
}

fn parse(answer: &str) -> Result<Progress> {
    let (_, body) = answer.split_once("\r\n\r\n").context("the service's answer has no body")?;
    let body: Value = serde_json::from_str(body).context("the service's answer is no JSON")?;
    let count = |name: &str| body[name].as_u64().with_context(|| format!("no {name}: {body}"));
    Ok(Progress { total: count("total")?, done: count("done")?, succeeded: count("succeeded")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_progress_or_an_error_with_the_services_words() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        let good =
            parse(&format!("{head}{{\"total\":5,\"done\":4,\"succeeded\":3,\"states\":{{}}}}"));
        assert_eq!(good.unwrap(), Progress { total: 5, done: 4, succeeded: 3 });
        let bad =
            parse(&format!("{head}{{\"error\":{{\"message\":\"no such key\"}}}}")).unwrap_err();
        assert!(bad.to_string().contains("no such key"), "{bad}");
    }
}
