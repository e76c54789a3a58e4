//! Watches the endpoints: pings the holder of a lease that a standby waits for, has its
//! connection closed if it does not answer, and gives up states that are silent for too long.
//! While no standby waits and no state is missed, it sleeps.

use super::liveness::Liveness;
use super::{barrier, ping};
use crate::publishing::{PublishError, Publisher};
use crate::store::{EndpointStates, Store};
use async_trait::async_trait;
use clutch_common::failover::{self as rules, Heard, PingTimes, Plan};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::link::Fault;
use clutch_common::system::clock::now_ms;
use clutch_common::topology;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the records are read anew while something is to be given up in
/// time: another process may change for how long that is.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long reading up to a barrier takes at most, where the results queue is not
/// far behind.
const READ_UP_WITHIN: Duration = Duration::from_secs(10);
/// A barrier that has not come by then was lost, with the queue's content.
const BARRIER_LASTS: Duration = Duration::from_secs(300);
/// The pause before the database is asked again.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Closes connections at the broker.
#[async_trait]
pub(crate) trait ConnectionCloser: Send + Sync {
    /// Closes the connection that holds this lease, if its name is this one.
    /// Says whether there was one.
    ///
    /// # Errors
    /// Why it cannot be, in words for people.
    async fn close_holder(&self, lease: &str, connection: &str) -> Result<bool, String>;
}

/// Watches until told to stop.
///
/// # Errors
/// Never: what it cannot do it tries again. The session ends it.
pub(crate) async fn watch(
    store: &Store,
    publisher: Publisher,
    closer: Option<&dyn ConnectionCloser>,
    liveness: &Liveness,
    mut news: watch::Receiver<u64>,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut watch = Watcher::new(store, publisher, closer, liveness);
    let watching = async {
        loop {
            news.mark_unchanged();
            let next = watch.look().await;
            tokio::select! {
                changed = news.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    watch.read = None;
                }
                () = sleep_until(next) => (),
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => (),
        () = watching => stop.cancelled().await,
    }
    Ok(())
}

async fn sleep_until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// An endpoint that is watched.
struct WatchedEndpoint {
    standing: EndpointStates,
    times: PingTimes,
}

/// A barrier on its way through the results queue.
struct PendingBarrier {
    sent: Instant,
    /// It was told that it takes long.
    late: bool,
}

struct Watcher<'a> {
    store: &'a Store,
    publisher: Publisher,
    closer: Option<&'a dyn ConnectionCloser>,
    liveness: &'a Liveness,
    since: Instant,
    endpoints: Vec<WatchedEndpoint>,
    /// When the records were read, unless they have changed since.
    read: Option<Instant>,
    barrier: Option<PendingBarrier>,
    /// It was told that connections cannot be closed.
    told: bool,
}

impl<'a> Watcher<'a> {
    fn new(
        store: &'a Store,
        publisher: Publisher,
        closer: Option<&'a dyn ConnectionCloser>,
        liveness: &'a Liveness,
    ) -> Self {
        Self {
            store,
            publisher,
            closer,
            liveness,
            since: Instant::now(),
            endpoints: Vec::new(),
            read: None,
            barrier: None,
            told: false,
        }
    }

    /// Does what is due, and says when to look again if there is no news.
    async fn look(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.read.is_none()
            && let Err(error) = self.read(now).await
        {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error, "the endpoints' states cannot be read; trying again");
            return Some(now + DATABASE_PAUSE);
        }
        self.read_up();
        let heard = self.liveness.last_heard();
        let mut endpoints = std::mem::take(&mut self.endpoints);
        let plans: Vec<Plan> = endpoints.iter().map(|one| one.plan(&heard, now)).collect();
        let mut looks: Vec<Instant> = plans.iter().filter_map(|plan| plan.next).collect();
        self.close(endpoints.iter_mut().zip(&plans), now).await;
        for (one, plan) in endpoints.iter().zip(&plans) {
            for state in &plan.give_up {
                self.give_up(&one.standing, *state).await;
                looks.push(now + DATABASE_PAUSE);
            }
        }
        self.call(endpoints.iter_mut().zip(&plans), &heard, now).await;
        if plans.iter().any(|plan| plan.read_up) {
            looks.push(self.send_barrier(now).await);
        }
        if let Some(read) = self.read
            && endpoints.iter().any(|one| rules::misses_one(&one.standing.states))
        {
            self.read = Some(read).filter(|read| now < *read + LOOK_EVERY);
            looks.push((read + LOOK_EVERY).max(now + DATABASE_PAUSE));
        }
        self.endpoints = endpoints;
        looks.into_iter().min()
    }

    /// Reads the records. States that are new are so because they were heard.
    async fn read(&mut self, now: Instant) -> Result<(), crate::store::Error> {
        let standings = self.store.endpoint_states().await?;
        let states = standings.iter().flat_map(|one| &one.states).map(|state| state.id);
        self.liveness.watch_states(states.collect::<BTreeSet<StateId>>(), now);
        let mut times: BTreeMap<EndpointId, PingTimes> =
            self.endpoints.drain(..).map(|one| (one.standing.endpoint, one.times)).collect();
        let fresh = || PingTimes::new(self.since);
        let watched = |standing: EndpointStates| {
            let times = times.remove(&standing.endpoint).unwrap_or_else(fresh);
            WatchedEndpoint { standing, times }
        };
        self.endpoints = standings.into_iter().map(watched).collect();
        self.read = Some(now);
        Ok(())
    }

    /// Notes how far the collector has read, if the barrier has come out of the
    /// queue.
    fn read_up(&mut self) {
        let Some(barrier) = self.barrier.take_if(|_| self.liveness.barrier_was_read()) else {
            return;
        };
        for one in &mut self.endpoints {
            one.times.read_up_to(barrier.sent);
        }
    }

    /// Sends a barrier through the results queue, if none is under way; says when
    /// to look again.
    async fn send_barrier(&mut self, now: Instant) -> Instant {
        let again = now + READ_UP_WITHIN;
        if let Some(barrier) = &mut self.barrier {
            if now < barrier.sent + READ_UP_WITHIN {
                return barrier.sent + READ_UP_WITHIN;
            }
            if !barrier.late {
                barrier.late = true;
                tracing::warn!(
                    "an endpoint looks silent, but the results queue is long: no connection is closed \
                     and no state given up before the service has read what is in the queue"
                );
            }
            if now < barrier.sent + BARRIER_LASTS {
                return again;
            }
        }
        let barrier = barrier();
        self.liveness.await_barrier(barrier.message_id.clone().unwrap_or_default());
        let results = topology::RESULTS_QUEUE.to_owned();
        if self.publisher.message(results, barrier).await.is_ok() {
            let late = self.barrier.as_ref().is_some_and(|barrier| barrier.late);
            self.barrier = Some(PendingBarrier { sent: now, late });
        }
        again
    }

    /// Pings the holders of the leases of these endpoints, all at once.
    async fn call<'b>(
        &self,
        endpoints: impl Iterator<Item = (&'b mut WatchedEndpoint, &'b Plan)>,
        heard: &Heard,
        now: Instant,
    ) {
        let calls = endpoints.filter(|(_, plan)| plan.ping).map(async |(one, _)| {
            let lease = topology::lease_queue(one.standing.endpoint);
            let held = match self.publisher.message(lease, ping()).await {
                Ok(()) => true,
                Err(PublishError::Returned(_)) => false,
                Err(
                    PublishError::Refused | PublishError::TooLarge(_) | PublishError::Unknown(_),
                ) => return,
            };
            let holder = rules::holder(&one.standing.states);
            one.times.pinged(now, held, holder, heard);
        });
        join_all(calls).await;
    }

    /// Has connections closed that hold a lease and do not answer, all at once.
    async fn close(
        &mut self,
        endpoints: impl Iterator<Item = (&mut WatchedEndpoint, &Plan)>,
        now: Instant,
    ) {
        let closer = self.closer;
        let closing = endpoints.filter_map(|(one, plan)| {
            let endpoint = one.standing.endpoint;
            let connection = format!("clutch/{endpoint}/{}", plan.close?);
            one.times.closed(now);
            Some(async move {
                let lease = topology::lease_queue(endpoint);
                let closed = match closer {
                    Some(closer) => closer.close_holder(&lease, &connection).await,
                    None => Err("its address is not known".to_owned()),
                };
                (&one.standing.name, connection, closed)
            })
        });
        for (endpoint, connection, closed) in join_all(closing).await {
            match closed {
                Ok(true) => tracing::warn!(
                    endpoint,
                    connection,
                    "the instance that holds the endpoint's lease does not answer: its connection is \
                     closed, so that the standby can take over"
                ),
                Ok(false) => {
                    tracing::debug!(connection, "the connection is gone, or not listed yet");
                }
                Err(reason) if self.told => {
                    tracing::debug!(reason, "the management API still cannot be used");
                }
                Err(reason) => {
                    self.told = true;
                    tracing::warn!(
                        endpoint,
                        reason,
                        "the instance that holds the endpoint's lease does not answer, and the broker's \
                         management API cannot be used to close its connection: a takeover waits \
                         for three heartbeats. `serve --management URL` says where the API is"
                    );
                }
            }
        }
    }

    async fn give_up(&mut self, of: &EndpointStates, state: StateId) {
        self.read = None;
        match self.store.give_up(of.endpoint, state, now_ms()).await {
            Ok(Some(in_doubt)) => {
                self.liveness.notify();
                tracing::warn!(
                    endpoint = of.name,
                    %state,
                    silent_for = %humantime::format_duration(of.lost_after),
                    in_doubt,
                    "a silent state folder of the endpoint is given up: its tasks without a result \
                     are submitted again, or end as interrupted"
                );
            }
            Ok(None) => (),
            Err(error) => tracing::warn!(%error, "a state cannot be given up; trying again"),
        }
    }
}

impl WatchedEndpoint {
    fn plan(&self, heard: &Heard, now: Instant) -> Plan {
        let EndpointStates { states, lost_after, .. } = &self.standing;
        rules::plan(states, *lost_after, &self.times, heard, now)
    }
}
