//! Routes messages between tasks: looks up the tasks, has the decision made, and does what
//! follows from it.
//!
//! Touches the records and control queues. Promises: messages are routed in the order in which
//! the collector handed them over, a group of them with one look into the records.

use super::Rules;
use super::backlog::Backlog;
use super::children::{Birth, Nursery};
use super::decision::{self, Sending, VerdictEffect};
use super::kept::{Keeper, KeptNote};
use super::mail::Mail;
use super::outbox::{Asker, Outbox};
use super::outcomes::{self, Question};
use super::posts::{DoneSignal, Incoming};
use crate::publishing::Publisher;
use crate::store::{Store, TaskFacts};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::link::{Connection, Fault};
use clutch_common::task::kinship::MessageRule;
use clutch_common::topology;
use clutch_common::wire::{
    Ask, Deliver, PostToEndpoint, PostToService, Reply, RequestAnswer, TargetVerdict, TaskMessage,
    TaskRequest,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many requests may wait for the parts beside the router.
const WAITING: usize = 256;
/// How long the result of a target that has ended may take until its sender asks again.
const RESULT_PATIENCE: Duration = Duration::from_secs(2);
/// The longest wait for an outcome, in milliseconds.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;
/// How often the control queue of an endpoint without verdicts is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the broker may take to tell about a queue.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// The parts that messages are routed with.
pub(crate) struct RouterParts<'a> {
    /// The records.
    pub(crate) store: &'a Store,
    /// The way to publish.
    pub(crate) publisher: Publisher,
    /// The connection to look at queues by.
    pub(crate) connection: &'a dyn Connection,
    /// The rules.
    pub(crate) rules: &'a Rules,
    /// Bumped when results were recorded.
    pub(crate) commits: watch::Receiver<u64>,
    /// Where submissions run that outlive the session.
    pub(crate) submissions: &'a TaskTracker,
    /// The note of kept messages that other parts share.
    pub(crate) mail: &'a Mail,
}

/// The facts about the tasks of a group of messages.
type Facts = BTreeMap<TaskId, TaskFacts>;

/// Routes the messages of one session.
pub(crate) struct Router<'a> {
    store: &'a Store,
    connection: &'a dyn Connection,
    rules: &'a Rules,
    outbox: Outbox,
    questions: mpsc::Sender<Question>,
    births: mpsc::Sender<Birth>,
    kept: mpsc::Sender<KeptNote>,
    backlog: Backlog,
    /// When the queues of endpoints without verdicts were looked at last.
    looked: BTreeMap<EndpointId, Instant>,
}

impl<'a> Router<'a> {
    /// Routes until told to stop.
    ///
    /// # Errors
    /// Never: a message that cannot be routed is asked for again by its endpoint.
    pub(crate) async fn run(
        parts: RouterParts<'a>,
        posts: mpsc::Receiver<Vec<Incoming>>,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let RouterParts { store, publisher, connection, rules, commits, .. } = parts;
        let RouterParts { submissions, mail, .. } = parts;
        let (outbox, unconfirmed) = Outbox::new(publisher);
        let (questions, asked) = mpsc::channel(WAITING);
        let (births, born) = mpsc::channel(WAITING);
        let (kept, notes) = mpsc::channel(WAITING);
        let (ends, sent) = (commits.clone(), BTreeMap::new());
        let mut keeper = Keeper { store, outbox: &outbox, connection, mail, sent };
        let nursery = Nursery { store, outbox: &outbox, rules, submissions };
        let mut router = Self {
            store,
            connection,
            rules,
            outbox: outbox.clone(),
            questions,
            births,
            kept,
            backlog: Backlog::default(),
            looked: BTreeMap::new(),
        };
        let routing = async {
            tokio::join!(
                router.route(posts),
                outbox.confirm(unconfirmed),
                outcomes::answer(store, &outbox, asked, commits),
                nursery.record(born),
                keeper.work(notes, ends),
            )
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => (),
            _ = routing => stop.cancelled().await,
        }
        Ok(())
    }

    async fn route(&mut self, mut posts: mpsc::Receiver<Vec<Incoming>>) {
        while let Some(group) = posts.recv().await {
            let tasks = self.tasks(&group);
            let looked_up = if tasks.is_empty() {
                Ok(Facts::new())
            } else {
                self.store.task_facts(tasks).await
            };
            let facts = match looked_up {
                Ok(facts) => facts,
                Err(error) => {
                    tracing::warn!(%error, "messages between tasks are left to their next copies");
                    continue;
                }
            };
            for Incoming { post, done } in group {
                match post {
                    PostToService::Request(request) => self.request(request, &facts, done).await,
                    PostToService::Verdict(verdict) => self.verdict(&verdict, &facts, done).await,
                }
            }
        }
    }

    async fn request(&mut self, mut request: TaskRequest, facts: &Facts, done: DoneSignal) {
        let source = facts.get(&request.source.task_id);
        // What is asked for may be large, and is not copied.
        let nothing = Ask::Outcome { task: request.source.task_id, wait_ms: 0 };
        match std::mem::replace(&mut request.ask, nothing) {
            Ask::Send(message) => self.send(&request, message, facts, done).await,
            Ask::Submit(asked) => match (decision::refused(&request, source), source) {
                (None, Some(parent)) => {
                    let birth = Birth { request, asked, parent: *parent, done };
                    // One for which there is no room is asked for again.
                    drop(self.births.try_send(birth));
                }
                (refused, _) => {
                    let reply = refused.unwrap_or(Reply::Unknown);
                    self.answer(&request, reply, done).await;
                }
            },
            Ask::Outcome { task, wait_ms } => {
                self.outcome(&request, task, wait_ms, facts, done).await;
            }
        }
    }

    async fn send(
        &mut self,
        request: &TaskRequest,
        message: TaskMessage,
        facts: &Facts,
        done: DoneSignal,
    ) {
        let source = facts.get(&request.source.task_id);
        let target = facts.get(&message.to);
        if message.mailbox {
            return self.keep(request, message, facts, done).await;
        }
        let sending = decision::send(request, &message, self.rules.messages, source, target);
        match sending {
            Sending::Answer(reply) => self.answer(request, reply, done).await,
            Sending::Deliver { to, if_gone } => {
                let deliver = PostToEndpoint::Deliver(Deliver {
                    message: request.request,
                    copy: request.copy,
                    source: request.source,
                    answer_to: Some(request.endpoint_id),
                    content: message,
                });
                let body = deliver.encode();
                if !self.has_room(to, body.len()).await {
                    // A further copy may be held there, and is asked for again.
                    if request.copy == 1 {
                        self.answer(request, Reply::NoRoom, done).await;
                    }
                    return;
                }
                self.backlog.sent(to, request.request, request.copy, body.len());
                let answer = answer_to(request, if_gone);
                let asker = Some(Asker { endpoint: request.endpoint_id, answer });
                self.outbox.publish_encoded(to, (deliver.kind(), body), asker, Some(done)).await;
            }
        }
    }

    async fn keep(
        &self,
        request: &TaskRequest,
        message: TaskMessage,
        facts: &Facts,
        done: DoneSignal,
    ) {
        let source = facts.get(&request.source.task_id);
        let target = facts.get(&message.to);
        let rule = self.rules.messages;
        match decision::keep(request, &message, rule, source, target) {
            Err(reply) => self.answer(request, reply, done).await,
            Ok(target) => {
                let (request, target) = (request.clone(), *target);
                // One for which there is no room is asked for again.
                drop(self.kept.try_send(KeptNote::Keep { request, message, target, done }));
            }
        }
    }

    async fn outcome(
        &self,
        request: &TaskRequest,
        task: TaskId,
        wait_ms: u64,
        facts: &Facts,
        done: DoneSignal,
    ) {
        let source = facts.get(&request.source.task_id);
        if let Some(refused) = decision::refused(request, source) {
            return self.answer(request, refused, done).await;
        }
        let (Some(source), Some(target)) = (source, facts.get(&task)) else {
            return self.answer(request, Reply::Unknown, done).await;
        };
        let anyone = self.rules.messages == MessageRule::Any;
        if !anyone && !source.kin.is_related(&target.kin) {
            let words = "the task is not related to the one that asks";
            return self.answer(request, decision::forbidden(words), done).await;
        }
        let question = Question {
            endpoint: request.endpoint_id,
            at_last: answer_to(request, Reply::NotEnded),
            task,
            pinned: None,
            until: Instant::now() + Duration::from_millis(wait_ms.min(LONGEST_MS)),
        };
        // One for which there is no room is asked for again.
        drop(self.questions.try_send(question));
    }

    async fn verdict(&mut self, verdict: &TargetVerdict, facts: &Facts, done: DoneSignal) {
        self.backlog.judged(verdict.endpoint_id, verdict.message, verdict.copy);
        let Some(endpoint) = verdict.answer_to else {
            let (verdict, target) = (verdict.clone(), facts.get(&verdict.to).copied());
            // Another copy has another verdict.
            drop(self.kept.try_send(KeptNote::Verdict { verdict, target, done }));
            return;
        };
        let answer = |answer| RequestAnswer {
            request: verdict.message,
            copy: verdict.copy,
            since: verdict.since,
            source: verdict.source,
            answer,
        };
        match decision::verdict(verdict, facts.get(&verdict.to)) {
            VerdictEffect::Answer(reply) => {
                self.outbox.answer(endpoint, answer(reply), Some(done)).await;
            }
            VerdictEffect::AwaitResult => {
                let question = Question {
                    endpoint,
                    at_last: answer(Reply::NotStarted),
                    task: verdict.to,
                    pinned: verdict.attempt,
                    until: Instant::now() + RESULT_PATIENCE,
                };
                drop(self.questions.try_send(question));
            }
            VerdictEffect::Nothing => tracing::warn!(
                endpoint = %verdict.endpoint_id,
                task = %verdict.to,
                "a verdict does not count: its endpoint was not given the task"
            ),
        }
    }

    async fn answer(&self, request: &TaskRequest, reply: Reply, done: DoneSignal) {
        self.outbox.answer(request.endpoint_id, answer_to(request, reply), Some(done)).await;
    }

    /// The tasks that have to be looked up for messages.
    fn tasks(&self, group: &[Incoming]) -> BTreeSet<TaskId> {
        let mut tasks = BTreeSet::new();
        for Incoming { post, .. } in group {
            match post {
                PostToService::Request(request) => {
                    tasks.insert(request.source.task_id);
                    match &request.ask {
                        Ask::Send(message) => tasks.insert(message.to),
                        Ask::Outcome { task, .. } => tasks.insert(*task),
                        Ask::Submit(_) => false,
                    };
                }
                PostToService::Verdict(verdict) if self.is_known(verdict) => (),
                PostToService::Verdict(verdict) => {
                    tasks.insert(verdict.to);
                }
            }
        }
        tasks
    }

    /// Whether a verdict is about a message that this router sent to its endpoint, and needs no
    /// look into the records.
    fn is_known(&self, verdict: &TargetVerdict) -> bool {
        let TargetVerdict { endpoint_id, message, copy, .. } = *verdict;
        verdict.answer_to.is_some()
            && decision::is_by_endpoint_alone(verdict.verdict)
            && self.backlog.has_sent(endpoint_id, message, copy)
    }

    /// Whether an endpoint may be sent a message of so many bytes.
    async fn has_room(&mut self, to: EndpointId, bytes: usize) -> bool {
        if self.backlog.has_room(to, bytes) {
            return true;
        }
        let now = Instant::now();
        if self.looked.get(&to).is_some_and(|looked| now < *looked + LOOK_EVERY) {
            return false;
        }
        self.looked.retain(|_, looked| now < *looked + LOOK_EVERY);
        self.looked.insert(to, now);
        let (queue, lease) = (topology::control_queue(to), topology::lease_queue(to));
        let look = tokio::time::timeout(LOOK_PATIENCE, self.connection.look(&queue, &lease)).await;
        let is_empty = matches!(look, Ok(Ok(sight)) if sight.waiting == 0);
        if is_empty {
            self.backlog.clear(to);
        } else {
            tracing::debug!(endpoint = %to, "messages wait for an endpoint: it is sent no more");
        }
        is_empty
    }
}

/// The answer to a request.
fn answer_to(request: &TaskRequest, answer: Reply) -> RequestAnswer {
    let TaskRequest { request, copy, source, .. } = request;
    RequestAnswer { request: *request, copy: *copy, since: *copy, source: *source, answer }
}
