//! Consumes the results queue: records results and presence messages, and acknowledges them once
//! they are on disk. Callers that wait for a result are woken as soon as it is recorded: the
//! broker still has what a power cut undoes then. Repeated results are counted; messages that
//! cannot be read go to the dead-letter queue. Messages between tasks are handed over to their
//! router; they are acknowledged once they are done, and recording does not wait for that.

use crate::broker::anomalies::AnomalyCounters;
use crate::failover::Liveness;
use crate::messages::{Incoming, PostSettled, Posts};
use crate::overlay::Overlay;
use crate::store::{Batch, Error, PresenceMessage, Store};
use backoff::backoff::Backoff as _;
use clutch_common::id::{EndpointId, StateId};
use clutch_common::link::{Delivery, Fault, Inlet, InletOptions, Tag};
use clutch_common::system::clock::now_ms;
use clutch_common::task::reason::Reason;
use clutch_common::task::result::TaskResult;
use clutch_common::topology;
use clutch_common::wire::{self, ToService, UnknownControl};
use std::collections::BTreeMap;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The prefetch: how many unacknowledged messages the broker sends. Each may take megabytes.
const PREFETCH: u16 = 32;
/// How many messages are recorded in one transaction.
const GROUP: usize = 32;
/// How many bytes of them are decoded and recorded at a time, give or take one message: decoded,
/// they take as much memory again.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// How many results are recorded in one transaction.
const RESULTS_PER_TRANSACTION: usize = 2000;
/// How many recorded messages may wait for a sync, and for how long: a submission that is
/// recorded meanwhile syncs for them as well, and no caller waits for theirs.
const UNSETTLED: usize = 16;
/// See [`UNSETTLED`].
const SETTLE_AFTER: Duration = Duration::from_millis(5);
/// The longest pause before the database is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long after the beginning of a session a message may have waited in the queue.
const CATCHING_UP: Duration = Duration::from_secs(10);

/// How the collector consumes.
#[must_use]
pub(crate) fn inlet_options() -> InletOptions {
    InletOptions {
        queue: topology::RESULTS_QUEUE.to_owned(),
        prefetch: PREFETCH,
        lease: Some(topology::SERVICE_LEASE.to_owned()),
        one_by_one: false,
    }
}

/// The records, and the parts that are told of them.
pub(crate) struct Recorder<'a> {
    /// The records.
    pub(crate) store: &'a Store,
    /// Bumped after each transaction with results.
    pub(crate) commits: &'a watch::Sender<u64>,
    /// How far tasks are at their endpoints.
    pub(crate) overlay: &'a Overlay,
    /// Counts what is not an outcome of a task.
    pub(crate) counts: &'a Arc<AnomalyCounters>,
    /// The way of messages between tasks.
    pub(crate) posts: &'a Posts,
}

/// Collects until told to stop, and notes in `liveness` which states were heard.
///
/// # Errors
/// The fault that ended the connection; the broker delivers again what was not acknowledged.
pub(crate) async fn collect(
    mut inlet: Box<dyn Inlet>,
    recorder: &Recorder<'_>,
    liveness: &Liveness,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut open = Open::default();
    let caught_up = Instant::now() + CATCHING_UP;
    loop {
        let deliveries = tokio::select! {
            biased;
            () = stop.cancelled() => return open.settle(recorder, inlet.as_mut(), stop).await,
            deliveries = inlet.receive(GROUP) => deliveries?,
            () = tokio::time::sleep_until(open.due), if open.messages > 0 => {
                open.settle(recorder, inlet.as_mut(), stop).await?;
                continue;
            }
            () = open.first_done(), if open.waits_for_posts() => {
                open.acknowledge(inlet.as_mut(), recorder.counts).await?;
                continue;
            }
        };
        let waited = deliveries.len() == GROUP || Instant::now() < caught_up;
        let mut deliveries = VecDeque::from(deliveries);
        while !deliveries.is_empty() {
            let part = part(&mut deliveries);
            let messages = part.len();
            let mut group = Group::read(part, waited);
            recorder.posts.hand_over(std::mem::take(&mut group.posts));
            liveness.record_heard(&group.states(), Instant::now());
            if record(&group, recorder, liveness, stop).await.is_none() {
                return Ok(());
            }
            let board = recorder.store.topic_board();
            if board.has_members() {
                board.heard(group.endpoints(), now_ms());
            }
            if !group.barriers.is_empty() {
                liveness.barriers_read(&group.barriers);
            }
            open.add(messages, group.tags);
            if open.messages >= UNSETTLED {
                open.settle(recorder, inlet.as_mut(), stop).await?;
            }
        }
    }
}

/// Messages that are recorded and not acknowledged.
struct Open {
    /// How many of them may not be on disk.
    messages: usize,
    /// All of them, in order.
    groups: VecDeque<Tags>,
    /// How many of the groups are on disk: the first ones.
    durable: usize,
    /// When the others have to be brought there.
    due: Instant,
}

impl Default for Open {
    fn default() -> Self {
        Self { messages: 0, groups: VecDeque::new(), durable: 0, due: Instant::now() }
    }
}

impl Open {
    fn add(&mut self, messages: usize, tags: Tags) {
        if self.messages == 0 {
            self.due = Instant::now() + SETTLE_AFTER;
        }
        self.messages += messages;
        self.groups.push_back(tags);
    }

    /// Whether the first group is on disk, and messages between tasks in it are not done.
    fn waits_for_posts(&self) -> bool {
        self.durable > 0
    }

    /// Waits until the messages between tasks of the first group are done.
    async fn first_done(&mut self) {
        for post in self.groups.front_mut().into_iter().flat_map(|tags| &mut tags.posts) {
            post.done().await;
        }
    }

    /// Acknowledges all of it once it is on disk, unless told to stop before that; what comes
    /// after a message between tasks that is not done stays.
    async fn settle(
        &mut self,
        recorder: &Recorder<'_>,
        inlet: &mut dyn Inlet,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        if self.messages == 0 || until_done(stop, || recorder.store.durable()).await.is_none() {
            return Ok(());
        }
        self.messages = 0;
        self.durable = self.groups.len();
        self.acknowledge(inlet, recorder.counts).await
    }

    /// Acknowledges what is on disk, up to a message between tasks that is not done.
    async fn acknowledge(
        &mut self,
        inlet: &mut dyn Inlet,
        counts: &AnomalyCounters,
    ) -> Result<(), Fault> {
        while self.durable > 0
            && let Some(tags) = self.groups.pop_front_if(Tags::is_done)
        {
            self.durable -= 1;
            tags.settle(inlet, counts).await?;
        }
        Ok(())
    }
}

/// Takes the next deliveries, as many as are decoded at a time.
fn part(deliveries: &mut VecDeque<Delivery>) -> Vec<Delivery> {
    let mut bytes = 0;
    let mut part = Vec::new();
    while bytes < PART_BYTES
        && let Some(delivery) = deliveries.pop_front()
    {
        bytes += delivery.message.body.len();
        part.push(delivery);
    }
    part
}

/// Decoded deliveries.
#[derive(Default)]
struct Group {
    /// The records to write, a transaction each, in order.
    batches: Vec<Arc<Batch>>,
    /// The ids of barriers.
    barriers: Vec<String>,
    /// Messages between tasks.
    posts: Vec<Incoming>,
    tags: Tags,
}

/// The tags of deliveries, to be settled once they are on disk.
#[derive(Default)]
struct Tags {
    /// Deliveries that cannot be read, or only partly.
    unreadable: Vec<(Tag, Vec<Reason>)>,
    /// Control messages that are passed by.
    unknown: Vec<UnknownControl>,
    /// The ends of messages between tasks.
    posts: Vec<PostSettled>,
    /// The last one.
    last: Option<Tag>,
}

impl Tags {
    /// Whether all messages between tasks are done.
    fn is_done(&mut self) -> bool {
        self.posts.iter_mut().all(PostSettled::is_done)
    }

    /// Dead-letters the unreadable deliveries, and acknowledges the others.
    async fn settle(&self, inlet: &mut dyn Inlet, counts: &AnomalyCounters) -> Result<(), Fault> {
        for (tag, reasons) in &self.unreadable {
            let reasons: Vec<&str> = reasons.iter().map(|reason| &**reason).collect();
            let reason = Reason::from(reasons.join("; "));
            tracing::warn!(%reason, "a message in the results queue cannot be read: dead-lettered");
            inlet.dead_letter(*tag).await?;
            counts.dead_lettered(1);
        }
        for message in &self.unknown {
            counts.passed_by(message, std::time::Instant::now());
        }
        if let Some(tag) = self.last {
            inlet.acknowledge(tag).await?;
        }
        Ok(())
    }
}

impl Group {
    /// Decodes deliveries; `waited` says whether they may have waited in the queue for long.
    fn read(deliveries: Vec<Delivery>, waited: bool) -> Self {
        let mut group = Self::default();
        let (mut results, mut presences, mut lost) = (Vec::new(), Vec::new(), false);
        let (mut commits, mut claims) = (BTreeMap::new(), Vec::new());
        for delivery in deliveries {
            group.tags.last = Some(delivery.tag);
            if let Some(damage) = delivery.message.damage {
                lost = true;
                group.tags.unreadable.push((delivery.tag, vec![damage.into()]));
                continue;
            }
            let body = &delivery.message.body;
            let content = wire::decode_to_service(body);
            if let Err(reason) =
                is_from_its_sender(delivery.message.routing_key.as_deref(), &content)
            {
                group.tags.unreadable.push((delivery.tag, vec![reason.into()]));
                continue;
            }
            match content {
                ToService::Presence(presence) => {
                    let commits = commits.remove(&(presence.endpoint_id, presence.state_id));
                    let message = delivery.message.message_id;
                    presences.push(PresenceMessage { presence, message, commits, waited });
                }
                ToService::Ping => {
                    group.barriers.push(delivery.message.message_id.unwrap_or_default());
                }
                ToService::Claims(claimed) => claims.push(claimed),
                // It may have been sent on before, and be taken; a further copy will come.
                ToService::Post(post) if delivery.redelivered && post.is_copy() => (),
                ToService::Post(post) => {
                    let (incoming, settled) = Incoming::new(post);
                    group.posts.push(incoming);
                    group.tags.posts.push(settled);
                }
                ToService::Unknown(message) => group.tags.unknown.push(message),
                ToService::Results(decoded) => {
                    if let Some((endpoint, disk)) = decoded.endpoint.zip(decoded.disk) {
                        let seen: &mut u64 = commits.entry((endpoint, disk.state_id)).or_default();
                        *seen = disk.age.max(*seen);
                    }
                    results.extend(decoded.results);
                    if !decoded.unreadable.is_empty() {
                        group.tags.unreadable.push((delivery.tag, decoded.unreadable));
                    }
                }
            }
        }
        let last = Batch { presences, claims, lost, commits, ..Batch::default() };
        group.batches = batches(results, last);
        group
    }

    /// The states that the deliveries came from.
    fn states(&self) -> BTreeSet<StateId> {
        let mut states = BTreeSet::new();
        for batch in &self.batches {
            states.extend(batch.results.iter().filter_map(|result| result.state_id));
            states.extend(batch.presences.iter().map(|one| one.presence.state_id));
            states.extend(batch.claims.iter().map(|claims| claims.state_id));
        }
        states
    }

    /// The endpoints that they came from.
    fn endpoints(&self) -> BTreeSet<EndpointId> {
        let mut endpoints = BTreeSet::new();
        for batch in &self.batches {
            endpoints.extend(batch.results.iter().map(|result| result.endpoint_id));
            endpoints.extend(batch.presences.iter().map(|one| one.presence.endpoint_id));
            endpoints.extend(batch.claims.iter().map(|claims| claims.endpoint_id));
        }
        endpoints
    }
}

/// Checks that a message names the endpoint that its routing key belongs to: a broker may
/// restrict each endpoint to its own key. A message without a key was put into the queue by the
/// service or an operator.
fn is_from_its_sender(key: Option<&str>, content: &ToService) -> Result<(), String> {
    let Some(key) = key else { return Ok(()) };
    let says = match content {
        ToService::Results(results) => results.endpoint,
        ToService::Presence(presence) => Some(presence.endpoint_id),
        ToService::Ping => None,
        ToService::Claims(claims) => Some(claims.endpoint_id),
        ToService::Post(post) => Some(post.endpoint()),
        ToService::Unknown(_) => return Ok(()),
    };
    // What cannot be read at all says nothing that could be false.
    let unread = matches!(content, ToService::Results(results) if results.endpoint.is_none());
    if unread || says.is_some_and(|endpoint| key == topology::results_key(endpoint)) {
        return Ok(());
    }
    Err(format!("it was published with the routing key '{key}', which is not that of its endpoint"))
}

/// Splits results into transactions. Results are recorded before the presence messages that were
/// sent after them.
fn batches(results: Vec<TaskResult>, last: Batch) -> Vec<Arc<Batch>> {
    let whole = results.len().saturating_sub(1) / RESULTS_PER_TRANSACTION;
    let mut results = results.into_iter();
    let mut batches: Vec<Batch> = (0..whole)
        .map(|_| results.by_ref().take(RESULTS_PER_TRANSACTION).collect())
        .map(|results| Batch { results, ..Batch::default() })
        .collect();
    let results: Vec<TaskResult> = results.collect();
    let empty = last.presences.is_empty() && last.claims.is_empty() && !last.lost;
    if !results.is_empty() || !empty {
        batches.push(Batch { results, ..last });
    }
    batches.into_iter().map(Arc::new).collect()
}

/// Records a group, and tries until that succeeds; returns nothing if told to stop before. The
/// writer's thread wakes the callers that wait, even if this future was dropped because the link
/// was lost.
async fn record(
    group: &Group,
    recorder: &Recorder<'_>,
    liveness: &Liveness,
    stop: &CancellationToken,
) -> Option<()> {
    for batch in &group.batches {
        let write = || {
            let (commits, news) = (recorder.commits.clone(), liveness.news());
            let counts = Arc::clone(recorder.counts);
            let results = !batch.results.is_empty();
            recorder.store.record(Arc::clone(batch), now_ms(), move |tally| {
                counts.recorded(tally, std::time::Instant::now());
                commits.send_if_modified(|count| {
                    *count += u64::from(results);
                    results
                });
                if tally.is_news() {
                    news.send_modify(|count| *count += 1);
                }
            })
        };
        let tally = until_done(stop, write).await?;
        recorder.overlay.ended(&batch.results);
        tracing::debug!(?tally, "recorded results");
    }
    Some(())
}

/// Repeats a write until it succeeds; returns nothing if told to stop before.
async fn until_done<T, W: Future<Output = Result<T, Error>>>(
    stop: &CancellationToken,
    write: impl Fn() -> W,
) -> Option<T> {
    let mut pause = backoff::ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(100))
        .with_max_interval(LONGEST_PAUSE)
        .with_max_elapsed_time(None)
        .build();
    let mut failing = false;
    loop {
        match write().await {
            Ok(done) => {
                if failing {
                    tracing::info!("results are recorded again");
                }
                return Some(done);
            }
            Err(Error::Displaced) => {
                // No other try will do better, and the service ends of it.
                stop.cancelled().await;
                return None;
            }
            Err(error) if !failing => {
                failing = true;
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "results cannot be recorded; they stay with the broker, and are tried again \
                     until they can: is the disk full, or the database locked?"
                );
            }
            Err(error) => tracing::debug!(%error, "results still cannot be recorded"),
        }
        let wait = pause.next_backoff().unwrap_or(LONGEST_PAUSE);
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(wait) => (),
        }
    }
}

#[cfg(test)]
mod tests;
