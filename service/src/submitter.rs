//! Publishes messages with confirms, one job after the other, over one
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
    /// Whether the broker has it is not known; why.
    Unknown(String),
}

/// Works on jobs until told to stop.
///
/// # Errors
/// The fault that ended the connection. A job under way is answered first.
pub(crate) async fn submit(
    mut outlet: Box<dyn Outlet>,
    jobs: &mut mpsc::Receiver<Job>,
    stop: &CancellationToken,
) -> Result<(), Fault> {
    loop {
        let job = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            settled = outlet.settled() => { settled?; continue }
            job = jobs.recv() => match job {
                Some(job) => job,
                None => return Ok(()),
            },
        };
        let (fates, fault) = publish(outlet.as_mut(), &job.destination, &job.messages).await;
        if job.reply.send(fates).is_err() {
            tracing::debug!("nobody waits for the answer to this submission any more");
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
    }
}

/// Publishes messages and waits for the broker's word on each.
async fn publish(
    outlet: &mut dyn Outlet,
    destination: &Destination,
    messages: &[Message],
) -> (Vec<Fate>, Option<Fault>) {
    let mut batch = Batch::new(messages.len());
    loop {
        while batch.open.len() < WINDOW
            && let Some(index) = batch.waiting.pop_front()
        {
            let Some(message) = messages.get(index) else { continue };
            match outlet.publish(destination, message.clone()).await {
                Ok(ticket) => batch.open.insert(ticket, index),
                Err(fault) => return (batch.lost(&fault), Some(fault)),
            };
        }
        if batch.open.is_empty() {
            return (batch.fates(), None);
        }
        match outlet.settled().await {
            Ok(settled) => settled.into_iter().for_each(|(ticket, how)| batch.settle(ticket, how)),
            Err(fault) => return (batch.lost(&fault), Some(fault)),
        }
    }
}

/// Where the messages of a job are.
struct Batch {
    fates: Vec<Option<Fate>>,
    rounds: Vec<u32>,
    waiting: VecDeque<usize>,
    open: BTreeMap<Ticket, usize>,
}

impl Batch {
    fn new(messages: usize) -> Self {
        Self {
            fates: vec![None; messages],
            rounds: vec![0; messages],
            waiting: (0..messages).collect(),
            open: BTreeMap::new(),
        }
    }

    fn settle(&mut self, ticket: Ticket, how: Settlement) {
        let Some(index) = self.open.remove(&ticket) else { return };
        let fate = match how {
            Settlement::Confirmed => Ok(()),
            Settlement::Returned(reason) => Err(Unplaced::Returned(reason)),
            Settlement::Refused => Err(Unplaced::Refused),
            Settlement::Doubt => {
                let rounds = self.rounds.get_mut(index).map_or(MAX_ROUNDS, |rounds| {
                    *rounds += 1;
                    *rounds
                });
                if rounds < MAX_ROUNDS {
                    self.waiting.push_back(index);
                    return;
                }
                Err(Unplaced::Unknown("the broker left it in doubt again and again".to_owned()))
            }
        };
        if let Some(slot) = self.fates.get_mut(index) {
            *slot = Some(fate);
        }
    }

    fn lost(&mut self, fault: &Fault) -> Vec<Fate> {
        let unknown = Err(Unplaced::Unknown(fault.to_string()));
        self.fates.drain(..).map(|fate| fate.unwrap_or_else(|| unknown.clone())).collect()
    }

    fn fates(&mut self) -> Vec<Fate> {
        self.lost(&Fault::Closed("the message was not settled".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Broker, message};

    async fn fates(broker: &Broker, count: u8) -> (Vec<Fate>, Option<Fault>) {
        let messages: Vec<Message> = (0..count).map(message).collect();
        let to = Destination { exchange: String::new(), routing_key: "q".to_owned() };
        publish(broker.outlet().as_mut(), &to, &messages).await
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
}
