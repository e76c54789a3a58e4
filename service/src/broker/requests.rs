//! Asks endpoints, through their control queues, for complete reports and for the output of
//! tasks that are followed.
//!
//! Touches control queues. Promises: no message is added to a control queue in which one
//! waits, so that an endpoint which is away finds one at most; it sleeps while no task is
//! followed.

use crate::overlay::{FOLLOW_FOR, FollowDue, Overlay};
use crate::publishing::{Publisher, control_message};
use crate::store::Store;
use clutch_common::id::EndpointId;
use clutch_common::link::{Connection, Fault};
use clutch_common::topology;
use clutch_common::wire::{Follow, ReportRequest, Steering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How many endpoints are asked for a report when the link is engaged.
const MAX_REPORTS: u32 = 1000;
/// How long the broker may take to tell about a queue.
const PATIENCE: Duration = Duration::from_secs(2);

/// The parts that endpoints are asked with.
pub(crate) struct Requests<'a> {
    /// The records.
    pub(crate) store: &'a Store,
    /// The overlay.
    pub(crate) overlay: &'a Overlay,
    /// The way to publish.
    pub(crate) publisher: Publisher,
    /// The connection to look at queues by.
    pub(crate) connection: &'a dyn Connection,
}

impl Requests<'_> {
    /// Asks until told to stop.
    ///
    /// # Errors
    /// Never: what cannot be asked is asked again later, or told by the endpoint anyway.
    pub(crate) async fn ask(&self, stop: &CancellationToken) -> Result<(), Fault> {
        let asking = async {
            self.ask_for_reports().await;
            self.ask_for_output().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => (),
            () = asking => (),
        }
        Ok(())
    }

    /// Asks the endpoints with submitted tasks for everything that they have.
    async fn ask_for_reports(&self) {
        match self.store.endpoints_with_open_tasks(MAX_REPORTS).await {
            Ok(endpoints) => {
                for endpoint in endpoints {
                    self.steer(endpoint, &Steering::Report(ReportRequest {})).await;
                }
            }
            Err(error) => tracing::debug!(%error, "endpoints are not asked for reports"),
        }
    }

    /// Asks for the output of tasks while they are followed.
    async fn ask_for_output(&self) {
        let mut changes = self.overlay.follow_changes();
        loop {
            changes.mark_unchanged();
            for one in self.overlay.follows_due() {
                if !self.follow(one).await {
                    self.overlay.follow_failed(one.attempt);
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(self.overlay.next_follow_due()) => (),
            }
        }
    }

    async fn follow(&self, due: FollowDue) -> bool {
        let endpoint = match self.store.endpoint_of(due.attempt.task_id).await {
            Ok(Some(endpoint)) => endpoint,
            Ok(None) => return false,
            Err(error) => {
                tracing::debug!(%error, "the endpoint of a followed task cannot be looked up");
                return false;
            }
        };
        let follow = Follow {
            attempt: due.attempt,
            stdout_from: due.stdout,
            stderr_from: due.stderr,
            for_ms: u64::try_from(FOLLOW_FOR.as_millis()).unwrap_or(u64::MAX),
        };
        self.steer(endpoint, &Steering::Follow(follow)).await
    }

    /// Sends a message that is worth nothing later; says whether the endpoint has it soon.
    async fn steer(&self, endpoint: EndpointId, message: &Steering) -> bool {
        let (queue, lease) = (topology::control_queue(endpoint), topology::lease_queue(endpoint));
        let look = self.connection.look(&queue, &lease);
        let idle = match tokio::time::timeout(PATIENCE, look).await {
            Ok(Ok(sight)) => sight.waiting == 0,
            Ok(Err(fault)) => {
                tracing::debug!(%fault, queue, "the endpoint was not asked");
                false
            }
            Err(_) => false,
        };
        if !idle {
            return false;
        }
        let message = control_message(message.kind(), message.encode());
        match self.publisher.message(queue, message).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%endpoint, %error, "the endpoint was not asked");
                false
            }
        }
    }
}

async fn sleep_until(then: Option<std::time::Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then.into()).await,
        None => std::future::pending().await,
    }
}
