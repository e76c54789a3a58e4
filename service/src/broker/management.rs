//! The broker's management API, over HTTP: closes a connection, and tells what policies
//! do to the queues. Everything it knows it asks for when it is needed; nothing depends on
//! its being there.
//!
//! The broker lists a connection only a few seconds after it was opened (its
//! `collect_statistics_interval`, 5 s by default).

mod hazards;

use crate::failover::ConnectionCloser;
use crate::failure::usage;
use crate::model::QueueHazard;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hazards::ListedQueue;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// Where the API is unless told otherwise.
const PORT: u16 = 15672;
/// The reason that the broker logs for a closed connection.
const REASON: &str = "it holds the lease of an endpoint and does not answer";

/// The management API of one broker.
#[derive(Clone)]
pub(crate) struct Management {
    host: String,
    port: u16,
    authorization: String,
    /// The vhost, as a segment of a path.
    vhost: String,
    /// Why it cannot be asked, where that is known beforehand.
    unusable: Option<&'static str>,
}

/// How many queues are listed at once, and how many times at most.
const PAGE: usize = 500;
/// See [`PAGE`].
const PAGES: usize = 100;

/// Queues, of which there may be more.
#[derive(Deserialize)]
struct QueuePage {
    items: Vec<ListedQueue>,
    page_count: usize,
}

/// A queue, as far as its lease matters.
#[derive(Deserialize)]
struct LeaseQueue {
    /// Empty, an empty list, or the connection that this exclusive queue belongs to.
    #[serde(default)]
    owner_pid_details: serde_json::Value,
}

/// A connection, as far as it matters.
#[derive(Deserialize)]
struct ListedConnection {
    #[serde(default)]
    client_properties: serde_json::Value,
}

impl Management {
    /// The API of a broker: at the address given, or where it is by default; nothing
    /// where there is none to be had.
    pub(crate) fn of(broker: &str, given: Option<&str>) -> anyhow::Result<Option<Self>> {
        given.map_or_else(|| Ok(Self::beside(broker)), |url| Self::at(url, broker).map(Some))
    }

    /// Lists the policies and arguments that take messages from the queues of Clutch.
    ///
    /// # Errors
    /// Why they cannot be listed, in words for people.
    pub(crate) async fn hazards(&self) -> Result<Vec<QueueHazard>, String> {
        const COLUMNS: &str = "name,arguments,policy,operator_policy,effective_policy_definition";
        let mut found = Vec::new();
        for number in 1..=PAGES {
            let vhost = &self.vhost;
            let path = format!("queues/{vhost}?page={number}&page_size={PAGE}&columns={COLUMNS}");
            let page: Option<QueuePage> = self.get(&path).await?;
            let Some(page) = page else { return Err("there is no such vhost".to_owned()) };
            found.extend(page.items.iter().flat_map(hazards::hazards));
            if number >= page.page_count {
                break;
            }
        }
        Ok(found)
    }

    /// The API at `url`; user and password, where it has none, and the vhost are
    /// the broker's.
    pub(crate) fn at(url: &str, broker: &str) -> anyhow::Result<Self> {
        let bad = |reason: &str| {
            usage(format!("--management: {reason}; expected http://user:password@host:{PORT}"))
        };
        let url = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        let broker = Url::parse(broker).map_err(|error| bad(&error.to_string()))?;
        match url.scheme() {
            "http" => (),
            "https" => return Err(bad("the API is spoken to without TLS only")),
            other => return Err(bad(&format!("the scheme is '{other}'"))),
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(bad("it names no host"));
        };
        let user = if url.username().is_empty() { &broker } else { &url };
        Ok(Self {
            host: host.to_owned(),
            // The URL parser leaves out what is HTTP's own.
            port: url.port_or_known_default().unwrap_or(PORT),
            authorization: authorization(user),
            vhost: vhost(&broker),
            unusable: None,
        })
    }

    /// The API where it is by default, for a broker that may have one.
    #[must_use]
    pub(crate) fn beside(broker: &str) -> Option<Self> {
        let broker = Url::parse(broker).ok()?;
        let unusable = match broker.scheme() {
            "amqp" => None,
            "amqps" => Some(
                "it is not looked for at a broker that is reached over TLS, since it would be \
                 spoken to without",
            ),
            _ => return None,
        };
        Some(Self {
            host: broker.host_str()?.to_owned(),
            port: PORT,
            authorization: authorization(&broker),
            vhost: vhost(&broker),
            unusable,
        })
    }

    async fn holder(&self, lease: &str) -> Result<Option<String>, String> {
        let queue = format!("queues/{}/{}?columns=owner_pid_details", self.vhost, segment(lease));
        let Some(queue) = self.get::<LeaseQueue>(&queue).await? else { return Ok(None) };
        Ok(queue.owner_pid_details["name"].as_str().map(str::to_owned))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, String> {
        match self.ask(Method::GET, path).await? {
            (StatusCode::OK, body) => serde_json::from_slice(&body)
                .map(Some)
                .map_err(|error| format!("its answer cannot be read: {error}")),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, _) => Err(self.refused(status)),
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), String> {
        if let Some(why) = self.unusable {
            return Err(why.to_owned());
        }
        let unreachable = |why: String| format!("{}:{}: {why}", self.host, self.port);
        match timeout(PATIENCE, self.exchange(method, path)).await {
            Ok(answer) => answer.map_err(|error| unreachable(format!("{error:#}"))),
            Err(_) => Err(unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn exchange(&self, method: Method, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/{path}"))
            .header("host", format!("{}:{}", self.host, self.port))
            .header("authorization", &self.authorization)
            .header("x-reason", REASON)
            .body(Empty::<Bytes>::new())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }

    fn refused(&self, status: StatusCode) -> String {
        let why = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "it refuses the user, who needs the tag 'management' at the broker, and \
                 'administrator' where endpoints have users of their own"
            }
            _ => "it does not do what it is asked",
        };
        format!("{}:{}: {why} ({status})", self.host, self.port)
    }
}

#[async_trait]
impl ConnectionCloser for Management {
    async fn close_holder(&self, lease: &str, connection: &str) -> Result<bool, String> {
        let Some(holder) = self.holder(lease).await? else { return Ok(false) };
        let path = format!("connections/{}", segment(&holder));
        let Some(found) = self.get::<ListedConnection>(&path).await? else { return Ok(false) };
        // Another instance may have taken the lease by now.
        if found.client_properties["connection_name"] != connection {
            return Ok(false);
        }
        match self.ask(Method::DELETE, &path).await? {
            (StatusCode::NO_CONTENT | StatusCode::NOT_FOUND, _) => Ok(true),
            (status, _) => Err(self.refused(status)),
        }
    }
}

/// Basic authentication with the user and password of a URL.
fn authorization(url: &Url) -> String {
    let user = if url.username().is_empty() { "guest" } else { url.username() };
    let password = url.password().unwrap_or("guest");
    let plain = [percent_decode_str(user), percent_decode_str(":"), percent_decode_str(password)];
    let plain: Vec<u8> = plain.into_iter().flatten().collect();
    format!("Basic {}", STANDARD.encode(plain))
}

/// The vhost of an AMQP URL, as a segment of a path.
fn vhost(broker: &Url) -> String {
    let path = broker.path();
    match path.strip_prefix('/').unwrap_or(path) {
        "" => segment("/"),
        vhost => {
            let bytes: Vec<u8> = percent_decode_str(vhost).collect();
            percent_encode(&bytes, NON_ALPHANUMERIC).to_string()
        }
    }
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    const LEASE: &str = "e.lease";
    const NAME: &str = "clutch/e/i";
    const QUEUE: &str = r#"{"owner_pid_details":{"name":"127.0.0.1:5 -> 127.0.0.1:6"}}"#;
    const CONNECTION: &str = r#"{"client_properties":{"connection_name":"clutch/e/i"}}"#;

    #[test]
    fn the_api_is_beside_the_broker_with_its_user_and_vhost() {
        for (broker, host, vhost, user) in [
            ("amqp://h", "h", "%2F", "guest:guest"),
            ("amqp://u:p@h:99/", "h", "%2F", "u:p"),
            ("amqp://u:p%40@[::1]/a%2Fb", "[::1]", "a%2Fb", "u:p@"),
        ] {
            let api = Management::beside(broker).unwrap();
            assert_eq!((api.host.as_str(), api.port, api.vhost.as_str()), (host, PORT, vhost));
            assert_eq!(api.authorization, format!("Basic {}", STANDARD.encode(user)));
        }
        assert!(Management::beside("file:///spool").is_none());
        assert!(Management::beside("amqps://h").unwrap().unusable.is_some());
    }

    #[test]
    fn an_address_that_cannot_be_used_is_wrong_usage() {
        let at = |url: &str| Management::at(url, "amqp://u:p@h/v");
        let api = at("http://other:99").unwrap();
        assert_eq!((api.host.as_str(), api.port, api.vhost.as_str()), ("other", 99, "v"));
        assert_eq!(api.authorization, format!("Basic {}", STANDARD.encode("u:p")));
        let api = at("http://a:b@other").unwrap();
        assert_eq!(
            (api.port, api.authorization),
            (80, format!("Basic {}", STANDARD.encode("a:b")))
        );
        for bad in ["https://h", "amqp://h", "h:15672", "http://", "nonsense"] {
            let error = at(bad).err().unwrap();
            assert_eq!(crate::failure::exit_code(&error), crate::failure::USAGE, "{bad}");
        }
    }

    /// An API that gives these answers, one a connection, and keeps the requests.
    async fn api(answers: Vec<(u16, &'static str)>) -> (Management, JoinSet<Vec<String>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut requests = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let text = String::from_utf8(request).unwrap();
                requests.push(text.lines().next().unwrap().to_owned());
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        (Management::at(&format!("http://127.0.0.1:{port}"), "amqp://h").unwrap(), serving)
    }

    #[tokio::test]
    async fn the_holder_of_the_lease_is_closed_if_it_is_the_one_that_is_meant() {
        let (management, mut serving) = api(vec![(200, QUEUE), (200, CONNECTION), (204, "")]).await;
        assert_eq!(management.close_holder(LEASE, NAME).await, Ok(true));
        let path = "/api/connections/127%2E0%2E0%2E1%3A5%20%2D%3E%20127%2E0%2E0%2E1%3A6";
        let requests = serving.join_next().await.unwrap().unwrap();
        assert_eq!(requests[0], "GET /api/queues/%2F/e%2Elease?columns=owner_pid_details HTTP/1.1");
        assert_eq!(
            requests[1..],
            [format!("GET {path} HTTP/1.1"), format!("DELETE {path} HTTP/1.1")]
        );
    }

    #[tokio::test]
    async fn no_other_connection_is_closed() {
        for answers in [
            vec![(200, QUEUE), (200, r#"{"client_properties":{"connection_name":"clutch/e/j"}}"#)],
            vec![(200, QUEUE), (404, "{}")],
            vec![(200, r#"{"owner_pid_details":[]}"#)],
            vec![(200, "[]")],
            vec![(404, "{}")],
        ] {
            let last = answers.len();
            let (management, mut serving) = api(answers).await;
            let closed = management.close_holder(LEASE, NAME).await;
            assert!(matches!(closed, Ok(false) | Err(_)), "{closed:?}");
            let requests = serving.join_next().await.unwrap().unwrap();
            assert_eq!(requests.len(), last);
            assert!(requests.iter().all(|request| request.starts_with("GET ")), "{requests:?}");
        }
    }

    #[tokio::test]
    async fn what_keeps_it_from_closing_is_told_in_words() {
        for (answers, words) in [
            (vec![(401, "{}")], "tag 'management'"),
            (vec![(200, QUEUE), (401, "{}")], "'administrator'"),
            (vec![(500, "oh")], "500"),
            (vec![(200, "oh")], "cannot be read"),
            (vec![], "127.0.0.1"),
        ] {
            let (management, _serving) = api(answers).await;
            let error = management.close_holder(LEASE, NAME).await.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let api = Management::beside("amqps://h").unwrap();
        assert!(api.close_holder(LEASE, NAME).await.unwrap_err().contains("TLS"));
    }
}
