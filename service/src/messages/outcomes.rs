//! Questions that wait for the outcome of a task: of tasks that ask for it, and for verdicts of
//! targets that have ended and may run again.
//!
//! Touches the records. Promises: it sleeps while no question is open; open questions cost one
//! look into the records when results were recorded, at most every [`LOOK`]; their number is
//! bounded, and a question that is lost is asked again by the endpoint that waits.

use super::decision::by_records;
use super::outbox::Outbox;
use crate::store::{Store, StoredState, TaskFacts};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::task::json::Json;
use clutch_common::wire::{Reply, RequestAnswer};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

/// The most questions that are open.
const MAX_OPEN: usize = 10_000;
/// The shortest pause between two looks, and how many times longer than a look it is.
const LOOK: (Duration, u32) = (Duration::from_millis(20), 10);

/// A question that waits.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The endpoint to answer.
    pub(super) endpoint: EndpointId,
    /// The answer when the time is over.
    pub(super) at_last: RequestAnswer,
    /// The task with the outcome that is waited for.
    pub(super) task: TaskId,
    /// The attempt that the sender of a message named.
    pub(super) pinned: Option<u32>,
    /// When the time is over.
    pub(super) until: Instant,
}

impl Question {
    /// Whether the whole task is to be told, and not what became of a message to it.
    fn asks_for_all(&self) -> bool {
        self.at_last.answer == Reply::NotEnded
    }

    /// The reply that the records give by now; nothing if the question stays open.
    fn reply(&self, facts: Option<&TaskFacts>, now: Instant) -> Option<Reply> {
        let known = if self.asks_for_all() {
            match facts.map(|facts| facts.state) {
                None => Some(Reply::Unknown),
                // The record of the task itself takes its place.
                Some(StoredState::Done(outcome)) => Some(Reply::Finished(outcome)),
                Some(_) => None,
            }
        } else {
            Some(by_records(facts, self.pinned)).filter(|reply| *reply != Reply::NotStarted)
        };
        known.or_else(|| (now >= self.until).then(|| self.at_last.answer.clone()))
    }
}

/// The open questions, by the id of their request.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<Uuid, Question>);

impl Questions {
    /// Opens a question; one with the same id stays, with its end.
    fn ask(&mut self, question: Question) {
        if self.0.len() < MAX_OPEN {
            self.0.entry(question.at_last.request).or_insert(question);
        }
    }

    fn tasks(&self) -> BTreeSet<TaskId> {
        self.0.values().map(|question| question.task).collect()
    }

    fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|question| question.until).min()
    }

    /// Takes the questions that can be answered.
    fn answered(
        &mut self,
        facts: &BTreeMap<TaskId, TaskFacts>,
        now: Instant,
    ) -> Vec<(Question, Reply)> {
        let mut answered = Vec::new();
        self.0.retain(|_, question| match question.reply(facts.get(&question.task), now) {
            Some(reply) => {
                answered.push((question.clone(), reply));
                false
            }
            None => true,
        });
        answered
    }
}

/// Answers questions until the session ends.
pub(super) async fn answer(
    store: &Store,
    outbox: &Outbox,
    mut asked: mpsc::Receiver<Question>,
    mut commits: watch::Receiver<u64>,
) {
    let mut open = Questions::default();
    let (mut look_at, mut not_before) = (None, Instant::now());
    loop {
        let next = [look_at, open.next_end()].into_iter().flatten().min();
        let next = next.map(|next| next.max(not_before));
        tokio::select! {
            question = asked.recv() => match question {
                Some(question) => {
                    open.ask(question);
                    look_at = Some(not_before);
                }
                None => return,
            },
            changed = commits.changed(), if look_at.is_none() && !open.0.is_empty() => {
                if changed.is_err() {
                    return;
                }
                look_at = Some(not_before);
            }
            () = tokio::time::sleep_until(next.unwrap_or(not_before)), if next.is_some() => {
                let begun = Instant::now();
                look_at = None;
                commits.mark_unchanged();
                look(store, outbox, &mut open).await;
                not_before = Instant::now() + LOOK.0.max(begun.elapsed() * LOOK.1);
            }
        }
    }
}

/// Answers what can be answered.
async fn look(store: &Store, outbox: &Outbox, open: &mut Questions) {
    let facts = match store.task_facts(open.tasks()).await {
        Ok(facts) => facts,
        Err(error) => return tracing::debug!(%error, "the outcomes of tasks cannot be looked up"),
    };
    for (question, reply) in open.answered(&facts, Instant::now()) {
        let reply = if matches!(reply, Reply::Finished(_)) && question.asks_for_all() {
            whole(store, question.task).await
        } else {
            reply
        };
        let answer = RequestAnswer { answer: reply, ..question.at_last };
        outbox.answer(question.endpoint, answer, None).await;
    }
}

/// A task that has its outcome, as the service's API shows it.
async fn whole(store: &Store, task: TaskId) -> Reply {
    match store.task(task).await {
        Ok(Some(detail)) => Json::of(&detail).map_or(Reply::NotEnded, Reply::Ended),
        Ok(None) => Reply::Unknown,
        Err(_) => Reply::NotEnded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::Attempt;
    use clutch_common::task::kinship::Kin;
    use clutch_common::task::result::Outcome;

    fn question(id: u128, task: TaskId, answer: Reply, until: Instant) -> Question {
        let source = Attempt { task_id: TaskId::new(), attempt: 1 };
        let at_last =
            RequestAnswer { request: Uuid::from_u128(id), copy: 1, since: 1, source, answer };
        Question { endpoint: EndpointId::new(), at_last, task, pinned: None, until }
    }

    fn facts(task: TaskId, state: StoredState, attempt: u32) -> BTreeMap<TaskId, TaskFacts> {
        let kin = Kin { task, group: 0, parent: None };
        let endpoint = EndpointId::new();
        BTreeMap::from([(task, TaskFacts { seq: 1, kin, endpoint, state, attempt })])
    }

    #[test]
    fn a_question_is_answered_by_an_outcome_or_at_its_end_and_once() {
        let (task, now) = (TaskId::new(), Instant::now());
        let later = now + Duration::from_secs(1);
        let open = facts(task, StoredState::Submitted, 1);
        let ended = facts(task, StoredState::Done(Outcome::Failed), 1);
        let finished = Reply::Finished(Outcome::Failed);
        for at_last in [Reply::NotEnded, Reply::NotStarted] {
            let mut questions = Questions::default();
            questions.ask(question(1, task, at_last.clone(), later));
            questions.ask(question(1, task, at_last.clone(), later + Duration::from_secs(9)));
            questions.ask(question(2, task, at_last.clone(), later));
            assert_eq!(questions.next_end(), Some(later));
            assert!(questions.answered(&open, now).is_empty());
            let mut pinned = question(3, task, at_last.clone(), later);
            pinned.pinned = Some(1);
            questions.ask(pinned);
            let replies: Vec<Reply> =
                questions.answered(&ended, now).into_iter().map(|(_, reply)| reply).collect();
            assert_eq!(replies, vec![finished.clone(); 3]);
            assert!(questions.0.is_empty());
            questions.ask(question(1, task, at_last.clone(), later));
            assert_eq!(questions.answered(&open, later)[0].1, at_last);
        }
    }

    #[test]
    fn a_target_that_runs_again_supersedes_the_attempt_that_was_named() {
        let (task, now) = (TaskId::new(), Instant::now());
        let mut asked = question(1, task, Reply::NotStarted, now + Duration::from_secs(1));
        assert_eq!(asked.reply(facts(task, StoredState::Paused, 2).get(&task), now), None);
        asked.pinned = Some(1);
        let reply = asked.reply(facts(task, StoredState::Paused, 2).get(&task), now);
        assert_eq!(reply, Some(Reply::Superseded(2)));
        assert_eq!(asked.reply(None, now), Some(Reply::Unknown), "it is forgotten");
    }
}
