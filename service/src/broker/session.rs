//! The broker link: both connections, from dialling to their loss, repeated.
//!
//! Nothing of a connection outlives its session: a session makes the publisher that
//! submissions go through, and takes it along.

use crate::broker::collector::{self, collect};
use crate::broker::events::EventReader;
use crate::broker::health::HealthState;
use crate::broker::management::Management;
use crate::broker::observer::observe;
use crate::broker::ownership::{self, Claimant};
use crate::broker::requests::Requests;
use crate::broker::topic_placer::{Placing, place_topics};
use crate::failover::{self, ConnectionCloser, Liveness};
use crate::messages::{self, Mail, Router, RouterParts, Rules};
use crate::publishing::{
    AnswerRecorder, Placements, Publisher, UrgentSender, place, publish, send_urgent,
};
use crate::store::Store;
use backoff::backoff::Backoff as _;
use clutch_common::link::ownership::{Claim, claim, take_over};
use clutch_common::link::{Connection, Fault, Inlet, Terms, Transport};
use clutch_common::topology::{self, QueueKind};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many submissions may wait for the publishing connection.
const WAITING_JOBS: usize = 16;
/// The longest pause between two attempts to reach the broker.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A link that held at least this long counts as mended: the pauses start anew.
const STABLE: Duration = Duration::from_secs(30);

/// How long the broker may keep the lease of a service that died, after the missed heartbeats.
const LEASE_LINGERS: Duration = Duration::from_secs(5);
/// How long refusals are waited out after the broker was away: while it starts, it may
/// refuse a user or a vhost that it has not loaded yet.
const BOOT_PATIENCE: Duration = Duration::from_secs(30);

/// Whether the link is up.
#[derive(Clone)]
pub(crate) enum LinkState {
    /// Up: tasks are published here.
    Engaged(Publisher),
    /// Down; why.
    Disengaged(String),
}

/// The parts of the service that every session uses.
pub(crate) struct SessionContext {
    /// The broker.
    pub(crate) transport: Arc<dyn Transport>,
    /// The records.
    pub(crate) store: Store,
    /// Tells the API whether the link is up.
    pub(crate) link: watch::Sender<LinkState>,
    /// Bumped whenever results were recorded.
    pub(crate) commits: watch::Sender<u64>,
    /// Bumped whenever endpoints' states or lost tasks are worth a look.
    pub(crate) news: watch::Sender<u64>,
    /// Closes stale connections, where the broker can be asked to.
    pub(crate) closer: Option<Arc<dyn ConnectionCloser>>,
    /// The broker's management API, where it has one.
    pub(crate) management: Option<Management>,
    /// How long a task may be without a result until its endpoint is asked for it.
    pub(crate) ask_after: Duration,
    /// The service that claims the results.
    pub(crate) claimant: Claimant,
    /// The state that the API reports.
    pub(crate) told: HealthState,
    /// Where submissions and their records run that outlive a request.
    pub(crate) submissions: TaskTracker,
    /// The obstacles of tasks that wait.
    pub(crate) placements: Placements,
    /// The rules for messages between tasks, and for their children.
    pub(crate) rules: Rules,
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum SessionError {
    /// The link failed.
    Lost(Fault),
    /// The results are another service's, in the words of the place.
    NotOurs(String),
}

impl From<Fault> for SessionError {
    fn from(fault: Fault) -> Self {
        Self::Lost(fault)
    }
}

/// Keeps the link up until told to stop, and calls `engaged` whenever it comes
/// up.
///
/// # Errors
/// When the results are another service's. And, before the link was up for the first
/// time, when the broker refuses the credentials or a permission, or another service
/// keeps the lease for longer than a dead one could; later, everything else is tried again.
pub(crate) async fn keep_engaged(
    context: &SessionContext,
    engaged: impl Fn() + Send + Sync,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let mut claimant = context.claimant;
    let mut pause = backoff::ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(200))
        .with_randomization_factor(0.5)
        .with_max_interval(LONGEST_PAUSE)
        .with_max_elapsed_time(None)
        .build();
    let mut ever = false;
    let mut booting_until = Instant::now();
    let patient_until = Instant::now() + Terms::default().heartbeat * 3 + LEASE_LINGERS;
    while !stop.is_cancelled() {
        let fault = match until(stop, dial(context)).await {
            None => return Ok(()),
            Some(Ok(connections)) => {
                let opened = Instant::now();
                let session = work(context, &connections, &mut claimant, &engaged, stop);
                let ended = Box::pin(session).await;
                if matches!(*context.link.borrow(), LinkState::Engaged(_)) {
                    ever = true;
                    if opened.elapsed() >= STABLE {
                        pause.reset();
                    }
                }
                connections.close().await;
                match ended {
                    Ok(()) => return Ok(()),
                    Err(SessionError::Lost(fault)) => fault,
                    Err(not_ours) => return Err(not_ours),
                }
            }
            Some(Err(fault)) => fault,
        };
        context.told.overlay.unlinked();
        context.link.send_replace(LinkState::Disengaged(fault.to_string()));
        if !ever && is_final(&fault, patient_until, booting_until) {
            return Err(fault.into());
        }
        if !matches!(fault, Fault::Credentials(_) | Fault::Forbidden(_)) {
            booting_until = Instant::now() + BOOT_PATIENCE;
        }
        if matches!(fault, Fault::Locked(_)) {
            tracing::warn!("another clutch-service is collecting results on this broker");
        }
        let wait = pause.next_backoff().unwrap_or(LONGEST_PAUSE);
        tracing::warn!(
            %fault,
            broker = context.transport.address(),
            retry_in = %humantime::format_duration(Duration::from_millis(
                u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
            )),
            "disengaged"
        );
        until(stop, tokio::time::sleep(wait)).await;
    }
    Ok(())
}

/// Whether a fault before the first link ends the service, instead of another attempt.
fn is_final(fault: &Fault, patient_until: Instant, booting_until: Instant) -> bool {
    let now = Instant::now();
    (matches!(fault, Fault::Credentials(_) | Fault::Forbidden(_)) && now >= booting_until)
        || (matches!(fault, Fault::Locked(_)) && now >= patient_until)
}

/// The two connections of a session.
struct Connections {
    consuming: Box<dyn Connection>,
    publishing: Box<dyn Connection>,
}

impl Connections {
    async fn close(&self) {
        tokio::join!(self.consuming.close(), self.publishing.close());
    }
}

async fn dial(context: &SessionContext) -> Result<Connections, Fault> {
    Ok(Connections {
        consuming: context.transport.connect("clutch/service/collect").await?,
        publishing: context.transport.connect("clutch/service/submit").await?,
    })
}

/// One session on open connections.
async fn work(
    context: &SessionContext,
    connections: &Connections,
    claimant: &mut Claimant,
    engaged: &(impl Fn() + Send + Sync),
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let kind = queue_kind(context).await;
    let inlet = claimed_inlet(context, connections, claimant, kind).await?;
    let outlet = connections.publishing.outlet().await?;
    let (jobs, mut queue) = mpsc::channel(WAITING_JOBS);
    let SessionContext { store, commits, news, closer, ask_after, told, .. } = context;
    let SessionContext { submissions, placements, .. } = context;
    let (urgent, copies) = UrgentSender::new();
    let publisher = Publisher::new(jobs, answers(context)).with_urgent(urgent);
    context.link.send_replace(LinkState::Engaged(publisher.clone()));
    tracing::info!(
        broker = context.transport.address(),
        service = %claimant.service,
        "engaged"
    );
    engaged();
    let overlay = &told.overlay;
    overlay.linked();
    let connection = connections.consuming.as_ref();
    let requests = Requests { store, overlay, publisher: publisher.clone(), connection };
    let mail = Mail::default();
    let events =
        EventReader { store, overlay, counts: &told.counts, connection, kind, mail: &mail };
    let (posts, incoming) = messages::posts();
    let counts = &told.counts;
    let recorder = collector::Recorder { store, commits, overlay, counts, posts: &posts };
    let router = RouterParts {
        store,
        publisher: publisher.clone(),
        connection,
        rules: &context.rules,
        commits: commits.subscribe(),
        submissions,
        mail: &mail,
    };
    let liveness = Liveness::new(news.clone(), Arc::clone(&told.last_heard));
    let placing = Placing {
        store,
        publisher: publisher.clone(),
        placements,
        observer: &told.observer,
        liveness: &liveness,
        commits,
        tasks: submissions,
    };
    let closer = closer.as_deref();
    let watching =
        failover::watch(store, publisher.clone(), closer, &liveness, news.subscribe(), stop);
    tokio::try_join!(
        collect(inlet, &recorder, &liveness, stop),
        Router::run(router, incoming, stop),
        events.read(stop),
        requests.ask(stop),
        publish(outlet, &mut queue, stop),
        watching,
        place(store, publisher.clone(), placements, news.subscribe(), submissions, stop),
        failover::recover(store, publisher.clone(), placements, news.subscribe(), *ask_after, stop),
        failover::cancel(store, publisher.clone(), news.subscribe(), stop),
        place_topics(placing, stop),
        send_urgent(connection, publisher, copies, stop),
        look_at_policies(context, stop),
        observe(&told.observer, context.transport.as_ref(), stop),
    )
    .map(|_| ())
    .map_err(SessionError::from)
}

/// Claims the results, and opens their queue.
async fn claimed_inlet(
    context: &SessionContext,
    connections: &Connections,
    claimant: &mut Claimant,
    kind: QueueKind,
) -> Result<Box<dyn Inlet>, SessionError> {
    // Before anything is delivered that may be another's.
    let claimed = claim(connections.publishing.as_ref(), claimant.service, kind).await?;
    if let Claim::Theirs { words, .. } = &claimed
        && !claimant.take_over
    {
        return Err(SessionError::NotOurs(words.clone()));
    }
    let inlet = match connections.consuming.inlet(&collector::inlet_options()).await {
        Err(Fault::Missing(_)) => {
            declare_results(context, connections, kind).await?;
            connections.consuming.inlet(&collector::inlet_options()).await?
        }
        inlet => inlet?,
    };
    if let Claim::Theirs { service, .. } = claimed {
        take_over(connections.publishing.as_ref(), claimant.service, kind).await?;
        tracing::warn!(
            from = ownership::name(service),
            by = %claimant.service,
            "took over the results from another clutch-service, which is refused from now on: \
             results of tasks that it submitted are recorded here, as those of tasks that were \
             submitted elsewhere"
        );
    }
    claimant.take_over = false;
    Ok(inlet)
}

/// Writes the broker's answers into the records.
fn answers(context: &SessionContext) -> AnswerRecorder {
    AnswerRecorder::new(
        context.store.clone(),
        context.news.clone(),
        context.commits.clone(),
        context.placements.clone(),
        context.submissions.clone(),
    )
}

/// Looks at what policies do to the queues, as often as for what has no result for long.
async fn look_at_policies(context: &SessionContext, stop: &CancellationToken) -> Result<(), Fault> {
    until(stop, context.told.policies.watch(context.management.as_ref(), context.ask_after)).await;
    Ok(())
}

/// The kind of the queues that all endpoints share, as far as it is known.
async fn queue_kind(context: &SessionContext) -> QueueKind {
    let known = context.store.shared_queue_kind().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the kind of the queues cannot be read: declaring classic ones");
        None
    });
    known.unwrap_or_default()
}

/// The queue for results exists once an endpoint is provisioned; a service that
/// is started before that makes it.
async fn declare_results(
    context: &SessionContext,
    connections: &Connections,
    kind: QueueKind,
) -> Result<(), Fault> {
    connections.publishing.declare(&topology::shared(kind)).await?;
    if let Err(error) = context.store.shared_declared(kind).await {
        tracing::warn!(%error, "the kind of the queues cannot be recorded");
    }
    Ok(())
}

/// Runs `future`, unless told to stop before it is done.
async fn until<T>(stop: &CancellationToken, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        done = future => Some(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_lease_is_final_only_once_a_dead_predecessor_would_have_let_go() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let locked = Fault::Locked("RESOURCE_LOCKED".into());
        assert!(!is_final(&locked, now + 60 * second, now));
        assert!(is_final(&locked, now, now));
        assert!(!is_final(&Fault::Closed("gone".into()), now, now));
    }

    #[test]
    fn a_refused_login_is_final_unless_the_broker_was_just_away() {
        let now = Instant::now();
        let refused = Fault::Credentials("no".into());
        let later = now + Duration::from_secs(60);
        assert!(is_final(&refused, later, now));
        assert!(!is_final(&refused, now, later));
    }
}
