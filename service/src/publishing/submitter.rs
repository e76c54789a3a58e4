//! Publishes messages with confirms, in the order of their jobs, over one
//! connection's outlet. It knows messages, not tasks, and keeps nothing: what
//! it cannot place it hands back.

use clutch_common::link::{Destination, Fault, Message, Outlet, Settlement, Ticket};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How many messages may be open, waiting for the broker's word.
const WINDOW: usize = 1000;
/// How often a message that the broker leaves in doubt is published.
const MAX_ROUNDS: u32 = 20;

/// Messages to publish.
pub(crate) struct Job {
    /// Where they go.
    pub(crate) destination: Destination,
    /// The messages.
    pub(crate) messages: Vec<Message>,
    /// Takes what became of each, in order.
    pub(crate) reply: oneshot::Sender<Vec<Fate>>,
}

/// What became of a message: the broker has it, or why not.
pub(crate) type Fate = Result<(), Unplaced>;

/// Why the broker does not have a message, or may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unplaced {
    /// No queue takes it; the broker's reason.
    Returned(String),
    /// The broker refused it.
    Refused,
    /// The broker takes no message of more than so many bytes.
    TooLarge(usize),
    /// Whether the broker has it is not known; why.
    Unknown(String),
}

/// Works on jobs until told to stop; those that it has taken are answered first.
///
/// # Errors
/// The fault that ended the connection. What it had taken is answered then as well.
pub(crate) async fn submit(
    mut outlet: Box<dyn Outlet>,
    jobs: &mut mpsc::Receiver<Job>,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    let mut desk = Desk::default();
    let ended = desk.work(outlet.as_mut(), jobs, stop).await;
    if let Err(fault) = &ended {
        desk.lose(fault);
    }
    ended
}

/// What was taken and is not answered.
#[derive(Default)]
struct Desk {
    jobs: BTreeMap<u64, Taken>,
    /// The number of the next job.
    next: u64,
    /// Messages to be published.
    waiting: VecDeque<Place>,
    /// Messages that the broker has not settled.
    open: BTreeMap<Ticket, Place>,
}

/// A message of a job.
#[derive(Clone, Copy)]
struct Place {
    job: u64,
    index: usize,
}

struct Taken {
    job: Job,
    /// How often each of its messages was left in doubt.
    rounds: Vec<u32>,
    fates: Vec<Option<Fate>>,
    /// How many have no fate.
    left: usize,
}

impl Desk {
    async fn work(
        &mut self,
        outlet: &mut dyn Outlet,
        jobs: &mut mpsc::Receiver<Job>,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let mut closed = false;
        loop {
            self.publish(outlet).await?;
            let over = closed || stop.is_cancelled();
            if over && self.open.is_empty() {
                return Ok(());
            }
            // The broker's word on one job is not waited for by the next: each takes
            // the broker a sync of its disk.
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

    fn take(&mut self, job: Job) {
        let (number, count) = (self.next, job.messages.len());
        self.next += 1;
        self.waiting.extend((0..count).map(|index| Place { job: number, index }));
        let (rounds, fates) = (vec![0; count], vec![None; count]);
        self.jobs.insert(number, Taken { job, rounds, fates, left: count });
        self.answer(number);
    }

    /// Publishes what waits, as far as the window goes.
    async fn publish(&mut self, outlet: &mut dyn Outlet) -> Result<(), Fault> {
        while self.open.len() < WINDOW
            && let Some(place) = self.waiting.pop_front()
        {
            let Some(taken) = self.jobs.get(&place.job) else { continue };
            let Some(message) = taken.job.messages.get(place.index) else { continue };
            if message.body.len() > outlet.limit() {
                self.decide(place, Err(Unplaced::TooLarge(outlet.limit())));
                continue;
            }
            let ticket = outlet.publish(&taken.job.destination, message.clone()).await?;
            self.open.insert(ticket, place);
        }
        Ok(())
    }

    fn settle(&mut self, ticket: Ticket, how: Settlement) {
        let Some(place) = self.open.remove(&ticket) else { return };
        let Some(taken) = self.jobs.get_mut(&place.job) else { return };
        let fate = match how {
            Settlement::Confirmed => Ok(()),
            Settlement::Returned(reason) => Err(Unplaced::Returned(reason)),
            Settlement::Refused => Err(Unplaced::Refused),
            Settlement::TooLarge(limit) => Err(Unplaced::TooLarge(limit)),
            Settlement::Doubt => {
                let rounds = taken.rounds.get_mut(place.index).map_or(MAX_ROUNDS, |rounds| {
                    *rounds += 1;
                    *rounds
                });
                if rounds < MAX_ROUNDS {
                    self.waiting.push_back(place);
                    return;
                }
                Err(Unplaced::Unknown("the broker left it in doubt again and again".to_owned()))
            }
        };
        self.decide(place, fate);
    }

    /// Notes what became of a message, and answers its job if it was the last one.
    fn decide(&mut self, place: Place, fate: Fate) {
        let Some(taken) = self.jobs.get_mut(&place.job) else { return };
        if let Some(slot) = taken.fates.get_mut(place.index) {
            *slot = Some(fate);
            taken.left -= 1;
        }
        self.answer(place.job);
    }

    /// Answers a job if all of its messages have their fates.
    fn answer(&mut self, number: u64) {
        if self.jobs.get(&number).is_some_and(|taken| taken.left == 0)
            && let Some(taken) = self.jobs.remove(&number)
        {
            // All are there.
            taken.tell(&Fault::Closed("the message was not settled".to_owned()));
        }
    }

    /// Answers all jobs: what has no fate may be at the broker or not.
    fn lose(&mut self, fault: &Fault) {
        std::mem::take(&mut self.jobs).into_values().for_each(|taken| taken.tell(fault));
    }
}

impl Taken {
    fn tell(self, fault: &Fault) {
        let unknown = Err(Unplaced::Unknown(fault.to_string()));
        let fates = self.fates.into_iter().map(|fate| fate.unwrap_or_else(|| unknown.clone()));
        if self.job.reply.send(fates.collect()).is_err() {
            tracing::debug!("nobody waits for the answer to this submission any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Broker, message};

    type Answer = oneshot::Receiver<Vec<Fate>>;

    /// A job of so many messages.
    fn job(count: u8) -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        let destination = Destination { exchange: String::new(), routing_key: "q".to_owned() };
        (Job { destination, messages: (0..count).map(message).collect(), reply }, answer)
    }

    /// Has jobs of so many messages worked on; what became of each, and of the link.
    async fn worked<const N: usize>(
        broker: &Broker,
        counts: [u8; N],
    ) -> ([Vec<Fate>; N], Result<(), Fault>) {
        let (jobs, mut queue) = mpsc::channel(N);
        let answers = counts.map(|count| {
            let (job, answer) = job(count);
            jobs.try_send(job).ok().unwrap();
            answer
        });
        drop(jobs);
        let ended = submit(broker.outlet(), &mut queue, &CancellationToken::new()).await;
        (answers.map(|mut answer| answer.try_recv().unwrap()), ended)
    }

    async fn fates(broker: &Broker, count: u8) -> (Vec<Fate>, Option<Fault>) {
        let ([fates], ended) = worked(broker, [count]).await;
        (fates, ended.err())
    }

    #[tokio::test]
    async fn every_message_gets_its_own_fate() {
        let broker = Broker::default();
        broker.settle_with([
            Settlement::Confirmed,
            Settlement::Returned("NO_ROUTE".into()),
            Settlement::Refused,
        ]);
        let (fates, fault) = fates(&broker, 3).await;
        let returned = Err(Unplaced::Returned("NO_ROUTE".into()));
        assert_eq!((fates, fault), (vec![Ok(()), returned, Err(Unplaced::Refused)], None));
    }

    #[tokio::test]
    async fn a_message_that_no_broker_takes_is_not_sent_and_others_are() {
        let broker = Broker::default();
        let (jobs, mut queue) = mpsc::channel(1);
        let (mut job, mut answer) = job(2);
        job.messages[0].body = vec![b'x'; clutch_common::wire::MAX_BODY + 1];
        jobs.try_send(job).ok().unwrap();
        drop(jobs);
        let ended = submit(broker.outlet(), &mut queue, &CancellationToken::new()).await;
        assert_eq!(ended, Ok(()));
        let large = Err(Unplaced::TooLarge(clutch_common::wire::MAX_BODY));
        assert_eq!(answer.try_recv().unwrap(), [large, Ok(())]);
        assert_eq!(broker.published().len(), 1);
    }

    #[tokio::test]
    async fn a_message_in_doubt_is_published_again_but_not_for_ever() {
        let broker = Broker::default();
        broker.settle_with([Settlement::Doubt, Settlement::Confirmed, Settlement::Doubt]);
        assert_eq!(fates(&broker, 2).await.0, [Ok(()), Ok(())]);
        assert_eq!(broker.published().len(), 4);
        broker.settle_with(vec![Settlement::Doubt; 100]);
        assert!(matches!(fates(&broker, 1).await.0[0], Err(Unplaced::Unknown(_))));
    }

    #[tokio::test]
    async fn a_fault_leaves_only_the_unconfirmed_unknown() {
        let broker = Broker::default();
        broker.settle_with([Settlement::Confirmed]);
        broker.fail_after_settling(Fault::Closed("gone".into()));
        let (fates, fault) = fates(&broker, 2).await;
        assert_eq!(fates[0], Ok(()));
        assert!(matches!(&fates[1], Err(Unplaced::Unknown(words)) if words.contains("gone")));
        assert!(fault.is_some());
    }

    #[tokio::test]
    async fn no_job_waits_for_the_brokers_word_on_another() {
        let broker = Broker::default();
        broker.silence(true);
        let (jobs, mut queue) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let submitting = submit(broker.outlet(), &mut queue, &stop);
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
            // Told to stop meanwhile, it answers first.
            stop.cancel();
            broker.silence(false);
            let mut fates = Vec::new();
            for answer in answers {
                fates.push(answer.await.unwrap());
            }
            fates
        };
        let (ended, fates) = tokio::join!(submitting, submitted);
        assert_eq!(ended, Ok(()));
        assert_eq!(fates, [vec![Ok(()); 2], vec![], vec![Ok(()); 3]]);
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
        assert_eq!(first, [Ok(()), Err(Unplaced::Refused)]);
        assert_eq!(second[0], Ok(()));
        for lost in &second[1..] {
            assert!(matches!(lost, Err(Unplaced::Unknown(words)) if words.contains("gone")));
        }
    }
}
