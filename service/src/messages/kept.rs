//! Keeps messages for tasks that take them later, and has them delivered.
//!
//! Touches the records and control queues. Promises: a message is on disk before its sender is
//! told that it is kept; it is sent to the endpoint of its target when it is recorded, when that
//! tells that the target runs, when the outcome of the target is recorded, and every
//! [`EVERY`], until there is a verdict; while none is kept there is no timer.

use super::PATIENCE;
use super::decision::{self, VerdictEffect, by_records};
use super::mail::Mail;
use super::outbox::Outbox;
use super::posts::DoneSignal;
use crate::publishing::{PublishError, control_message};
use crate::store::{
    Keeping, KeptMessage, MessageEnd, NewMessage, Store, StoredState, TaskFacts, WhichKept,
};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::link::{Connection, Fault};
use clutch_common::system::clock::now_ms;
use clutch_common::topology;
use clutch_common::wire::{
    Deliver, MessageBody, PostToEndpoint, Reply, RequestAnswer, TargetVerdict, TaskMessage,
    TaskRequest,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

/// How often a message that is kept is sent.
const EVERY: Duration = Duration::from_secs(30);
/// How long the endpoint holds one that was sent: until it is sent again, and a while longer.
const HELD_FOR: Duration = Duration::from_secs(45);
/// The shortest pause between two times that one is sent, unless its target has come to run.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an endpoint may give no verdict of a message to a task with an outcome, until the
/// records count.
const VERDICT_PATIENCE: Duration = Duration::from_secs(120);
/// The most messages that are kept.
const MAX_KEPT: u64 = 10_000;
/// How many messages are read at once.
const PAGE: usize = 100;
/// How many messages, and how many bytes of them, an endpoint is sent in one round.
const AT_ONCE: (usize, usize) = (200, 32 * 1024 * 1024);
/// How long the broker may take to tell about a queue.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// Something about kept messages.
pub(super) enum KeptNote {
    /// A message is to be kept.
    Keep {
        /// The request, without the message.
        request: TaskRequest,
        /// The message.
        message: TaskMessage,
        /// The facts about its target.
        target: TaskFacts,
        /// Tells that the request is done.
        done: DoneSignal,
    },
    /// An endpoint has given a verdict.
    Verdict {
        /// The verdict.
        verdict: TargetVerdict,
        /// The facts about the target; nothing if it is not known.
        target: Option<TaskFacts>,
        /// Tells that the verdict is done.
        done: DoneSignal,
    },
}

/// Keeps and delivers messages in one session.
pub(super) struct Keeper<'a> {
    /// The records.
    pub(super) store: &'a Store,
    /// The way to control queues.
    pub(super) outbox: &'a Outbox,
    /// The connection to look at queues by.
    pub(super) connection: &'a dyn Connection,
    /// The note of kept messages that other parts share.
    pub(super) mail: &'a Mail,
    /// When messages were sent last, and how often.
    pub(super) sent: BTreeMap<Uuid, SentCopies>,
}

/// How often a message was sent in this session.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentCopies {
    last: Instant,
    copies: u32,
    /// Since when its target is known to have its outcome.
    ended: Option<Instant>,
}

impl Keeper<'_> {
    /// Works until the session ends.
    pub(super) async fn work(
        &mut self,
        mut notes: mpsc::Receiver<KeptNote>,
        mut commits: watch::Receiver<u64>,
    ) {
        self.count().await;
        let mut next_round = Instant::now();
        let mut next_look = Instant::now();
        loop {
            let any = self.mail.is_kept();
            tokio::select! {
                note = notes.recv() => match note {
                    Some(note) => {
                        if !any {
                            next_round = Instant::now() + EVERY;
                        }
                        self.note(note).await;
                    }
                    None => return,
                },
                running = self.mail.running(), if any => self.run(running).await,
                () = tokio::time::sleep_until(next_round), if any => {
                    self.count().await;
                    self.round(WhichKept::All, PAUSE).await;
                    next_round = Instant::now() + EVERY;
                }
                changed = recorded(&mut commits, next_look), if any => {
                    if changed.is_err() {
                        return;
                    }
                    self.round(WhichKept::ToEnded, PAUSE).await;
                    next_look = Instant::now() + Duration::from_secs(1);
                }
            }
        }
    }

    async fn count(&mut self) {
        match self.store.count_kept().await {
            Ok(count) => {
                self.mail.set_kept(count);
                if count == 0 {
                    self.sent.clear();
                }
            }
            Err(error) => tracing::debug!(%error, "kept messages cannot be counted"),
        }
    }

    async fn note(&mut self, note: KeptNote) {
        match note {
            KeptNote::Keep { request, message, target, done } => {
                // Without a reply a further copy asks again.
                let Some(reply) = self.keep(&request, message, &target).await else { return };
                let is_kept = reply == Reply::Kept;
                let TaskRequest { endpoint_id, request, copy, source, .. } = request;
                let answer = RequestAnswer { request, copy, since: copy, source, answer: reply };
                self.outbox.answer(endpoint_id, answer, Some(done)).await;
                if is_kept {
                    self.round(WhichKept::To(target.seq), PAUSE).await;
                }
            }
            KeptNote::Verdict { verdict, target, done } => {
                let told = decision::verdict(&verdict, target.as_ref());
                if let Some(end) = end_of(&told) {
                    self.end(verdict.message, end).await;
                }
                drop(done);
            }
        }
    }

    async fn keep(
        &mut self,
        request: &TaskRequest,
        message: TaskMessage,
        target: &TaskFacts,
    ) -> Option<Reply> {
        if self.mail.kept() >= MAX_KEPT {
            return Some(Reply::NoRoom);
        }
        let body = match message.body.bytes() {
            Ok(bytes) => bytes,
            Err(error) => return Some(Reply::Refused(error.into())),
        };
        let new = NewMessage {
            id: request.request,
            source: request.source,
            task: target.seq,
            pinned: message.attempt,
            addressee: message.addressee,
            body,
        };
        let other = "its id is that of another message: choose another one";
        match self.store.keep_message(new, now_ms()).await {
            Ok(Keeping::New) => {
                self.mail.set_kept(self.mail.kept() + 1);
                Some(Reply::Kept)
            }
            Ok(Keeping::Known) => Some(Reply::Kept),
            Ok(Keeping::NoRoom) => Some(Reply::NoRoom),
            Ok(Keeping::OtherMessage) => Some(Reply::Refused(other.into())),
            Err(crate::store::Error::Conflict(_)) => Some(Reply::Unknown),
            Err(error) => {
                tracing::warn!(%error, "a message cannot be kept; its sender asks again");
                None
            }
        }
    }

    async fn end(&mut self, message: Uuid, end: MessageEnd) {
        match self.store.end_message(message, end, now_ms()).await {
            Ok(was_kept) => {
                self.sent.remove(&message);
                if was_kept {
                    self.mail.set_kept(self.mail.kept().saturating_sub(1));
                }
            }
            // It is sent again, and there is a verdict again.
            Err(error) => tracing::debug!(%error, "the end of a message cannot be recorded"),
        }
    }

    /// Sends what is kept for tasks that have come to run.
    async fn run(&mut self, running: BTreeSet<TaskId>) {
        let facts = match self.store.task_facts(running).await {
            Ok(facts) => facts,
            Err(error) => return tracing::debug!(%error, "tasks that run cannot be looked up"),
        };
        for target in facts.values() {
            self.round(WhichKept::To(target.seq), Duration::ZERO).await;
        }
    }

    /// Sends messages, none that was sent less than a pause ago, and to each endpoint as many as
    /// go at once.
    async fn round(&mut self, which: WhichKept, pause: Duration) {
        let mut after = 0;
        let mut rooms: BTreeMap<EndpointId, (usize, usize)> = BTreeMap::new();
        loop {
            let page = match self.store.kept_messages(which, after, PAGE).await {
                Ok(page) => page,
                Err(error) => return tracing::debug!(%error, "kept messages cannot be read"),
            };
            let Some(last) = page.last() else { return };
            after = last.n;
            for message in page {
                let is_due =
                    self.sent.get(&message.id).is_none_or(|sent| sent.last.elapsed() >= pause);
                if is_due && may_be_taken(&message.target) {
                    self.send_within(message, &mut rooms).await;
                }
            }
        }
    }

    /// Sends a message if its endpoint has room in this round.
    async fn send_within(
        &mut self,
        message: KeptMessage,
        rooms: &mut BTreeMap<EndpointId, (usize, usize)>,
    ) {
        let endpoint = message.target.endpoint;
        let (messages, bytes) = match rooms.get(&endpoint) {
            Some(room) => *room,
            None if self.is_read(endpoint).await => AT_ONCE,
            None => (0, 0),
        };
        if messages == 0 || bytes == 0 {
            rooms.insert(endpoint, (0, 0));
            return self.wait_for_verdict(message).await;
        }
        rooms.insert(endpoint, (messages - 1, bytes.saturating_sub(message.body.len())));
        self.send(message).await;
    }

    /// Whether nothing waits in an endpoint's control queue, so that an endpoint which is away
    /// finds the messages of one round at most.
    async fn is_read(&self, endpoint: EndpointId) -> bool {
        let (queue, lease) = (topology::control_queue(endpoint), topology::lease_queue(endpoint));
        let look = tokio::time::timeout(LOOK_PATIENCE, self.connection.look(&queue, &lease)).await;
        match look {
            // To be sent, so that the broker says that there is no queue.
            Ok(Err(Fault::Missing(_))) => true,
            Ok(Ok(sight)) => sight.waiting == 0,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Sends one message, and records its end where the endpoint is no more.
    async fn send(&mut self, message: KeptMessage) {
        let KeptMessage { id, source, pinned, target, .. } = &message;
        let (id, pinned, target) = (*id, *pinned, *target);
        let copies = self.note_sent(id, &target);
        let deliver = PostToEndpoint::Deliver(Deliver {
            message: id,
            copy: copies,
            source: *source,
            answer_to: None,
            content: TaskMessage {
                to: target.kin.task,
                attempt: pinned,
                addressee: message.addressee,
                body: MessageBody::of(&message.body),
                wait_ms: u64::try_from(HELD_FOR.as_millis()).unwrap_or(u64::MAX),
                mailbox: true,
            },
        });
        let queue = topology::control_queue(target.endpoint);
        let post = control_message(deliver.kind(), deliver.encode());
        let outcome = self.outbox.publisher().begin(queue, post).await;
        if let Ok(Err(PublishError::Returned(_))) = tokio::time::timeout(PATIENCE, outcome).await
            && let Some(end) = end_of(&VerdictEffect::Answer(by_records(Some(&target), pinned)))
        {
            self.end(id, end).await;
        }
    }

    /// Notes that a message is sent; returns the number of the copy.
    fn note_sent(&mut self, id: Uuid, target: &TaskFacts) -> u32 {
        let now = Instant::now();
        let sent = self.sent.entry(id).or_insert(SentCopies { last: now, copies: 0, ended: None });
        sent.last = now;
        sent.copies += 1;
        if matches!(target.state, StoredState::Done(_)) {
            sent.ended.get_or_insert(now);
        }
        sent.copies
    }

    /// Records the end of a message to a task with an outcome, at an endpoint that is away for long.
    async fn wait_for_verdict(&mut self, message: KeptMessage) {
        let KeptMessage { id, pinned, target, .. } = message;
        if !matches!(target.state, StoredState::Done(_)) {
            return;
        }
        let now = Instant::now();
        let sent = self.sent.entry(id).or_insert(SentCopies { last: now, copies: 0, ended: None });
        if sent.ended.get_or_insert(now).elapsed() < VERDICT_PATIENCE {
            return;
        }
        if let Some(end) = end_of(&VerdictEffect::Answer(by_records(Some(&target), pinned))) {
            self.end(id, end).await;
        }
    }
}

/// Waits until results were recorded, and a moment has come.
async fn recorded(
    commits: &mut watch::Receiver<u64>,
    not_before: Instant,
) -> Result<(), watch::error::RecvError> {
    commits.changed().await?;
    tokio::time::sleep_until(not_before).await;
    Ok(())
}

/// Whether a process of a task may take a message, or may have.
fn may_be_taken(target: &TaskFacts) -> bool {
    match target.state {
        StoredState::Submitting | StoredState::Submitted | StoredState::Done(_) => true,
        StoredState::Scheduled
        | StoredState::InTopic
        | StoredState::Waiting
        | StoredState::Paused => false,
    }
}

/// The end that follows for a message from what its sender would be told; nothing while it may
/// be taken yet.
fn end_of(told: &VerdictEffect) -> Option<MessageEnd> {
    match told {
        VerdictEffect::Answer(Reply::Delivered(attempt)) => Some(MessageEnd::Taken(*attempt)),
        VerdictEffect::Answer(Reply::Superseded(attempt)) => Some(MessageEnd::Superseded(*attempt)),
        VerdictEffect::Answer(Reply::Finished(outcome)) => Some(MessageEnd::Ended(*outcome)),
        VerdictEffect::Answer(_) | VerdictEffect::AwaitResult | VerdictEffect::Nothing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::task::result::Outcome;

    #[test]
    fn a_message_is_kept_until_it_is_taken_or_cannot_be_any_more() {
        let told = |reply| end_of(&VerdictEffect::Answer(reply));
        assert_eq!(told(Reply::Delivered(2)), Some(MessageEnd::Taken(2)));
        assert_eq!(told(Reply::Superseded(3)), Some(MessageEnd::Superseded(3)));
        let ended = MessageEnd::Ended(Outcome::Failed);
        assert_eq!(told(Reply::Finished(Outcome::Failed)), Some(ended));
        for reply in [Reply::Held, Reply::NotListening, Reply::NoRoom, Reply::NotStarted] {
            assert_eq!(told(reply), None);
        }
        assert_eq!(
            (end_of(&VerdictEffect::AwaitResult), end_of(&VerdictEffect::Nothing)),
            (None, None)
        );
    }
}
