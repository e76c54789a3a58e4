//! Takes results, and what instances say of themselves, from the broker, records
//! them, and acknowledges them once that is on disk. Whoever waits for a result is
//! told as soon as it is recorded: what a power cut undoes then, the broker still
//! has. Results that come twice are counted; messages that cannot be read go to
//! the dead-letter queue.

use crate::broker::anomalies::AnomalyCounters;
use crate::failover::Liveness;
use crate::store::{Batch, Error, PresenceMessage, Store};
use backoff::backoff::Backoff as _;
use clutch_common::id::StateId;
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

/// How many messages the broker may have under way to us: each may take
/// megabytes.
const PREFETCH: u16 = 32;
/// How many messages are recorded in one transaction.
const GROUP: usize = 32;
/// How many bytes of them are read, and recorded, before the next are, one message
/// more or less: read, they take as much again.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// How many results are recorded in one transaction.
const RESULTS_PER_TRANSACTION: usize = 2000;
/// How many recorded messages may wait for a sync, and for how long: a submission that
/// is recorded meanwhile syncs for them as well, and nobody waits for it.
const UNSETTLED: usize = 16;
/// See [`UNSETTLED`].
const SETTLE_AFTER: Duration = Duration::from_millis(5);
/// The longest pause before the database is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How the collector consumes.
#[must_use]
pub(crate) fn inlet_options() -> InletOptions {
    InletOptions {
        queue: topology::RESULTS_QUEUE.to_owned(),
        prefetch: PREFETCH,
        lease: Some(topology::SERVICE_LEASE.to_owned()),
    }
}

/// Where it records.
pub(crate) struct Recorder<'a> {
    /// The records.
    pub(crate) store: &'a Store,
    /// Bumped after each transaction with results.
    pub(crate) commits: &'a watch::Sender<u64>,
    /// Counts what is not an outcome of a task.
    pub(crate) counts: &'a Arc<AnomalyCounters>,
}

/// Collects until told to stop. `liveness` hears who sent something.
///
/// # Errors
/// The fault that ended the connection; what was not acknowledged comes again.
pub(crate) async fn collect(
    mut inlet: Box<dyn Inlet>,
    recorder: &Recorder<'_>,
    liveness: &Liveness,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut open = Open::default();
    loop {
        let deliveries = tokio::select! {
            biased;
            () = stop.cancelled() => return open.settle(recorder, inlet.as_mut(), stop).await,
            deliveries = inlet.receive(GROUP) => deliveries?,
            () = tokio::time::sleep_until(open.due), if open.messages > 0 => {
                open.settle(recorder, inlet.as_mut(), stop).await?;
                continue;
            }
        };
        let mut deliveries = VecDeque::from(deliveries);
        while !deliveries.is_empty() {
            let part = part(&mut deliveries);
            let messages = part.len();
            let group = Group::read(part);
            liveness.record_heard(&group.states(), Instant::now());
            if record(&group, recorder, liveness, stop).await.is_none() {
                return Ok(());
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

/// What is recorded and not acknowledged.
struct Open {
    messages: usize,
    groups: Vec<Tags>,
    /// Until when that may wait.
    due: Instant,
}

impl Default for Open {
    fn default() -> Self {
        Self { messages: 0, groups: Vec::new(), due: Instant::now() }
    }
}

impl Open {
    fn add(&mut self, messages: usize, tags: Tags) {
        if self.messages == 0 {
            self.due = Instant::now() + SETTLE_AFTER;
        }
        self.messages += messages;
        self.groups.push(tags);
    }

    /// Acknowledges all of it once it is on disk, unless told to stop before that.
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
        for tags in self.groups.drain(..) {
            tags.settle(inlet, recorder.counts).await?;
        }
        Ok(())
    }
}

/// The first of the deliveries, as many as are read at once.
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

/// Deliveries, read.
#[derive(Default)]
struct Group {
    /// What is to be recorded, a transaction each, in order.
    batches: Vec<Arc<Batch>>,
    /// Messages that the service sent to itself, by their ids.
    barriers: Vec<String>,
    tags: Tags,
}

/// Deliveries, to be settled.
#[derive(Default)]
struct Tags {
    /// Those with something in them that could not be read.
    unreadable: Vec<(Tag, Vec<Reason>)>,
    /// Control messages that are passed by.
    unknown: Vec<UnknownControl>,
    /// The last one.
    last: Option<Tag>,
}

impl Tags {
    /// Sets aside what could not be read, and acknowledges the rest.
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
    fn read(deliveries: Vec<Delivery>) -> Self {
        let mut group = Self::default();
        let (mut results, mut presences, mut lost) = (Vec::new(), Vec::new(), false);
        let mut commits = BTreeMap::new();
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
                    presences.push(PresenceMessage { presence, message, commits });
                }
                ToService::Ping => {
                    group.barriers.push(delivery.message.message_id.unwrap_or_default());
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
        group.batches = batches(results, Batch { presences, lost, commits, ..Batch::default() });
        group
    }

    /// The states that something came from.
    fn states(&self) -> BTreeSet<StateId> {
        let mut states = BTreeSet::new();
        for batch in &self.batches {
            states.extend(batch.results.iter().filter_map(|result| result.state_id));
            states.extend(batch.presences.iter().map(|one| one.presence.state_id));
        }
        states
    }
}

/// Whether a message says that it is of the endpoint whose key it was published with:
/// a broker may keep each endpoint to its own. What was put into the queue by name is the
/// service's, or an operator's.
fn is_from_its_sender(key: Option<&str>, content: &ToService) -> Result<(), String> {
    let Some(key) = key else { return Ok(()) };
    let says = match content {
        ToService::Results(results) => results.endpoint,
        ToService::Presence(presence) => Some(presence.endpoint_id),
        ToService::Ping => None,
        ToService::Unknown(_) => return Ok(()),
    };
    // What cannot be read at all says nothing that could be false.
    let unread = matches!(content, ToService::Results(results) if results.endpoint.is_none());
    if unread || says.is_some_and(|endpoint| key == topology::results_key(endpoint)) {
        return Ok(());
    }
    Err(format!("it was published with the routing key '{key}', which is not that of its endpoint"))
}

/// Results in parts of which each is one transaction. What was sent before a
/// presence is recorded before it.
fn batches(results: Vec<TaskResult>, last: Batch) -> Vec<Arc<Batch>> {
    let whole = results.len().saturating_sub(1) / RESULTS_PER_TRANSACTION;
    let mut results = results.into_iter();
    let mut batches: Vec<Batch> = (0..whole)
        .map(|_| results.by_ref().take(RESULTS_PER_TRANSACTION).collect())
        .map(|results| Batch { results, ..Batch::default() })
        .collect();
    let results: Vec<TaskResult> = results.collect();
    if !results.is_empty() || !last.presences.is_empty() || last.lost {
        batches.push(Batch { results, ..last });
    }
    batches.into_iter().map(Arc::new).collect()
}

/// Records what came, trying for as long as it takes; nothing if told to stop before
/// that is done. Whoever waits is told by whoever commits: that happens though nobody
/// waits here any more, as when the link is lost meanwhile.
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
        tracing::debug!(?tally, "recorded results");
    }
    Some(())
}

/// Tries what writes to the database for as long as it takes; nothing if told to
/// stop before that is done.
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
mod tests {
    use super::*;
    use crate::model::Anomalies;
    use crate::store::conformance::store;
    use crate::stub_broker::{Broker, result};
    use clutch_common::link::Message;
    use clutch_common::task::result::Outcome;

    async fn collect_all(broker: &Broker, store: &Store) -> Anomalies {
        let (commits, counts) = (watch::channel(0).0, Arc::default());
        let recorder = Recorder { store, commits: &commits, counts: &counts };
        let liveness = Liveness::new(watch::channel(0).0);
        let stop = CancellationToken::new();
        let collecting = collect(broker.inlet(), &recorder, &liveness, &stop);
        let stopping = async {
            while broker.acknowledged().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        };
        assert_eq!(tokio::join!(collecting, stopping).0, Ok(()));
        counts.read()
    }

    #[tokio::test]
    async fn results_are_acknowledged_after_they_are_recorded_and_the_unreadable_set_aside() {
        let (_temp, store) = store().await;
        let broker = Broker::default().patient();
        let ours = result(Outcome::Succeeded);
        broker.deliver(b"{}".to_vec());
        let packed = wire::pack_results(ours.endpoint_id, &[wire::encode_result(&ours)]);
        broker.deliver(packed.clone());
        broker.deliver(packed);
        broker.deliver(b"nonsense".to_vec());
        let counted = collect_all(&broker, &store).await;
        let expected =
            Anomalies { unknown: 1, foreign: 1, dead_lettered: 2, ..Anomalies::default() };
        assert_eq!(counted, expected);
        assert_eq!(broker.dead_lettered(), [Tag(1), Tag(4)]);
        assert_eq!(broker.acknowledged(), [Tag(4)]);
        let detail = store.task(ours.task_id).await.unwrap().unwrap();
        assert_eq!((detail.results.len(), detail.results[0].duplicates), (1, 1));
    }

    #[tokio::test]
    async fn a_control_message_of_a_later_version_is_counted_and_acknowledged() {
        let (_temp, store) = store().await;
        let broker = Broker::default().patient();
        broker.deliver_message(Message {
            body: br#"{"version":2,"type":"clutch.presence"}"#.to_vec(),
            routing_key: Some(topology::results_key(clutch_common::id::EndpointId::new())),
            ..Message::default()
        });
        broker.deliver(br#"{"version":1,"type":"clutch.progress","percent":50}"#.to_vec());
        broker.deliver(br#"{"version":2,"type":"clutch.results","results":[]}"#.to_vec());
        let counted = collect_all(&broker, &store).await;
        let expected = Anomalies { passed_by: 2, dead_lettered: 1, ..Anomalies::default() };
        assert_eq!(counted, expected);
        assert_eq!(broker.dead_lettered(), [Tag(3)]);
    }

    #[tokio::test]
    async fn what_was_published_with_the_key_of_another_endpoint_is_set_aside() {
        let (_temp, store) = store().await;
        let broker = Broker::default().patient();
        let ours = result(Outcome::Succeeded);
        let body = wire::pack_results(ours.endpoint_id, &[wire::encode_result(&ours)]);
        let other = clutch_common::id::EndpointId::new();
        let key = Some(topology::results_key(other));
        for body in [body.clone(), wire::encode_ping()] {
            broker.deliver_message(Message {
                body,
                routing_key: key.clone(),
                ..Message::default()
            });
        }
        let own = Some(topology::results_key(ours.endpoint_id));
        let forged = TaskResult { endpoint_id: other, ..ours.clone() };
        let mixed = wire::pack_results(ours.endpoint_id, &[wire::encode_result(&forged)]);
        for body in [mixed, body] {
            broker.deliver_message(Message {
                body,
                routing_key: own.clone(),
                ..Message::default()
            });
        }
        collect_all(&broker, &store).await;
        assert_eq!(broker.dead_lettered(), [Tag(1), Tag(2), Tag(3)]);
        let detail = store.task(ours.task_id).await.unwrap().unwrap();
        assert_eq!(detail.results[0].duplicates, 0);
    }

    #[test]
    fn many_results_are_recorded_in_parts_that_take_what_they_need() {
        let one = result(Outcome::Succeeded);
        let batches = batches(vec![one; 9 * RESULTS_PER_TRANSACTION + 1], Batch::default());
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.results.len()).collect();
        assert_eq!(sizes, [&[RESULTS_PER_TRANSACTION; 9][..], &[1]].concat());
        let room: usize = batches.iter().map(|batch| batch.results.capacity()).sum();
        assert!(room < 11 * RESULTS_PER_TRANSACTION, "room for {room} results");
    }

    #[tokio::test]
    async fn what_is_damaged_is_refused_once_all_that_is_unanswered_is_in_doubt() {
        let (_temp, store) = store().await;
        let endpoint = crate::store::conformance::submitted_task(&store).await;
        let broker = Broker::default().patient();
        let ours = result(Outcome::Succeeded);
        broker.deliver_message(Message {
            body: wire::pack_results(ours.endpoint_id, &[wire::encode_result(&ours)]),
            damage: Some("its checksum does not hold".to_owned()),
            ..Message::default()
        });
        collect_all(&broker, &store).await;
        assert_eq!(broker.dead_lettered(), [Tag(1)]);
        assert!(store.task(ours.task_id).await.unwrap().is_none(), "a damaged value is recorded");
        assert_eq!(store.endpoints_to_ask().await.unwrap(), [endpoint]);
    }

    #[tokio::test]
    async fn a_locked_database_delays_the_acknowledgement_and_loses_nothing() {
        let (temp, store) = store().await;
        store.close().await;
        let broker = Broker::default().patient();
        let ours = result(Outcome::Failed);
        broker.deliver(wire::pack_results(ours.endpoint_id, &[wire::encode_result(&ours)]));
        let (commits, counts) = (watch::channel(0).0, Arc::default());
        let recorder = Recorder { store: &store, commits: &commits, counts: &counts };
        let liveness = Liveness::new(watch::channel(0).0);
        let stop = CancellationToken::new();
        let collecting = collect(broker.inlet(), &recorder, &liveness, &stop);
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(collecting, stopping);
        assert_eq!(ended, Ok(()));
        assert_eq!(broker.acknowledged(), []);
        let store = Store::open(&crate::state_folder::StateFolder::new(temp.path())).await.unwrap();
        collect_all(&broker, &store).await;
        assert_eq!(broker.acknowledged(), [Tag(1)]);
        assert!(store.task(ours.task_id).await.unwrap().is_some());
    }
}
