//! The ResultsQueuePublisher: sends every result in the outbox and releases it
//! once the broker has certainly confirmed it.
//!
//! Promises: a result leaves the outbox only after a confirm that cannot be
//! another message's; results go out in the order in which tasks finished, but for large
//! ones, which wait for one another while small ones go on; results in flight when a link
//! broke are sent again on the next one. The presence message of the instance goes ahead
//! of results, one at a time.
//!
//! Several results share a message when several wait. A result that comes alone is sent
//! at once. After a message with several results, the next one waits a few milliseconds
//! for more unless it is full. Releases are batched in the same way, as no task waits for
//! them.
//!
//! A message that is too large for the broker is divided; a result that is too large by
//! itself is truncated, and says so.

use crate::execution::truncation::truncate_result;
use crate::failpoint::{self, Step};
use crate::link::instance::Instance;
use crate::link::session_error::SessionError;
use crate::pending::ledger::{Ledger, Stored};
use crate::pending::outbox::Next;
use crate::storage::journal::{Finished, OutSeq};
use clutch_common::link::{Destination, Fault, Message, Outlet, Settlement, Ticket};
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::Outcome;
use clutch_common::wire::{self, MAX_BODY, MAX_RESULT, Role};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Most messages open at once (sent, not confirmed).
const WINDOW: usize = 256;
/// Most bytes of results open at once, give or take one message.
const WINDOW_BYTES: usize = 1024 * 1024;
/// The size from which on a result is large, in bytes.
const LARGE: usize = 64 * 1024;
/// Most large results that wait for those before them.
const LARGE_WAITING: usize = 4096;
/// A link that takes longer for one large result gets one at a time.
const SLOW: Duration = Duration::from_secs(2);
/// Most results in one message.
const PACK: usize = 100;
/// Most bytes of results in one message, unless one result alone is larger.
const PACK_BYTES: usize = 128 * 1024;

/// How long a message that is not full waits for more results, after a message with
/// several.
const LINGER: Duration = Duration::from_millis(10);
/// The pause before a result is looked for again that the disk has no room for.
const FULL: Duration = Duration::from_secs(1);
/// How long confirmed results wait to be released together. If the daemon is killed
/// meanwhile, they are sent twice.
const RELEASE_AFTER: Duration = Duration::from_millis(20);
/// Most confirmed results that wait to be released together.
const RELEASE: usize = 512;

type Records = Vec<(OutSeq, Arc<Finished>)>;

/// A presence message that was sent.
struct SentPresence {
    ticket: Ticket,
    role: Role,
    /// How many losses it reports, those before included.
    losses: u64,
    /// How many answered roll calls it reports.
    answers: u64,
    /// Whether the endpoint drains, where it has the instance's details.
    detailed: Option<bool>,
}

/// The publisher of one session.
pub(crate) struct Publisher<'a> {
    outlet: &'a mut dyn Outlet,
    ledger: &'a Ledger,
    destination: &'a Destination,
    instance: &'a Instance,
    /// The presence message that is sent and not confirmed.
    sent_presence: Option<SentPresence>,
    next: OutSeq,
    open: HashMap<Ticket, Records>,
    /// Bytes of open results that are not large.
    open_bytes: usize,
    large: LargeResults,
    resend: Vec<Records>,
    /// Until when a message that is not full waits for more results.
    lingering: Option<Instant>,
    /// Results that are confirmed and not released, and until when they may wait.
    confirmed: Vec<OutSeq>,
    release_at: Option<Instant>,
    releases: FuturesUnordered<Stored>,
}

impl<'a> Publisher<'a> {
    /// Creates a publisher that starts with the oldest result that is not released.
    pub(crate) fn new(
        outlet: &'a mut dyn Outlet,
        ledger: &'a Ledger,
        destination: &'a Destination,
        instance: &'a Instance,
    ) -> Self {
        Self {
            outlet,
            ledger,
            destination,
            instance,
            sent_presence: None,
            next: OutSeq(0),
            open: HashMap::new(),
            open_bytes: 0,
            large: LargeResults::default(),
            resend: Vec::new(),
            lingering: None,
            confirmed: Vec::new(),
            release_at: None,
            releases: FuturesUnordered::new(),
        }
    }

    /// Publishes until `drain` is cancelled and nothing is pending.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub(crate) async fn publish(mut self, drain: &CancellationToken) -> Result<(), SessionError> {
        let ended = self.work(drain).await;
        self.release().await?;
        ended
    }

    async fn work(&mut self, drain: &CancellationToken) -> Result<(), SessionError> {
        loop {
            if self.sent_presence.is_none() && self.instance.presence_due().now_or_never().is_some()
            {
                self.publish_presence().await?;
            }
            let (draining, now) = (drain.is_cancelled(), Instant::now());
            self.lingering = self.lingering.filter(|until| !draining && now < *until);
            let due = self.release_at.is_some_and(|at| at <= now);
            if due || draining || self.confirmed.len() >= RELEASE {
                self.release().await?;
            }
            let room = self.open.len() < WINDOW && self.open_bytes < WINDOW_BYTES;
            if room && let Some(records) = self.take().await? {
                self.send(records).await?;
                continue;
            }
            if draining && room && self.open.is_empty() && self.releases.is_empty() {
                return Ok(());
            }
            let wake = self.release_at.into_iter().chain(self.lingering).min();
            // In this order, so that the same events give the same run. Releases come
            // first, as only settlements make more of them; the rest only wakes.
            tokio::select! {
                biased;
                Some(released) = self.releases.next(), if !self.releases.is_empty() => released?,
                settled = self.outlet.settled() => self.settle(settled?)?,
                () = self.ledger.result_ready(), if room => (),
                () = self.instance.presence_due(), if self.sent_presence.is_none() => self.publish_presence().await?,
                () = drain.cancelled(), if !draining => (),
                () = until(wake), if wake.is_some() => (),
            }
        }
    }

    /// Takes the next records to send, which count as sent from then on.
    async fn take(&mut self) -> Result<Option<Records>, SessionError> {
        if let Some(records) = self.resend.pop() {
            return Ok(Some(records));
        }
        if self.large.has_room()
            && let Some(seq) = self.large.waiting.pop_front()
            && let Some(records) = self.take_large(seq).await?
        {
            return Ok(Some(records));
        }
        while self.large.waiting.len() < LARGE_WAITING {
            let bytes = PACK_BYTES.min(self.room_in_one());
            let records = match self.ledger.results(self.next, PACK, bytes) {
                Next::None => return Ok(None),
                Next::Fresh(records) if self.lingers(&records) => return Ok(None),
                Next::Fresh(records) => records,
                Next::Disk(limit) => {
                    let page = self.ledger.backlog(self.next, PACK, bytes).await?;
                    if page.is_empty() && limit <= self.next {
                        // The disk is full, and the next result is sent only from there.
                        self.lingering = Some(Instant::now() + FULL);
                        return Ok(None);
                    }
                    if page.is_empty() {
                        self.next = limit;
                    }
                    page
                }
            };
            if let Some((last, _)) = records.last() {
                self.next = OutSeq(last.0 + 1);
                if is_large(&records) && !self.large.has_room() {
                    self.large.waiting.push_back(*last);
                    continue;
                }
                self.lingering = (records.len() > 1).then(|| Instant::now() + LINGER);
                return Ok(Some(records));
            }
        }
        Ok(None)
    }

    /// Takes a large result that has waited.
    async fn take_large(&mut self, seq: OutSeq) -> Result<Option<Records>, SessionError> {
        let records = match self.ledger.results(seq, 1, 0) {
            Next::Fresh(records) => records,
            Next::Disk(_) | Next::None => self.ledger.backlog(seq, 1, 0).await?,
        };
        Ok(Some(records).filter(|records| records.iter().any(|(found, _)| *found == seq)))
    }

    /// Whether a message of these records is to wait for more: while there are tasks that
    /// may end meanwhile.
    fn lingers(&self, records: &Records) -> bool {
        let full = records.len() == PACK || size(records) >= PACK_BYTES / 2;
        !full && self.lingering.is_some() && self.ledger.tasks() > 0
    }

    /// Releases the results that are confirmed.
    async fn release(&mut self) -> Result<(), SessionError> {
        self.release_at = None;
        if !self.confirmed.is_empty() {
            failpoint::reach(Step::Release);
            let released = self.ledger.release(std::mem::take(&mut self.confirmed)).await?;
            self.releases.push(released);
        }
        Ok(())
    }

    async fn publish_presence(&mut self) -> Result<(), Fault> {
        let (losses, answers) = (self.instance.losses(), self.instance.answers());
        let Some(presence) = self.instance.presence(self.ledger) else { return Ok(()) };
        let message = Message {
            message_id: Some(Uuid::new_v4().to_string()),
            kind: Some(wire::PRESENCE_TYPE.to_owned()),
            timestamp_ms: Some(now_ms()),
            body: wire::encode_presence(&presence),
            ..Message::default()
        };
        let ticket = self.outlet.publish(self.destination, message).await?;
        let detailed = presence.details.as_ref().map(|details| details.draining);
        self.sent_presence =
            Some(SentPresence { ticket, role: presence.role, losses, answers, detailed });
        Ok(())
    }

    /// Takes the settlement of a presence message. One of the active instance must be
    /// confirmed; one of a standby is sent again later anyway.
    fn presence_settled(
        &self,
        sent_presence: &SentPresence,
        settlement: Settlement,
    ) -> Result<(), Fault> {
        let role = sent_presence.role;
        match settlement {
            Settlement::Confirmed => {
                self.instance.role_confirmed(role);
                self.instance.losses_reported(sent_presence.losses);
                self.instance.answers_reported(sent_presence.answers);
                if let Some(draining) = sent_presence.detailed {
                    self.instance.details_told(draining);
                }
                Ok(())
            }
            Settlement::Returned(reason) => Err(unroutable(&reason)),
            Settlement::Refused if role == Role::Standby => Ok(()),
            Settlement::Refused | Settlement::TooLarge(_) => Err(full()),
            Settlement::Doubt => {
                self.instance.request_presence();
                Ok(())
            }
        }
    }

    async fn send(&mut self, records: Records) -> Result<(), Fault> {
        let bodies: Vec<&[u8]> =
            records.iter().map(|(_, finished)| finished.bytes.as_slice()).collect();
        let (now_ms, disk) = (now_ms(), self.ledger.disk());
        let message = Message {
            message_id: Some(Uuid::new_v4().to_string()),
            correlation_id: match records.as_slice() {
                [(_, only)] => Some(only.attempt.task_id.to_string()),
                _ => None,
            },
            kind: Some(wire::RESULTS_TYPE.to_owned()),
            timestamp_ms: Some(now_ms),
            body: wire::pack_results_of(self.ledger.endpoint_id, disk, now_ms, &bodies),
            ..Message::default()
        };
        if message.body.len() > self.outlet.limit() {
            return self.divide(records);
        }
        failpoint::reach(Step::Publish);
        let ticket = self.outlet.publish(self.destination, message).await?;
        if is_large(&records) {
            self.large.open.insert(ticket, (size(&records), Instant::now()));
        } else {
            self.open_bytes += size(&records);
        }
        self.open.insert(ticket, records);
        Ok(())
    }

    /// Returns how many bytes of results a message may have, as far as is known.
    fn room_in_one(&self) -> usize {
        self.outlet.limit().saturating_sub(MAX_BODY - MAX_RESULT)
    }

    /// Divides results that are too many, or too large, for one message.
    fn divide(&mut self, mut records: Records) -> Result<(), Fault> {
        if records.len() > 1 {
            let rest = records.split_off(records.len() / 2);
            self.resend.extend([rest, records]);
            return Ok(());
        }
        let limit = self.room_in_one();
        let Some((seq, finished)) = records.pop() else { return Ok(()) };
        let bytes = truncated(&finished, limit, self.ledger);
        let (task, size) = (finished.attempt, finished.bytes.len());
        if bytes.len() >= size {
            return Err(Fault::Rejected(format!(
                "the broker takes no message of more than {} bytes, which is too little for any \
                 result",
                self.outlet.limit()
            )));
        }
        tracing::warn!(
            %task,
            size,
            limit,
            "the broker takes no result as large: it is cut, and sent without what it brought \
             beyond that. Tasks should pass large data by file, or the broker's max_message_size \
             be raised"
        );
        let attempt = finished.attempt;
        self.resend.push(vec![(seq, Arc::new(Finished { attempt, bytes }))]);
        Ok(())
    }

    fn settle(&mut self, settled: Vec<(Ticket, Settlement)>) -> Result<(), SessionError> {
        for (ticket, settlement) in settled {
            if let Some(sent_presence) =
                self.sent_presence.take_if(|sent_presence| sent_presence.ticket == ticket)
            {
                self.presence_settled(&sent_presence, settlement)?;
                continue;
            }
            let Some(records) = self.open.remove(&ticket) else { continue };
            if !self.large.settle(ticket) {
                self.open_bytes -= size(&records);
            }
            match settlement {
                Settlement::Confirmed => {
                    self.confirmed.extend(records.iter().map(|(seq, _)| *seq));
                    let results = records.into_iter().map(|(_, result)| result).collect();
                    self.ledger.delivered(results);
                    self.release_at.get_or_insert_with(|| Instant::now() + RELEASE_AFTER);
                }
                Settlement::Doubt => self.resend.push(records),
                Settlement::TooLarge(_) => self.divide(records)?,
                Settlement::Returned(reason) => return Err(unroutable(&reason).into()),
                Settlement::Refused => return Err(full().into()),
            }
        }
        Ok(())
    }
}

/// The large results. On a slow link one takes minutes, and small ones are to be sent in
/// between.
#[derive(Default)]
struct LargeResults {
    /// Large results that are sent and not confirmed: their size, and since when.
    open: HashMap<Ticket, (usize, Instant)>,
    /// Large results that are not sent, in order.
    waiting: VecDeque<OutSeq>,
    /// Whether the last one was confirmed within [`SLOW`].
    fast: bool,
}

impl LargeResults {
    /// Whether another one may be sent.
    fn has_room(&self) -> bool {
        let bytes: usize = self.open.values().map(|(size, _)| size).sum();
        self.open.is_empty() || (self.fast && bytes < WINDOW_BYTES)
    }

    /// Takes the settlement of a message; returns whether it was a large result.
    fn settle(&mut self, ticket: Ticket) -> bool {
        let Some((_, since)) = self.open.remove(&ticket) else { return false };
        self.fast = since.elapsed() < SLOW;
        true
    }
}

fn is_large(records: &Records) -> bool {
    records.len() == 1 && size(records) >= LARGE
}

/// Waits until an instant; for ever if there is none.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Encodes a result with no more bytes than a limit.
fn truncated(finished: &Finished, limit: usize, ledger: &Ledger) -> Vec<u8> {
    let result = wire::decode_result(&finished.bytes).unwrap_or_else(|error| {
        let reason =
            format!("its result cannot be read, and is too large to be sent as it is: {error}");
        ledger.not_run(finished.attempt, Outcome::Failed, reason)
    });
    wire::encode_result(&truncate_result(result, limit))
}

fn unroutable(reason: &str) -> Fault {
    Fault::Missing(format!("no queue takes results ({reason})"))
}

fn full() -> Fault {
    Fault::Rejected("the results queue is full".to_owned())
}

fn size(records: &Records) -> usize {
    records.iter().map(|(_, finished)| finished.bytes.len()).sum()
}

#[cfg(test)]
mod tests;
