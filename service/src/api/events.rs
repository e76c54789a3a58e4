//! `GET /v1/events`: what happens to tasks and endpoints, as server-sent events.
//!
//! A client reads from the feed at its own pace: nothing is queued for it. While clients want
//! events of endpoints, one of them at a time looks at how these are.

use super::Api;
use super::endpoints;
use super::error::ApiError;
use super::extract::Parameters;
use super::named_endpoint::known_endpoint;
use super::problem::{AnyRequest, AskingBroker, Kind, Naming};
use crate::feed::{Behind, Filter, Listener, Opening};
use crate::model::{EndpointStatus, FeedEvent, FeedKind};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::system::clock::now_ms;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// The longest that one answer lasts: less than a connection may be open.
const LONGEST: Duration = Duration::from_secs(900);
/// How long nothing is sent before the client is told its place, so that it keeps it.
const QUIET: Duration = Duration::from_secs(15);
/// How often is looked at how endpoints are.
const LOOK: Duration = Duration::from_secs(5);
/// How many bytes are written at once.
const CHUNK: usize = 64 * 1024;

/// Which events to send, and for how long.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only those of this task.
    #[param(value_type = Option<TaskId>)]
    task: Option<String>,
    /// Only those of the tasks of this submission, which may be submitted later.
    key: Option<String>,
    /// Only those of this endpoint and its tasks, by its name or id.
    endpoint: Option<String>,
    /// Only those of this kind, or of several with commas between them.
    #[param(style = Form, explode = false, min_items = 1, value_type = Option<Vec<FeedKind>>)]
    kinds: Option<String>,
    /// How long the answer lasts, in milliseconds; at most 15 minutes, which is the default.
    for_ms: Option<u64>,
}

/// How endpoints were when they were looked at last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointWatch(Arc<Mutex<Looked>>);

#[derive(Debug, Default)]
struct Looked {
    at: Option<Instant>,
    statuses: BTreeMap<EndpointId, EndpointStatus>,
}

/// One answer while it lasts.
struct Answer {
    api: Api,
    listener: Listener,
    filter: Filter,
    /// The text to send first.
    first: Option<String>,
    until: Instant,
    /// When is looked at endpoints next.
    look_at: Instant,
    ended: bool,
}

/// Sends what happens to tasks and endpoints, as server-sent events.
///
/// The first event is `open`; from then on no event is left out. Each has an `id`: a client that
/// connects again passes the last one as `Last-Event-ID`, and goes on after it. Where that cannot
/// be, the first event is `reset`: the client has to list again what it wants to know. The
/// answer ends with the event `end`, which says why.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "service",
    params(
        EventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that the client has"),
    ),
    responses(
        (
            status = 200,
            description = "Events; the `data` of those of tasks and endpoints is a `FeedEvent`",
            body = ServerSentEvent,
            content_type = "text/event-stream",
        ),
        AnyRequest,
        AskingBroker,
        Naming,
    ),
)]
pub(super) async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
    Parameters(query): Parameters<EventsQuery>,
) -> Result<Response, ApiError> {
    let filter = filter(&api, &query).await?;
    let lasts = query.for_ms.map_or(LONGEST, Duration::from_millis).min(LONGEST);
    let after = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let Some((listener, begun)) = api.store.feed().listen(after) else {
        let words = "too many clients read events at once: end one, or try again later";
        return Err(ApiError::new(Kind::TooMany, words));
    };
    // What a transaction changes that began before is seen by readers from here on.
    api.store.written().await?;
    if wants_endpoints(&filter) {
        look(&api).await?;
    }
    let (until, look_at) = (Instant::now() + lasts, Instant::now() + LOOK);
    let first = Some(opening(&listener, begun).text());
    let answer = Answer { api, listener, filter, first, until, look_at, ended: false };
    let chunks = stream::unfold(answer, |answer| answer.next());
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

async fn filter(api: &Api, query: &EventsQuery) -> Result<Filter, ApiError> {
    let not_an_id = |id: &str| ApiError::bad_request(format!("'{id}' is not a task id"));
    let task = query.task.as_deref().map(|id| id.parse().map_err(|_| not_an_id(id)));
    let kinds = query.kinds.iter().flat_map(|kinds| kinds.split(','));
    let kinds: Result<_, String> = kinds.map(str::parse).collect();
    let endpoint = match &query.endpoint {
        Some(endpoint) => Some(known_endpoint(api, endpoint).await?.id),
        None => None,
    };
    Ok(Filter {
        task: task.transpose()?,
        key: query.key.clone(),
        endpoint,
        kinds: kinds.map_err(ApiError::bad_request)?,
    })
}

/// Whether an event of an endpoint can meet a filter.
fn wants_endpoints(filter: &Filter) -> bool {
    filter.task.is_none()
        && filter.key.is_none()
        && (filter.kinds.is_empty() || filter.kinds.contains(&FeedKind::Endpoint))
}

/// A server-sent event.
#[derive(ToSchema)]
pub(super) struct ServerSentEvent {
    /// The place behind it, for `Last-Event-ID`.
    id: Option<String>,
    /// `open`, `reset`, `end`, or the kind of a `FeedEvent`.
    event: String,
    /// JSON: a `FeedEvent`, or of `open` whether it is `resumed`, of `reset` a `detail` in words,
    /// of `end` a `code` and a `detail`.
    data: String,
}

impl ServerSentEvent {
    fn text(&self) -> String {
        let Self { id, event, data } = self;
        let id = id.as_ref().map(|id| format!("id: {id}\n")).unwrap_or_default();
        format!("{id}event: {event}\ndata: {data}\n\n")
    }
}

/// The first event of an answer.
fn opening(listener: &Listener, begun: Opening) -> ServerSentEvent {
    let (event, data) = match begun {
        Opening::Anew => ("open", json!({ "resumed": false })),
        Opening::Resumed => ("open", json!({ "resumed": true })),
        Opening::Reset => {
            let detail = "what happened since that event is not known any more: list again";
            ("reset", json!({ "detail": detail }))
        }
    };
    let id = Some(listener.position.to_string());
    ServerSentEvent { id, event: event.to_owned(), data: data.to_string() }
}

/// The last event of an answer.
fn closing(code: &str, detail: &str) -> ServerSentEvent {
    let data = json!({ "code": code, "detail": detail }).to_string();
    ServerSentEvent { id: None, event: "end".to_owned(), data }
}

impl Answer {
    /// The next piece of the answer; nothing after its end.
    async fn next(mut self) -> Option<(Result<String, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        let text = self.piece().await;
        Some((Ok(text), self))
    }

    async fn piece(&mut self) -> String {
        let quiet = tokio::time::sleep(QUIET);
        tokio::pin!(quiet);
        let watches = wants_endpoints(&self.filter);
        loop {
            if self.api.stop.is_cancelled() {
                return self.end("stopping", "the service is stopping: connect again later");
            }
            if Instant::now() >= self.until {
                return self.end("over", "the answer has lasted its time: connect again");
            }
            match self.listener.read(&self.filter, CHUNK) {
                Ok(text) if text.is_empty() => (),
                Ok(text) => return text,
                Err(Behind) => {
                    let words = "events were let go before they were read: the client is too \
                                 slow for so many; list again, and connect anew without the last id";
                    return self.end("behind", words);
                }
            }
            tokio::select! {
                () = self.listener.changed() => (),
                () = &mut quiet => return format!(": nothing new\nid: {}\n\n", self.listener.position),
                () = tokio::time::sleep_until(self.look_at), if watches => {
                    if let Err(error) = look(&self.api).await {
                        tracing::debug!(?error, "endpoints cannot be looked at for events");
                    }
                    self.look_at = Instant::now() + LOOK;
                }
                () = self.api.stop.cancelled() => (),
                () = tokio::time::sleep_until(self.until) => (),
            }
        }
    }

    fn end(&mut self, code: &str, detail: &str) -> String {
        self.ended = true;
        closing(code, detail).text()
    }
}

/// Looks at how endpoints are, if no other client did lately, and tells the feed what changed.
async fn look(api: &Api) -> Result<(), ApiError> {
    let Ok(mut looked) = api.watch.0.try_lock() else { return Ok(()) };
    if looked.at.is_some_and(|at| at.elapsed() < LOOK) {
        return Ok(());
    }
    let first = looked.at.is_none();
    let seen = endpoints::statuses(api).await?;
    looked.at = Some(Instant::now());
    let mut statuses = BTreeMap::new();
    let mut events = Vec::new();
    for (endpoint, name, status) in seen {
        let before = looked.statuses.get(&endpoint).copied();
        if !first && before != Some(status) {
            events.push(FeedEvent {
                kind: FeedKind::Endpoint,
                at_ms: now_ms(),
                endpoint,
                endpoint_name: Some(name),
                status: Some(status),
                of: None,
            });
        }
        statuses.insert(endpoint, status);
    }
    looked.statuses = statuses;
    api.store.feed().tell(events);
    Ok(())
}
