//! The HTTP+JSON API of `design/0006-api.md`, answered on a Unix socket.
//!
//! It reads and writes the records, publishes through the session's publisher, and waits
//! for the collector's commits. It never touches the broker itself.

mod cancel;
pub(crate) mod connections;
mod document;
mod endings;
mod endpoints;
mod error;
mod events;
mod extract;
mod forget;
mod messages;
mod named_endpoint;
mod observed;
mod output;
mod placed;
mod problem;
mod progress;
mod query;
mod recipient;
mod retry;
pub(crate) mod schedules;
mod steer;
mod submit;
#[cfg(test)]
mod tests;
mod topics;
pub(crate) mod types;
mod upload;
mod wait;
mod waiting;

use crate::broker::health::HealthState;
use crate::broker::session::LinkState;
use crate::publishing::{Placements, PublishRoom};
use crate::store::Store;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use error::{ApiError, Json};
use problem::{AnyRequest, Kind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::Health;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The largest body a request may have, in bytes: one task of the largest size,
/// and room for the rest.
const MAX_REQUEST: usize = clutch_common::wire::MAX_BODY + 1024 * 1024;
/// How many bytes the small submissions have together that are read and worked on at
/// once; the others wait, and their bodies with them.
const UNDER_WAY: usize = 32 * 1024 * 1024;
/// How many bytes the large ones have together.
const LARGE_UNDER_WAY: usize = 4 * MAX_REQUEST;
/// The largest body of a request that is no submission.
const MAX_QUESTION: usize = 1024 * 1024;
/// The unit, in bytes, in which the room for submissions is given out.
const SHARE: usize = 64 * 1024;

/// How the API and the session tell each other that the records changed.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    /// Bumped when tasks have ended.
    pub(crate) recorded: watch::Sender<u64>,
    /// Bumped when something is scheduled.
    pub(crate) timers: watch::Sender<u64>,
    /// Bumped when there is something to be told to an endpoint, or to be published.
    pub(crate) news: watch::Sender<u64>,
}

/// The state that all handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    store: Store,
    link: watch::Receiver<LinkState>,
    commits: watch::Receiver<u64>,
    signals: Signals,
    told: HealthState,
    stop: CancellationToken,
    uploads: upload::Uploads,
    publishing: PublishRoom,
    submissions: TaskTracker,
    placements: Placements,
    watch: events::EndpointWatch,
}

impl Api {
    /// An API over these records. Long polls end when `stop` is cancelled. Submissions run
    /// among `submissions`: they outlive the requests that brought them, and need the
    /// broker session to end well.
    #[must_use]
    pub(crate) fn new(
        store: Store,
        link: watch::Receiver<LinkState>,
        signals: Signals,
        told: HealthState,
        submissions: TaskTracker,
        placements: Placements,
        stop: CancellationToken,
    ) -> Self {
        let (uploads, commits) = (upload::Uploads::default(), signals.recorded.subscribe());
        let publishing = PublishRoom::default();
        let watch = events::EndpointWatch::default();
        Self {
            store,
            link,
            commits,
            signals,
            told,
            stop,
            uploads,
            publishing,
            submissions,
            placements,
            watch,
        }
    }

    /// The routes, with what keeps to the rules of all of them.
    pub(crate) fn router(self) -> Router {
        let (router, _) = routes().split_for_parts();
        router
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .layer(DefaultBodyLimit::max(MAX_QUESTION))
            .with_state(self)
    }
}

/// Every route, each with its part of the document.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(document::frame())
        .routes(routes!(health))
        .routes(routes!(document::openapi))
        .routes(routes!(events::events))
        .routes(routes!(query::tasks, submit::submit))
        .routes(routes!(query::task))
        .routes(routes!(messages::message))
        .routes(routes!(output::output))
        .routes(routes!(query::results))
        .routes(routes!(query::missing))
        .routes(routes!(wait::wait))
        .routes(routes!(endpoints::endpoints))
        .routes(routes!(endpoints::endpoint))
        .routes(routes!(topics::topics))
        .routes(routes!(topics::topic))
        .routes(routes!(steer::drain))
        .routes(routes!(steer::resume))
        .routes(routes!(endings::remove))
        .routes(routes!(endings::lost))
        .routes(routes!(cancel::cancel))
        .routes(routes!(progress::progress))
        .routes(routes!(forget::forget))
        .routes(routes!(retry::retry))
        .routes(routes!(schedules::schedules, schedules::apply))
        .routes(routes!(schedules::schedule))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::run))
        .routes(routes!(schedules::remove))
}

/// Tells how the service is.
#[utoipa::path(
    get,
    path = "/v1/health",
    tag = "service",
    responses((status = 200, description = "How it is", body = Health), AnyRequest),
)]
async fn health(State(api): State<Api>) -> Json<Health> {
    let fault = match &*api.link.borrow() {
        LinkState::Engaged(_) => None,
        LinkState::Disengaged(fault) => Some(fault.clone()),
    };
    Json(Health {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engaged: fault.is_none(),
        fault,
        oddities: api.told.counts.read(),
        policies: api.told.policies.found(),
    })
}

async fn no_route(uri: axum::http::Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", uri.path()))
}

async fn no_method(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(Kind::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
