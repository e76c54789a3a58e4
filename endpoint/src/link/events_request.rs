//! The wishes of the service that only the publisher of events can fulfil.

use clutch_common::wire::Follow;
use tokio::sync::mpsc;

/// How many of them wait. More are dropped: the service sends them again.
const WAITING: usize = 64;

/// A wish of the service about events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EventsRequest {
    /// Publish the output of a task for a while.
    Follow(Follow),
    /// Publish all of the state.
    Report,
}

/// The way from the reader of the control queue to the publisher of events.
#[derive(Clone, Debug)]
pub(crate) struct EventsRequests(mpsc::Sender<EventsRequest>);

impl EventsRequests {
    /// Creates the way, and its end.
    pub(crate) fn new() -> (Self, mpsc::Receiver<EventsRequest>) {
        let (requests, received) = mpsc::channel(WAITING);
        (Self(requests), received)
    }

    /// Hands a request on.
    pub(crate) fn send(&self, request: EventsRequest) {
        if self.0.try_send(request).is_err() {
            tracing::debug!(?request, "a request about events is dropped: too many wait");
        }
    }
}
