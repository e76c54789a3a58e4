//! The link's part in messages: it publishes requests and verdicts, and brings messages and
//! answers. Touches no world.
//!
//! Promises that a copy of a request is built when it is published, with what is left of its
//! wait, and not at all once the request is answered; and that at most one of each waits.

use super::letter::{Letter, LetterOrigin};
use super::outgoing::Target;
use super::{Asked, Messages, RequestKey, State, ToPublish};
use clutch_common::wire::{
    Ask, Deliver, Judgement, MessageBody, PostToEndpoint, PostToService, RequestAnswer,
    TargetVerdict, TaskMessage, TaskRequest,
};
use std::time::Duration;
use tokio::time::sleep_until;

/// There is a link, until this is dropped.
pub(crate) struct Linked<'a>(&'a Messages);

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        self.0.set_link(false);
    }
}

impl Messages {
    /// Notes that there is a link.
    pub(crate) fn linked(&self) -> Linked<'_> {
        self.set_link(true);
        Linked(self)
    }

    fn set_link(&self, link: bool) {
        let mut state = self.lock();
        state.link = link;
        state.runs.wake_all();
    }

    /// Takes what comes through the control queue. A message that was delivered before may have
    /// been taken by a process of an earlier run.
    pub(crate) fn take(&self, post: PostToEndpoint, redelivered: bool) {
        match post {
            PostToEndpoint::Deliver(deliver) => self.deliver(deliver, redelivered),
            PostToEndpoint::Answer(answer) => self.answer(answer),
        }
    }

    fn deliver(&self, deliver: Deliver, redelivered: bool) {
        let Deliver { message, copy, source, answer_to, content } = deliver;
        let TaskMessage { to, attempt, addressee, body, wait_ms, mailbox: _ } = content;
        let body = match body.bytes() {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                tracing::warn!(%error, task = %to, "a message to a task cannot be read: dropped");
                return;
            }
        };
        let since = copy.saturating_add(u32::from(redelivered));
        let origin = LetterOrigin::Service { copy, since, answer_to };
        let letter = Letter { id: message, source, to, attempt, addressee, body, origin };
        let mut state = self.lock();
        let verdict = match self.target(&state, to) {
            Target::Here(attempt) => {
                let (now, room) = (self.now(), state.room());
                let until = now.saturating_add(Duration::from_millis(wait_ms));
                let verdict = state.boxes.offer(letter.clone(), attempt, until, room, now);
                state.runs.wake(to);
                verdict
            }
            gone @ (Target::EndedHere(_) | Target::Elsewhere) => {
                match (state.boxes.about(&letter), gone) {
                    (Some(taken @ Judgement::Taken(_)), _) => taken,
                    (_, Target::EndedHere(outcome)) => Judgement::Ended(outcome),
                    (_, Target::Here(_) | Target::Elsewhere) => Judgement::NotHere,
                }
            }
        };
        self.tell(&mut state);
        self.publish_verdict(&mut state, &letter, verdict);
    }

    fn answer(&self, answer: RequestAnswer) {
        let RequestAnswer { request, copy, since, source, answer } = answer;
        let mut state = self.lock();
        if let Some(waits) = state.requests.get_mut(&(source.task_id, request)) {
            waits.outgoing.answered(since..=copy, answer);
            state.runs.wake(source.task_id);
        }
    }

    /// Notes that the broker takes no message as large as this request.
    pub(crate) fn too_large(&self, key: RequestKey) {
        let mut state = self.lock();
        if let Some(request) = state.requests.get_mut(&key) {
            request.outgoing.too_large();
            state.runs.wake(key.0);
        }
    }

    /// Waits until something is to be published, or a message's wait may be over.
    pub(crate) async fn post_ready(&self) {
        loop {
            let due = {
                let (mut state, now) = (self.lock(), self.now());
                state.boxes.pass(now);
                self.tell(&mut state);
                while let Some(held) = state.held.take_due(now) {
                    state.to_publish.push_back(ToPublish::Verdict(held));
                }
                if !state.to_publish.is_empty() {
                    return;
                }
                [state.boxes.due(), state.held.due()].into_iter().flatten().min()
            };
            let over = async {
                match due.and_then(|due| self.began.checked_add(due)) {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.post.notified() => (),
                () = over => (),
            }
        }
    }

    /// Takes the next message to be published.
    pub(crate) fn next_post(&self) -> Option<PostToService> {
        let mut state = self.lock();
        loop {
            match state.to_publish.pop_front()? {
                ToPublish::Verdict(verdict) => return Some(PostToService::Verdict(verdict)),
                ToPublish::Copy(key) => {
                    if let Some(request) = self.copy_of(&mut state, key) {
                        return Some(PostToService::Request(request));
                    }
                }
            }
        }
    }

    /// Takes back a verdict that the broker did not confirm.
    pub(crate) fn put_back(&self, verdict: TargetVerdict) {
        self.lock().to_publish.push_front(ToPublish::Verdict(verdict));
        self.post.notify_one();
    }

    fn copy_of(&self, state: &mut State, key: RequestKey) -> Option<TaskRequest> {
        let request = state.requests.get_mut(&key)?;
        let copy = request.queued.take()?;
        let Some(left) = request.outgoing.until().checked_sub(self.now()) else {
            request.outgoing.not_sent(copy);
            return None;
        };
        let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let ask = match &request.asked {
            Asked::Send { letter, mailbox } => Ask::Send(TaskMessage {
                to: letter.to,
                attempt: letter.attempt,
                addressee: letter.addressee.clone(),
                body: MessageBody::of(&letter.body),
                wait_ms,
                mailbox: *mailbox,
            }),
            Asked::Submit(tasks) => Ask::Submit(tasks.clone()),
            Asked::Outcome(task) => Ask::Outcome { task: *task, wait_ms },
        };
        Some(TaskRequest {
            endpoint_id: self.ledger.endpoint_id,
            state_id: self.ledger.state_id,
            request: key.1,
            copy,
            source: request.source,
            ask,
        })
    }
}
