//! Messages between tasks, and what else a running task asks for: the endpoint's side
//! (`design/0020-messages.md`).
//!
//! [`Messages`] is one lock around pure state: [`mailbox`] has the messages that wait here,
//! [`outgoing`] decides what becomes of one that a task sends, `runs` knows the runs and their
//! tokens. `requests` is what a task's socket asks of it, `post` is what the link does for it.
//! All of it is in memory: what a crash loses, the sender sends again, or is told of.
//!
//! Promises that a run which sends and receives nothing costs two short locks, and an idle
//! endpoint nothing.

mod held;
pub(crate) mod letter;
pub(crate) mod mailbox;
pub(crate) mod outgoing;
pub(crate) mod post;
pub(crate) mod requests;
mod rules;
pub(crate) mod runs;
pub(crate) mod token;
mod waits;

use crate::pending::ledger::Ledger;
use crate::pending::stop::StopSignal;
use clutch_common::id::{Attempt, TaskId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::json::Json;
use clutch_common::task::kinship::MessageRule;
use clutch_common::task::result::Outcome;
use clutch_common::wire::{Judgement, MessageWait, TargetVerdict};
use held::HeldVerdicts;
use letter::{Letter, LetterOrigin};
use mailbox::{Mailboxes, Moment};
use outgoing::{Outgoing, Target};
use runs::{Bearer, Runs, WorkerNumber};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use token::Token;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;
use waits::OpenWaits;

/// The most bytes of messages that wait at the endpoint, on either side.
pub(crate) const ENDPOINT_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The messages of an endpoint's tasks.
pub(crate) struct Messages {
    ledger: Arc<Ledger>,
    rule: MessageRule,
    /// The beginning of all moments.
    began: Instant,
    state: Mutex<State>,
    /// Wakes the publisher.
    post: Notify,
}

/// The identity of a request: the task that asks, and the request's id.
type RequestKey = (TaskId, Uuid);

/// The matter of a request.
#[derive(Debug)]
enum Asked {
    /// A message is to be delivered; and kept by the service, where that is asked for.
    Send { letter: Letter, mailbox: bool },
    /// Tasks are to be submitted.
    Submit(Json),
    /// The outcome of a task is to be told.
    Outcome(TaskId),
}

impl Asked {
    fn size(&self) -> usize {
        match self {
            Self::Send { letter, .. } => letter.body.len(),
            Self::Submit(tasks) => tasks.text().len(),
            Self::Outcome(_) => 0,
        }
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Request {
    source: Attempt,
    asked: Asked,
    outgoing: Outgoing,
    /// How many callers wait for it: repetitions join it.
    joined: usize,
    /// How many bytes of it are counted here.
    counted: usize,
    /// The copy of it that is to be published.
    queued: Option<u32>,
}

/// A message that is to be published.
#[derive(Debug)]
enum ToPublish {
    /// A copy of a request, if that still waits.
    Copy(RequestKey),
    /// A verdict.
    Verdict(TargetVerdict),
}

#[derive(Default)]
struct State {
    boxes: Mailboxes,
    runs: Runs,
    requests: HashMap<RequestKey, Request>,
    /// How many bytes the requests have.
    bytes: usize,
    to_publish: VecDeque<ToPublish>,
    held: HeldVerdicts,
    /// Whether there is a link to the service.
    link: bool,
    /// The sends and receives that are open.
    waits: OpenWaits,
}

impl State {
    /// How many more bytes may wait.
    fn room(&self) -> usize {
        ENDPOINT_BYTES_MAX.saturating_sub(self.bytes + self.boxes.bytes())
    }
}

impl Messages {
    /// Creates it, without a link.
    pub(crate) fn new(ledger: Arc<Ledger>, rule: MessageRule) -> Self {
        let state = Mutex::default();
        Self { ledger, rule, began: Instant::now(), state, post: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// The sends and receives of tasks here that are open.
    pub(crate) fn open_waits(&self) -> BTreeMap<Attempt, Vec<MessageWait>> {
        self.lock().waits.by_attempt()
    }

    /// Where a task is. One with a run that has ended is in the ledger until its result is.
    fn target(&self, state: &State, task: TaskId) -> Target {
        let ended = state.runs.ended(task);
        match (self.ledger.find(task), ended) {
            (Some(found), Some((attempt, outcome))) if found.attempt <= attempt => {
                Target::EndedHere(outcome)
            }
            (Some(found), _) => Target::Here(found.attempt),
            (None, Some((_, outcome))) => Target::EndedHere(outcome),
            (None, None) => Target::Elsewhere,
        }
    }

    /// Tells the verdicts that there are: to senders here, and for the others to the service.
    fn tell(&self, state: &mut State) {
        for (letter, verdict) in state.boxes.take_told() {
            match letter.origin {
                LetterOrigin::Here => state.runs.wake(letter.source.task_id),
                LetterOrigin::Service { .. } => self.publish_verdict(state, &letter, verdict),
            }
        }
    }

    fn publish_verdict(&self, state: &mut State, letter: &Letter, verdict: Judgement) {
        let LetterOrigin::Service { copy, since, answer_to } = letter.origin else { return };
        let told = TargetVerdict {
            endpoint_id: self.ledger.endpoint_id,
            state_id: self.ledger.state_id,
            message: letter.id,
            copy,
            since,
            source: letter.source,
            answer_to,
            to: letter.to,
            attempt: letter.attempt,
            verdict,
        };
        if verdict == Judgement::Held {
            state.held.add(letter.key(), told, self.now());
        } else {
            state.held.forget(&letter.key());
            state.to_publish.push_back(ToPublish::Verdict(told));
        }
        self.post.notify_one();
    }

    /// Begins the run of an attempt, which gets a token of its own.
    pub(crate) fn begin(self: &Arc<Self>, attempt: Attempt, stop: &StopSignal) -> OpenRun {
        self.begin_by(attempt, stop, Bearer::Run)
    }

    /// Begins the call that a worker has.
    pub(crate) fn begin_call(
        self: &Arc<Self>,
        attempt: Attempt,
        stop: &StopSignal,
        worker: &WorkerToken,
    ) -> OpenRun {
        self.begin_by(attempt, stop, Bearer::Worker(worker.number))
    }

    fn begin_by(self: &Arc<Self>, attempt: Attempt, stop: &StopSignal, bearer: Bearer) -> OpenRun {
        let token = self.lock().runs.begin(attempt, stop.clone(), bearer, now_ms());
        OpenRun { messages: Arc::clone(self), attempt, token, outcome: None }
    }

    fn end(&self, attempt: Attempt, outcome: Option<Outcome>) {
        let mut state = self.lock();
        let went_on = state.runs.end(attempt, outcome);
        if went_on && !state.boxes.is_idle() {
            state.boxes.ended(attempt.task_id, attempt.attempt, outcome, self.now());
            self.tell(&mut state);
        }
    }

    /// Makes a token for a new worker.
    pub(crate) fn add_worker(self: &Arc<Self>) -> WorkerToken {
        let (number, token) = self.lock().runs.add_worker();
        WorkerToken { messages: Arc::clone(self), number, token }
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// A run that goes on, until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenRun {
    messages: Arc<Messages>,
    attempt: Attempt,
    /// Its token, where it has one of its own.
    pub(crate) token: Option<Token>,
    outcome: Option<Outcome>,
}

impl OpenRun {
    /// Ends the run with the task's outcome, which is none where the task waits again.
    pub(crate) fn over(mut self, outcome: Option<Outcome>) {
        self.outcome = outcome;
    }
}

impl Drop for OpenRun {
    fn drop(&mut self) {
        self.messages.end(self.attempt, self.outcome);
    }
}

/// The token of a worker, until this is dropped.
#[derive(Debug)]
pub(crate) struct WorkerToken {
    messages: Arc<Messages>,
    number: WorkerNumber,
    /// The token.
    pub(crate) token: Token,
}

impl Drop for WorkerToken {
    fn drop(&mut self) {
        self.messages.lock().runs.remove_worker(self.token);
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
