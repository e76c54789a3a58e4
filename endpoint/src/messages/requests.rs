//! The requests of a task on its socket. Touches no world; waits for what it is asked to wait for.
//!
//! Promises that each request ends with an answer in time, also when its run ends meanwhile,
//! and that a request which is given up leaves nothing behind but a message in a mailbox here,
//! for the rest of its wait.

use super::letter::{Letter, LetterOrigin};
use super::mailbox::{Given, Hold, Moment, Wanted};
use super::outgoing::{Known, NextStep, Outgoing, SendEnd, Target};
use super::runs::REQUESTS_MAX;
use super::token::Token;
use super::{Asked, Messages, Request, RequestKey, State, ToPublish, rules};
use crate::pending::stop::{StopReason, StopSignal};
use clutch_common::id::{Attempt, TaskId};
use clutch_common::system::clock::now_ms;
use clutch_common::task::Task;
use clutch_common::task::json::Json;
use clutch_common::wire::{Judgement, MessageWait};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};
use uuid::Uuid;

/// The shortest wait of a sender: a receiver that waits gets the message within it.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A request was not done: its run has ended, or has too many requests open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The token is of no run that goes on.
    #[error(
        "the token is of no attempt that runs here: it is worth nothing outside its attempt, and \
         after the end of that. A worker's call names its task in the header Clutch-Task"
    )]
    BadToken,
    /// Too many requests are open.
    #[error("{REQUESTS_MAX} requests of this task are open: one has to end before the next")]
    TooMany,
}

/// A run that a request is of.
pub(crate) struct Caller {
    messages: Arc<Messages>,
    /// The attempt.
    pub(crate) attempt: Attempt,
    /// When the run began, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    stop: StopSignal,
    changed: Arc<Notify>,
}

/// An open request, until this is dropped.
pub(crate) struct OpenRequest<'a>(&'a Caller);

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.0.messages.lock().runs.get_mut(self.0.attempt) {
            run.open = run.open.saturating_sub(1);
        }
    }
}

/// A message that a task sends.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    /// The target.
    pub(crate) to: TaskId,
    /// The attempt of it that alone may take the message.
    pub(crate) attempt: Option<u32>,
    /// The addressee.
    pub(crate) addressee: String,
    /// The bytes.
    pub(crate) body: Arc<[u8]>,
    /// The message's id, where the task chose it.
    pub(crate) id: Option<Uuid>,
    /// How long to wait for the target to take it.
    pub(crate) wait: Duration,
    /// Whether the service is to keep it.
    pub(crate) mailbox: bool,
}

/// How long a receiver may have a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HoldFor {
    /// As long as its connection is open.
    Connection,
    /// For a time.
    Span(Duration),
}

impl Messages {
    /// Finds the run that a token is of; a worker's call names its task.
    pub(crate) fn caller(
        self: &Arc<Self>,
        token: Token,
        named: Option<TaskId>,
    ) -> Result<Caller, RequestError> {
        let state = self.lock();
        let run = state.runs.of(token, named).ok_or(RequestError::BadToken)?;
        Ok(Caller {
            messages: Arc::clone(self),
            attempt: run.attempt,
            since_ms: run.since_ms,
            stop: run.stop.clone(),
            changed: Arc::clone(&run.changed),
        })
    }
}

impl Caller {
    /// Opens a request that may wait; so many of a run may be open.
    pub(crate) fn open(&self) -> Result<OpenRequest<'_>, RequestError> {
        let mut state = self.messages.lock();
        let run = state.runs.get_mut(self.attempt).ok_or(RequestError::BadToken)?;
        if run.open >= REQUESTS_MAX {
            return Err(RequestError::TooMany);
        }
        run.open += 1;
        Ok(OpenRequest(self))
    }

    /// The task.
    pub(crate) fn task(&self) -> Result<Arc<Task>, RequestError> {
        self.messages.ledger.find_attempt(self.attempt).ok_or(RequestError::BadToken)
    }

    /// Sends a message, and waits until a process of its target has taken it.
    pub(crate) async fn send(&self, sending: Sending) -> Result<(Uuid, SendEnd), RequestError> {
        let source = self.task()?;
        let messages = &self.messages;
        let target = messages.ledger.find(sending.to);
        let why = match &target {
            Some(target) => rules::forbids(messages.rule, &source, target),
            None => rules::closed(messages.rule),
        };
        // A repetition may follow an earlier message with the same id: its copies are later.
        let copy = sending.id.map_or(1, |_| u32::try_from(now_ms() / 1000).unwrap_or(u32::MAX));
        let id = sending.id.unwrap_or_else(Uuid::new_v4);
        if let Some(why) = why {
            return Ok((id, SendEnd::Forbidden(why.into())));
        }
        let letter = Letter {
            id,
            source: self.attempt,
            to: sending.to,
            attempt: sending.attempt,
            addressee: sending.addressee,
            body: sending.body,
            origin: LetterOrigin::Here,
        };
        let wait = MessageWait {
            since_ms: now_ms(),
            addressees: vec![letter.addressee.clone()],
            to: Some(sending.to),
            from: None,
        };
        let _open = (!sending.mailbox).then(|| self.open_wait(wait));
        let asked = Asked::Send { letter, mailbox: sending.mailbox };
        Ok((id, self.ask(id, asked, copy, sending.wait).await?))
    }

    /// Has the service submit tasks as children of this one. `key` makes repetitions one
    /// submission.
    pub(crate) async fn submit(
        &self,
        key: Option<Uuid>,
        tasks: Json,
        wait: Duration,
    ) -> Result<SendEnd, RequestError> {
        let id = key.unwrap_or_else(Uuid::new_v4);
        self.ask(id, Asked::Submit(tasks), 1, wait).await
    }

    /// Asks for the outcome of a task, and waits for it.
    pub(crate) async fn outcome(
        &self,
        of: TaskId,
        wait: Duration,
    ) -> Result<SendEnd, RequestError> {
        self.ask(Uuid::new_v4(), Asked::Outcome(of), 1, wait).await
    }

    async fn ask(
        &self,
        id: Uuid,
        asked: Asked,
        copy: u32,
        wait: Duration,
    ) -> Result<SendEnd, RequestError> {
        let messages = &self.messages;
        let until = messages.now() + wait.clamp(SHORTEST, LONGEST);
        let key = (self.attempt.task_id, id);
        let Some(_joined) = messages.join(key, self.attempt, asked, copy, until) else {
            return Ok(SendEnd::NoRoom);
        };
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let mut withdrawn = pin!(messages.ledger.withdrawn());
            withdrawn.as_mut().enable();
            let until = match messages.step(key) {
                Some(NextStep::End(end)) => return Ok(end),
                Some(NextStep::Wait(until)) => until,
                Some(NextStep::Offer(_) | NextStep::Publish(_)) | None => messages.now(),
            };
            self.still_runs()?;
            tokio::select! {
                biased;
                () = changed => (),
                () = withdrawn => (),
                () = sleep_until(messages.began + until) => (),
            }
        }
    }

    fn open_wait(&self, wait: MessageWait) -> OpenWait<'_> {
        let number = self.messages.lock().waits.add(self.attempt, wait);
        OpenWait { messages: &self.messages, number }
    }

    fn still_runs(&self) -> Result<(), RequestError> {
        let goes_on = self.messages.lock().runs.get(self.attempt).is_some();
        goes_on.then_some(()).ok_or(RequestError::BadToken)
    }

    /// Waits for a message; `None` if none comes in time.
    pub(crate) async fn receive(
        &self,
        wanted: &Wanted,
        within: Option<Duration>,
        hold: HoldFor,
    ) -> Result<Option<Given>, RequestError> {
        let messages = &self.messages;
        let last = messages.now() + within.unwrap_or(LONGEST).min(LONGEST);
        let mut open = None;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            self.still_runs()?;
            let (given, due) = messages.give(self.attempt, wanted, hold);
            if given.is_some() {
                return Ok(given);
            }
            if messages.now() >= last {
                return Ok(None);
            }
            open.get_or_insert_with(|| {
                self.open_wait(MessageWait {
                    since_ms: now_ms(),
                    addressees: wanted.addressees.clone(),
                    to: None,
                    from: wanted.from,
                })
            });
            let until = due.map_or(last, |due| due.min(last));
            tokio::select! {
                biased;
                () = changed => (),
                () = sleep_until(messages.began + until) => (),
            }
        }
    }

    /// Takes what it was given. Returns whether it had that.
    pub(crate) fn acknowledge(&self, delivery: u64) -> bool {
        let (messages, Attempt { task_id, attempt }) = (&self.messages, self.attempt);
        let mut state = messages.lock();
        let had = state.boxes.acknowledge(task_id, attempt, delivery, messages.now());
        messages.tell(&mut state);
        had
    }

    /// Gives back what it was given. Returns whether it had that.
    pub(crate) fn give_back(&self, delivery: u64) -> bool {
        self.messages.give_back(self.attempt.task_id, delivery)
    }

    /// Waits until the task is to end; `None` if that does not come in time.
    pub(crate) async fn stopped(&self, within: Option<Duration>) -> Option<StopReason> {
        match within {
            Some(within) => timeout(within.min(LONGEST), self.stop.wait()).await.ok(),
            None => Some(self.stop.wait().await),
        }
    }
}

/// A send or a receive that is open, until this is dropped.
struct OpenWait<'a> {
    messages: &'a Messages,
    number: u64,
}

impl Drop for OpenWait<'_> {
    fn drop(&mut self) {
        self.messages.lock().waits.remove(self.number);
    }
}

/// A caller of a request, until this is dropped.
struct Joined<'a> {
    messages: &'a Messages,
    key: RequestKey,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut state = self.messages.lock();
        let Some(request) = state.requests.get_mut(&self.key) else { return };
        request.joined -= 1;
        if request.joined == 0 {
            state.bytes -= state.requests.remove(&self.key).map_or(0, |gone| gone.counted);
        }
    }
}

impl Messages {
    /// Begins a request, or joins the one that has its id. `None` if there is no room.
    fn join(
        &self,
        key: RequestKey,
        source: Attempt,
        asked: Asked,
        copy: u32,
        until: Moment,
    ) -> Option<Joined<'_>> {
        let mut state = self.lock();
        if let Some(request) = state.requests.get_mut(&key) {
            request.joined += 1;
            request.outgoing.extend(until);
        } else {
            let size = asked.size();
            if size > state.room() {
                return None;
            }
            state.bytes += size;
            let outgoing = Outgoing::new(until, copy, size);
            let (joined, counted, queued) = (1, size, None);
            let request = Request { source, asked, outgoing, joined, counted, queued };
            state.requests.insert(key, request);
        }
        Some(Joined { messages: self, key })
    }

    /// Does what is to be done for a request, and returns what remains: its end, or a wait.
    fn step(&self, key: RequestKey) -> Option<NextStep> {
        let mut state = self.lock();
        let state = &mut *state;
        loop {
            let known = self.known(state, key)?;
            let request = state.requests.get_mut(&key)?;
            match request.outgoing.step(&known) {
                NextStep::Offer(attempt) => {
                    let Asked::Send { letter, .. } = &request.asked else { return None };
                    let (letter, until) = (letter.clone(), request.outgoing.until());
                    // Its bytes are counted once, as the mailbox has them as well.
                    state.bytes -= std::mem::take(&mut request.counted);
                    let (to, room) = (letter.to, state.room());
                    state.boxes.offer(letter, attempt, until, room, known.now);
                    state.runs.wake(to);
                    self.tell(state);
                }
                NextStep::Publish(copy) => {
                    if request.counted == 0 {
                        request.counted = request.asked.size();
                        state.bytes += request.counted;
                    }
                    match request.queued.replace(copy) {
                        Some(before) => request.outgoing.not_sent(before),
                        None => state.to_publish.push_back(ToPublish::Copy(key)),
                    }
                    self.post.notify_one();
                }
                step @ (NextStep::Wait(_) | NextStep::End(_)) => return Some(step),
            }
        }
    }

    fn known(&self, state: &mut State, key: RequestKey) -> Option<Known> {
        let (now, link) = (self.now(), state.link);
        let request = state.requests.get(&key)?;
        let nowhere = Known { now, target: Target::Elsewhere, link, mailbox: None };
        let (letter, mailbox) = match &request.asked {
            Asked::Send { letter, mailbox } => (letter, *mailbox),
            Asked::Submit(_) | Asked::Outcome(_) => return Some(nowhere),
        };
        if mailbox {
            return Some(nowhere);
        }
        let target = self.target(state, letter.to);
        state.boxes.pass(now);
        let mut known = Known { now, target, link, mailbox: state.boxes.about(letter) };
        let is_lost = known.mailbox == Some(Judgement::Held)
            && !matches!(target, Target::Here(_))
            && request.outgoing.is_with_mailbox();
        if is_lost {
            let to = letter.to;
            state.boxes.gone(to);
            known.mailbox = Some(Judgement::NotHere);
        }
        self.tell(state);
        Some(known)
    }

    /// Gives a message to a receiver; if there is none, returns when there may be one that
    /// another receiver has held for too long.
    fn give(
        &self,
        receiver: Attempt,
        wanted: &Wanted,
        hold: HoldFor,
    ) -> (Option<Given>, Option<Moment>) {
        let mut state = self.lock();
        let now = self.now();
        let hold = match hold {
            HoldFor::Connection => Hold::Connection,
            HoldFor::Span(span) => Hold::Until(now + span.min(LONGEST)),
        };
        let Attempt { task_id, attempt } = receiver;
        let given = state.boxes.give(task_id, attempt, wanted, hold, now);
        self.tell(&mut state);
        (given, state.boxes.due())
    }

    /// Takes back what a receiver was given. Returns whether it had that.
    pub(crate) fn give_back(&self, task: TaskId, delivery: u64) -> bool {
        let mut state = self.lock();
        let had = state.boxes.give_back(task, delivery, self.now());
        state.runs.wake(task);
        self.tell(&mut state);
        had
    }
}
