//! RabbitMQ's management API over HTTP.

use super::Address;
use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::time::Duration;
use ureq::http::Request;

/// A client of one broker's management API.
#[derive(Clone, Debug)]
pub struct Management {
    base: String,
    authorization: String,
    user: String,
    agent: ureq::Agent,
}

impl Management {
    /// A client; nothing is sent yet.
    pub fn new(address: &Address) -> Result<Self> {
        let url = url::Url::parse(&address.management).context("the management address")?;
        let host = url.host_str().context("the management address has no host")?;
        let port = url.port_or_known_default().unwrap_or(15672);
        let user = url.username().to_owned();
        let password = url.password().unwrap_or_default();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Ok(Self {
            base: format!("{}://{host}:{port}/api", url.scheme()),
            authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            user,
            agent,
        })
    }

    /// The user it acts as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `Some` once the broker answers.
    #[must_use]
    pub fn ready(&self) -> Option<()> {
        self.call("GET", &["overview"], None).ok().map(drop)
    }

    /// One call. The answer is `Null` where the broker sends none.
    ///
    /// # Errors
    /// When the broker cannot be reached or answers with an error; its words
    /// are in the message.
    pub fn call(&self, method: &str, path: &[&str], body: Option<&Value>) -> Result<Value> {
        let (status, text) = self.send(method, path, body)?;
        if !(200..300).contains(&status) {
            bail!("{method} /api/{}: {status} {text}", path.join("/"));
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    fn send(&self, method: &str, path: &[&str], body: Option<&Value>) -> Result<(u16, String)> {
        let path: Vec<String> = path.iter().map(|segment| encode(segment)).collect();
        let url = format!("{}/{}", self.base, path.join("/"));
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(body)?;
        let mut response =
            self.agent.run(request).with_context(|| format!("calling {method} {url}"))?;
        let text = response
            .body_mut()
            .with_config()
            .limit(256 * 1024 * 1024)
            .read_to_string()
            .with_context(|| format!("reading the answer to {method} {url}"))?;
        Ok((response.status().as_u16(), text))
    }
}

/// Percent-encodes one segment of a path.
fn encode(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_name_fits_into_one_segment() {
        assert_eq!(encode("127.0.0.1:5 -> a/b"), "127.0.0.1%3A5%20-%3E%20a%2Fb");
    }
}
