//! Publishes messages over one connection's outlet, in the order of their jobs, and waits
//! for the broker's confirms: a bounded number of messages is open at a time. It knows
//! messages, not tasks. Every message of a job is answered, at the latest when the link ends.

use clutch_common::link::{Destination, Fault, Message, Outlet, Settlement, Ticket};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How many messages may be published and not confirmed yet.
const WINDOW: usize = 1000;
/// How often a message is published while its confirm is in doubt.
const MAX_ROUNDS: u32 = 20;

/// Messages to publish.
pub(crate) struct PublishJob {
    /// Where they go.
    pub(crate) destination: Destination,
    /// The messages.
    pub(crate) messages: Vec<Message>,
    /// Receives the outcome of each, in order.
    pub(crate) reply: oneshot::Sender<Vec<PublishOutcome>>,
}

/// The outcome of publishing a message: the broker has it, or why not.
pub(crate) type PublishOutcome = Result<(), PublishError>;

/// Why the broker does not have a message, or may not have it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    /// No queue takes it; the broker's reason.
    #[error("the broker has no queue for the endpoint ({0})")]
    Returned(String),
    /// The broker refused it.
    #[error("the endpoint's queue is full")]
    Refused,
    /// The broker takes no message of more than so many bytes.
    #[error("the broker takes no message of more than {0} bytes")]
    TooLarge(usize),
    /// Whether the broker has it is not known; why.
    #[error("the broker did not confirm it: {0}")]
    Unknown(String),
}

/// Publishes the messages of jobs until told to stop. Jobs that were received are answered first.
///
/// # Errors
/// The fault that ended the connection. Jobs that were received are answered then as well.
pub(crate) async fn publish(
    mut outlet: Box<dyn Outlet>,
    jobs: &mut mpsc::Receiver<PublishJob>,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut window = PublishWindow::default();
    let ended = window.work(outlet.as_mut(), jobs, stop).await;
    if let Err(fault) = &ended {
        window.lose(fault);
    }
    ended
}

/// The jobs that are not answered yet, and their messages.
#[derive(Default)]
struct PublishWindow {
    jobs: BTreeMap<u64, OpenJob>,
    /// The number of the next job.
    next: u64,
    /// Messages to be published.
    waiting: VecDeque<Position>,
    /// Messages that the broker has not settled.
    open: BTreeMap<Ticket, Position>,
}

/// A message of a job.
#[derive(Clone, Copy)]
struct Position {
    job: u64,
    index: usize,
}

struct OpenJob {
    job: PublishJob,
    /// How often each of its messages was left in doubt.
    rounds: Vec<u32>,
    outcomes: Vec<Option<PublishOutcome>>,
    /// How many messages have no outcome yet.
    left: usize,
}

impl PublishWindow {
    async fn work(
        &mut self,
        outlet: &mut dyn Outlet,
        jobs: &mut mpsc::Receiver<PublishJob>,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let mut closed = false;
        loop {
            self.send(outlet).await?;
            let over = closed || stop.is_cancelled();
            if over && self.open.is_empty() {
                return Ok(());
            }
            // Jobs do not wait for each other's confirms: each confirm takes the broker a sync
            // of its disk.
            let room = !over && self.open.len() < WINDOW;
            tokio::select! {
                biased;
                () = stop.cancelled(), if !over => {}
                settled = outlet.settled() => {
                    settled?.into_iter().for_each(|(ticket, how)| self.settle(ticket, how));
                }
                job = jobs.recv(), if room => match job {
                    Some(job) => self.take(job),
                    None => closed = true,
                },
            }
        }
    }

    fn take(&mut self, job: PublishJob) {
        let (number, count) = (self.next, job.messages.len());
        self.next += 1;
        self.waiting.extend((0..count).map(|index| Position { job: number, index }));
        let (rounds, outcomes) = (vec![0; count], vec![None; count]);
        self.jobs.insert(number, OpenJob { job, rounds, outcomes, left: count });
        self.answer(number);
    }

    /// Publishes waiting messages, as many as the window has room for.
    async fn send(&mut self, outlet: &mut dyn Outlet) -> Result<(), Fault> {
        while self.open.len() < WINDOW
            && let Some(position) = self.waiting.pop_front()
        {
            let Some(taken) = self.jobs.get(&position.job) else { continue };
            let Some(message) = taken.job.messages.get(position.index) else { continue };
            if message.body.len() > outlet.limit() {
                self.decide(position, Err(PublishError::TooLarge(outlet.limit())));
                continue;
            }
            let ticket = outlet.publish(&taken.job.destination, message.clone()).await?;
            self.open.insert(ticket, position);
        }
        Ok(())
    }

    fn settle(&mut self, ticket: Ticket, how: Settlement) {
        let Some(position) = self.open.remove(&ticket) else { return };
        let Some(taken) = self.jobs.get_mut(&position.job) else { return };
        let was_in_doubt = taken.rounds.get(position.index).is_some_and(|rounds| *rounds > 0);
        let outcome = match how {
            Settlement::Confirmed => Ok(()),
            // An earlier copy may be at the broker.
            Settlement::Returned(_) | Settlement::Refused if was_in_doubt => {
                Err(PublishError::Unknown("it was left in doubt, then not taken".to_owned()))
            }
            Settlement::Returned(reason) => Err(PublishError::Returned(reason)),
            Settlement::Refused => Err(PublishError::Refused),
            Settlement::TooLarge(limit) => Err(PublishError::TooLarge(limit)),
            Settlement::Doubt => {
                let rounds = taken.rounds.get_mut(position.index).map_or(MAX_ROUNDS, |rounds| {
                    *rounds += 1;
                    *rounds
                });
                if rounds < MAX_ROUNDS {
                    self.waiting.push_back(position);
                    return;
                }
                Err(PublishError::Unknown(format!("it was left in doubt {MAX_ROUNDS} times")))
            }
        };
        self.decide(position, outcome);
    }

    /// Notes the outcome of a message, and answers its job if it was the last one.
    fn decide(&mut self, position: Position, outcome: PublishOutcome) {
        let Some(taken) = self.jobs.get_mut(&position.job) else { return };
        if let Some(slot) = taken.outcomes.get_mut(position.index) {
            *slot = Some(outcome);
            taken.left -= 1;
        }
        self.answer(position.job);
    }

    /// Answers a job if all of its messages have outcomes.
    fn answer(&mut self, number: u64) {
        if self.jobs.get(&number).is_some_and(|taken| taken.left == 0)
            && let Some(taken) = self.jobs.remove(&number)
        {
            // All are there.
            taken.tell(&Fault::Closed("the message was not settled".to_owned()));
        }
    }

    /// Answers all jobs: a message without an outcome may be at the broker or not.
    fn lose(&mut self, fault: &Fault) {
        std::mem::take(&mut self.jobs).into_values().for_each(|taken| taken.tell(fault));
    }
}

impl OpenJob {
    fn tell(self, fault: &Fault) {
        let unknown = Err(PublishError::Unknown(fault.to_string()));
        let outcomes =
            self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| unknown.clone()));
        if self.job.reply.send(outcomes.collect()).is_err() {
            tracing::debug!("the caller of a submission is gone: its answer is dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub_broker::{Broker, message};

    type Answer = oneshot::Receiver<Vec<PublishOutcome>>;

    /// A job of so many messages.
    fn job(count: u8) -> (PublishJob, Answer) {
        let (reply, answer) = oneshot::channel();
        let destination = Destination { exchange: String::new(), routing_key: "q".to_owned() };
        (PublishJob { destination, messages: (0..count).map(message).collect(), reply }, answer)
    }

    /// Publishes jobs of so many messages; returns their outcomes, and how the link ended.
    async fn worked<const N: usize>(
        broker: &Broker,
        counts: [u8; N],
    ) -> ([Vec<PublishOutcome>; N], Result<(), Fault>) {
        let (jobs, mut queue) = mpsc::channel(N);
        let answers = counts.map(|count| {
            let (job, answer) = job(count);
            jobs.try_send(job).ok().unwrap();
            answer
        });
        drop(jobs);
        let ended = publish(broker.outlet(), &mut queue, &CancellationToken::new()).await;
        (answers.map(|mut answer| answer.try_recv().unwrap()), ended)
    }

    async fn outcomes(broker: &Broker, count: u8) -> (Vec<PublishOutcome>, Option<Fault>) {
        let ([outcomes], ended) = worked(broker, [count]).await;
        (outcomes, ended.err())
    }

    #[tokio::test]
    async fn every_message_gets_its_own_fate() {
        let broker = Broker::default();
        broker.settle_with([
            Settlement::Confirmed,
            Settlement::Returned("NO_ROUTE".into()),
            Settlement::Refused,
        ]);
        let (outcomes, fault) = outcomes(&broker, 3).await;
        let returned = Err(PublishError::Returned("NO_ROUTE".into()));
        assert_eq!((outcomes, fault), (vec![Ok(()), returned, Err(PublishError::Refused)], None));
    }

    #[tokio::test]
    async fn a_message_that_no_broker_takes_is_not_sent_and_others_are() {
        let broker = Broker::default();
        let (jobs, mut queue) = mpsc::channel(1);
        let (mut job, mut answer) = job(2);
        job.messages[0].body = vec![b'x'; clutch_common::wire::MAX_BODY + 1];
        jobs.try_send(job).ok().unwrap();
        drop(jobs);
        let ended = publish(broker.outlet(), &mut queue, &CancellationToken::new()).await;
        assert_eq!(ended, Ok(()));
        let large = Err(PublishError::TooLarge(clutch_common::wire::MAX_BODY));
        assert_eq!(answer.try_recv().unwrap(), [large, Ok(())]);
        assert_eq!(broker.published().len(), 1);
    }

    #[tokio::test]
    async fn a_message_in_doubt_is_published_again_but_not_for_ever() {
        let broker = Broker::default();
        broker.settle_with([Settlement::Doubt, Settlement::Confirmed, Settlement::Doubt]);
        assert_eq!(outcomes(&broker, 2).await.0, [Ok(()), Ok(())]);
        assert_eq!(broker.published().len(), 4);
        broker.settle_with(vec![Settlement::Doubt; 100]);
        assert!(matches!(outcomes(&broker, 1).await.0[0], Err(PublishError::Unknown(_))));
    }

    #[tokio::test]
    async fn a_fault_leaves_only_the_unconfirmed_unknown() {
        let broker = Broker::default();
        broker.settle_with([Settlement::Confirmed]);
        broker.fail_after_settling(Fault::Closed("gone".into()));
        let (outcomes, fault) = outcomes(&broker, 2).await;
        assert_eq!(outcomes[0], Ok(()));
        assert!(
            matches!(&outcomes[1], Err(PublishError::Unknown(words)) if words.contains("gone"))
        );
        assert!(fault.is_some());
    }

    #[tokio::test]
    async fn no_job_waits_for_the_confirms_of_another() {
        let broker = Broker::default();
        broker.silence(true);
        let (jobs, mut queue) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let submitting = publish(broker.outlet(), &mut queue, &stop);
        let submitted = async {
            let mut answers = Vec::new();
            for count in [2, 0, 3] {
                let (job, answer) = job(count);
                jobs.send(job).await.ok().unwrap();
                answers.push(answer);
            }
            while broker.published().len() < 5 {
                tokio::task::yield_now().await;
            }
            // A window that is told to stop meanwhile answers its jobs first.
            stop.cancel();
            broker.silence(false);
            let mut outcomes = Vec::new();
            for answer in answers {
                outcomes.push(answer.await.unwrap());
            }
            outcomes
        };
        let (ended, outcomes) = tokio::join!(submitting, submitted);
        assert_eq!(ended, Ok(()));
        assert_eq!(outcomes, [vec![Ok(()); 2], vec![], vec![Ok(()); 3]]);
    }

    #[tokio::test]
    async fn each_job_has_the_fates_of_its_own_messages() {
        let broker = Broker::default();
        broker.settle_with([
            Settlement::Confirmed,
            Settlement::Doubt,
            Settlement::Refused,
            Settlement::Confirmed,
        ]);
        broker.fail_after_settling(Fault::Closed("gone".into()));
        let ([first, second], ended) = worked(&broker, [2, 3]).await;
        assert!(ended.is_err());
        assert_eq!(first[0], Ok(()));
        // Its first copy may be there.
        assert!(
            matches!(&first[1], Err(PublishError::Unknown(words)) if words.contains("in doubt"))
        );
        assert_eq!(second[0], Ok(()));
        for lost in &second[1..] {
            assert!(matches!(lost, Err(PublishError::Unknown(words)) if words.contains("gone")));
        }
    }
}
