//! The handle by which the service publishes: tasks, with the broker's answers recorded, and
//! single messages. Tasks share messages; where the broker takes no message that large, each of
//! its tasks is published alone.

use super::packing::{self, Packed, Part};
use super::urgent::{self, UrgentSender};
use super::window::PublishOutcome;
use super::{AnswerRecorder, PublishError, PublishJob, to_queue};
use crate::store::{Error, HandOver, Handed, RecordedTask};
use clutch_common::id::{EndpointId, TaskId};
use clutch_common::link::{Destination, Message};
use clutch_common::system::clock::now_ms;
use clutch_common::task::priority::Priority;
use clutch_common::topology;
use std::ops::Range;
use tokio::sync::{mpsc, oneshot};

/// A recorded task to publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// Its row.
    pub(super) seq: i64,
    pub(super) attempt: u32,
    pub(super) id: TaskId,
    /// The task as it travels.
    pub(super) body: &'a str,
    /// Whether a copy may be at the broker.
    pub(super) hand_over: HandOver,
    pub(super) priority: Priority,
}

impl<'a> From<&'a RecordedTask> for Outgoing<'a> {
    fn from(recorded: &'a RecordedTask) -> Self {
        let RecordedTask { seq, task, body, hand_over, .. } = recorded;
        let hand_over = hand_over.unwrap_or(HandOver::Again);
        let (attempt, id, priority) = (task.attempt, task.id, task.priority);
        Self { seq: *seq, attempt, id, body, hand_over, priority }
    }
}

impl<'a> From<&'a Handed> for Outgoing<'a> {
    fn from(Handed { seq, task, body, hand_over }: &'a Handed) -> Self {
        let (attempt, id, priority) = (task.attempt, task.id, task.priority);
        Self { seq: *seq, attempt, id, body, hand_over: *hand_over, priority }
    }
}

/// Publishes over the link that it was made for. Clones share it.
#[derive(Clone)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<PublishJob>,
    answers: AnswerRecorder,
    urgent: Option<UrgentSender>,
}

impl Publisher {
    /// A handle for the window that takes these jobs.
    pub(crate) fn new(jobs: mpsc::Sender<PublishJob>, answers: AnswerRecorder) -> Self {
        Self { jobs, answers, urgent: None }
    }

    /// The handle, which has urgent tasks sent ahead as well.
    pub(crate) fn with_urgent(self, urgent: UrgentSender) -> Self {
        Self { urgent: Some(urgent), ..self }
    }

    /// Publishes a message to a queue, and waits for the broker's answer.
    ///
    /// # Errors
    /// Why the broker does not have it, or may not have it.
    pub(crate) async fn message(&self, queue: String, message: Message) -> PublishOutcome {
        let outcomes = self.messages(to_queue(queue), vec![message]).await;
        outcomes.into_iter().next().unwrap_or_else(|| Err(lost()))
    }

    /// Hands a message over to be published to a queue, after all that was handed over before;
    /// returns the wait for the broker's answer. It is published also where that is dropped.
    pub(crate) async fn begin(
        &self,
        queue: String,
        message: Message,
    ) -> impl Future<Output = PublishOutcome> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let job = PublishJob { destination: to_queue(queue), messages: vec![message], reply };
        let is_sent = self.jobs.send(job).await.is_ok();
        async move {
            let outcomes = if is_sent { answer.await.ok() } else { None };
            outcomes.and_then(|all| all.into_iter().next()).unwrap_or_else(|| Err(lost()))
        }
    }

    /// Publishes tasks to their endpoint and records the broker's answers, the confirms a little
    /// later if `batched`; returns the answers in the order of the tasks.
    pub(crate) async fn tasks(
        &self,
        endpoint: EndpointId,
        batched: bool,
        tasks: &[Outgoing<'_>],
    ) -> Result<Vec<PublishOutcome>, Error> {
        let outcomes = self.publish(endpoint, tasks).await;
        self.answers.record(endpoint, batched, tasks, &outcomes).await?;
        if let Some(sender) = &self.urgent {
            let urgent = tasks
                .iter()
                .zip(&outcomes)
                .filter(|(task, outcome)| urgent::is_urgent(task.priority) && outcome.is_ok());
            sender.send(endpoint, urgent.map(|(task, _)| task.body));
        }
        Ok(outcomes)
    }

    async fn publish(&self, endpoint: EndpointId, tasks: &[Outgoing<'_>]) -> Vec<PublishOutcome> {
        let queue = || to_queue(topology::tasks_queue(endpoint));
        let parts: Vec<Part<'_>> = tasks.iter().map(|task| (task.id, task.body)).collect();
        let (messages, ranges) = split(packing::pack(&parts, now_ms()));
        if messages.is_empty() {
            return Vec::new();
        }
        let mut outcomes = Vec::with_capacity(tasks.len());
        for (range, outcome) in ranges.into_iter().zip(self.messages(queue(), messages).await) {
            match (outcome, parts.get(range.clone())) {
                (Err(PublishError::TooLarge(_)), Some(several @ [_, _, ..])) => {
                    let (alone, _) = split(packing::singly(several, now_ms()));
                    outcomes.extend(self.messages(queue(), alone).await);
                }
                (outcome, _) => outcomes.extend(range.map(|_| outcome.clone())),
            }
        }
        outcomes
    }

    async fn messages(&self, to: Destination, messages: Vec<Message>) -> Vec<PublishOutcome> {
        let count = messages.len();
        let (reply, answer) = oneshot::channel();
        let answered = match self.jobs.send(PublishJob { destination: to, messages, reply }).await {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        answered.unwrap_or_else(|| vec![Err(lost()); count])
    }
}

fn lost() -> PublishError {
    PublishError::Unknown("the link to the broker was lost".to_owned())
}

fn split(packed: Vec<Packed>) -> (Vec<Message>, Vec<Range<usize>>) {
    packed.into_iter().map(|Packed { message, tasks }| (message, tasks)).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskState;
    use crate::publishing::Placements;
    use crate::publishing::publish;
    use crate::store::conformance::{spec, store};
    use crate::store::{Chunk, Handing, RecordedChunk, Registration, Store};
    use crate::stub_broker::Broker;
    use clutch_common::link::Settlement;
    use clutch_common::task::result::Outcome;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    /// Publishes a submission of so many tasks; returns the outcomes, and the states that are
    /// recorded when all that runs later has run.
    async fn published(
        broker: &Broker,
        batched: bool,
        count: usize,
    ) -> (Vec<PublishOutcome>, Vec<TaskState>) {
        let (_temp, store) = store().await;
        let wanted = Registration {
            name: "lab".to_owned(),
            id: None,
            queue: None,
            lost_after: None,
            now_ms: 1,
        };
        store.register(wanted).await.unwrap();
        let chunk = Chunk {
            to: crate::model::Destination::Endpoint("lab".to_owned()),
            key: "k".to_owned(),
            total: count as u64,
            first: 0,
            specs: vec![spec(&["true"]); count],
            handing: Handing::New,
            retry: None,
            due: None,
            parent: None,
            now_ms: 1000,
        };
        let RecordedChunk { id, tasks: begun, .. } =
            store.record_submission(chunk).await.unwrap().unwrap();
        let (jobs, mut queue) = mpsc::channel(1);
        let later = TaskTracker::new();
        let answers = answers(&store, &later);
        let publishing = async {
            let publisher = Publisher::new(jobs, answers);
            let tasks: Vec<Outgoing<'_>> = begun.iter().map(Outgoing::from).collect();
            publisher.tasks(id, batched, &tasks).await.unwrap()
        };
        let stop = CancellationToken::new();
        let (ended, outcomes) =
            tokio::join!(publish(broker.outlet(), &mut queue, &stop), publishing);
        assert_eq!(ended, Ok(()), "the link is as good as before");
        later.close();
        later.wait().await;
        (outcomes, states(&store, &begun).await)
    }

    fn answers(store: &Store, later: &TaskTracker) -> AnswerRecorder {
        let (news, commits) = (watch::channel(0).0, watch::channel(0).0);
        AnswerRecorder::new(store.clone(), news, commits, Placements::default(), later.clone())
    }

    async fn states(store: &Store, begun: &[RecordedTask]) -> Vec<TaskState> {
        let mut states = Vec::new();
        for one in begun {
            states.push(store.task(one.task.id).await.unwrap().unwrap().summary.state);
        }
        states
    }

    #[tokio::test]
    async fn what_the_broker_answers_is_recorded_at_once_or_batched() {
        for batched in [false, true] {
            let broker = Broker::default();
            let (outcomes, states) = published(&broker, batched, 2).await;
            assert_eq!(outcomes, [Ok(()), Ok(())]);
            assert_eq!(states, [TaskState::Submitted; 2]);
            broker.settle_with([Settlement::Returned("NO_ROUTE".into())]);
            let (_, states) = published(&broker, batched, 1).await;
            assert_eq!(states, [TaskState::Waiting]);
        }
    }

    #[tokio::test]
    async fn tasks_that_share_a_message_too_large_go_alone_and_only_the_large_one_is_rejected() {
        let broker = Broker::default();
        broker.settle_with([
            Settlement::TooLarge(10),
            Settlement::Confirmed,
            Settlement::TooLarge(10),
        ]);
        let (outcomes, states) = published(&broker, false, 2).await;
        assert_eq!(outcomes, [Ok(()), Err(PublishError::TooLarge(10))]);
        assert_eq!(states, [TaskState::Submitted, TaskState::Done(Outcome::Rejected)]);
        assert_eq!(broker.published().len(), 3);
    }

    #[tokio::test]
    async fn a_link_that_is_gone_leaves_every_message_unknown() {
        let (_temp, store) = store().await;
        let (jobs, queue) = mpsc::channel(1);
        drop(queue);
        let answers = answers(&store, &TaskTracker::new());
        let publisher = Publisher::new(jobs, answers);
        let outcome = publisher.message("q".to_owned(), Message::default()).await;
        assert!(matches!(outcome, Err(PublishError::Unknown(_))), "{outcome:?}");
    }
}
