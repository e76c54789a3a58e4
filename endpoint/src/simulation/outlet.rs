//! The publishing end of a connection in a run. What is published travels, arrives
//! or does not, and is confirmed late, in batches, out of order, or never.

use super::broker::some_fault;
use super::oracle::name;
use super::plan::Mishap;
use super::process::Life;
use super::wire::Wire;
use super::world::{QUEUED, World};
use async_trait::async_trait;
use clutch_common::link::{Destination, Fault, Message, Outlet, Settlement, Terms, Ticket};
use clutch_common::wire::{Role, ToService, decode_to_service};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

struct Published {
    ticket: Ticket,
    to: Destination,
    message: Message,
}

/// The endpoint's side.
pub(super) struct NetOutlet {
    world: Arc<World>,
    life: Arc<Life>,
    wire: Arc<Wire>,
    published: mpsc::Sender<Published>,
    settlements: mpsc::Receiver<(Ticket, Settlement)>,
    last: u64,
    open: usize,
}

impl NetOutlet {
    /// Begins to carry between the endpoint and an outlet of the broker's.
    pub(super) fn open(
        world: &Arc<World>,
        life: &Arc<Life>,
        wire: &Arc<Wire>,
        inner: Box<dyn Outlet>,
    ) -> Self {
        let (published, received) = mpsc::channel(QUEUED);
        let (settle, settlements) = mpsc::channel(QUEUED);
        let carrier = Carrier {
            world: Arc::clone(world),
            life: Arc::clone(life),
            wire: Arc::clone(wire),
            inner,
            received,
            settle,
            answers: Vec::new(),
        };
        world.network.spawn(carrier.carry());
        let (world, life, wire) = (Arc::clone(world), Arc::clone(life), Arc::clone(wire));
        Self { world, life, wire, published, settlements, last: 0, open: 0 }
    }
}

#[async_trait]
impl Outlet for NetOutlet {
    async fn publish(&mut self, to: &Destination, message: Message) -> Result<Ticket, Fault> {
        self.life.gate.awake().await;
        self.wire.alive()?;
        self.last += 1;
        let ticket = Ticket(self.last);
        let cut = self.world.mishap(Mishap::CutAtPublish);
        if !cut || self.world.flip() {
            // It is lost without a word if the wire has ended.
            drop(self.published.try_send(Published { ticket, to: to.clone(), message }));
        }
        if cut {
            self.wire.cut(some_fault(&self.world));
        }
        self.wire.alive()?;
        self.open += 1;
        Ok(ticket)
    }

    async fn settled(&mut self) -> Result<Vec<(Ticket, Settlement)>, Fault> {
        let mut settled = Vec::new();
        loop {
            self.life.gate.awake().await;
            tokio::select! {
                biased;
                fault = self.wire.lost() => return Err(fault),
                () = self.life.gate.frozen() => (),
                _ = self.settlements.recv_many(&mut settled, usize::MAX) => break,
            }
        }
        if settled.is_empty() {
            return Err(self.wire.lost().await);
        }
        self.open -= settled.len();
        Ok(settled)
    }

    fn open(&self) -> usize {
        self.open
    }
}

/// The answer that the endpoint will get for a message, and when.
struct Answer {
    due: Instant,
    ticket: Ticket,
    settlement: Settlement,
}

/// The way between the endpoint and the broker, and the broker's side.
struct Carrier {
    world: Arc<World>,
    life: Arc<Life>,
    wire: Arc<Wire>,
    inner: Box<dyn Outlet>,
    received: mpsc::Receiver<Published>,
    settle: mpsc::Sender<(Ticket, Settlement)>,
    answers: Vec<Answer>,
}

impl Carrier {
    async fn carry(mut self) {
        let wire = Arc::clone(&self.wire);
        loop {
            let due = self.answers.iter().map(|answer| answer.due).min();
            tokio::select! {
                biased;
                () = wire.severed() => break,
                () = at(due) => self.answer(),
                published = self.received.recv() => match published {
                    None => break,
                    Some(published) => {
                        self.world.travel().await;
                        self.be_blocked().await;
                        if wire.is_severed() && self.world.flip() {
                            break;
                        }
                        self.arrive(published).await;
                    }
                },
            }
        }
        for _ in 0..wire.still_arrives() {
            let Ok(published) = self.received.try_recv() else { break };
            self.arrive(published).await;
        }
        // A connection that only publishes is not missed at the broker.
        let _: Duration = wire.fade();
        wire.ended.cancel();
    }

    /// The broker reads nothing for a while, now and then.
    async fn be_blocked(&mut self) {
        if !self.world.mishap(Mishap::Blocked) {
            return;
        }
        let patience = Terms::default().blocked_timeout;
        let blocked = self.world.millis(1_000..90_000);
        self.world.note(format_args!("{}: blocked for {blocked:?}", self.wire.name));
        tokio::select! {
            biased;
            () = self.wire.severed() => (),
            () = tokio::time::sleep(blocked.min(patience)) => (),
        }
        if blocked > patience {
            self.wire.cut(Fault::Blocked { reason: "by chance".to_owned(), after: patience });
        }
    }

    /// A message reaches the broker, which makes up its mind.
    async fn arrive(&mut self, Published { ticket, to, message }: Published) {
        let world = Arc::clone(&self.world);
        let settlement = if world.mishap(Mishap::Returned) {
            Settlement::Returned("NO_ROUTE".to_owned())
        } else if world.mishap(Mishap::Refused) {
            Settlement::Refused
        } else if world.mishap(Mishap::Doubt) {
            if world.flip() {
                drop(self.route(&to, message).await);
            }
            Settlement::Doubt
        } else {
            match self.route(&to, message).await {
                Ok(settlement) => settlement,
                Err(fault) => return self.wire.cut(fault),
            }
        };
        world.note(format_args!("{}: message {}: {settlement:?}", self.wire.name, ticket.0));
        if world.mishap(Mishap::Unconfirmed) {
            let (wire, patience) = (Arc::clone(&self.wire), Terms::default().confirm_timeout);
            world.network.spawn(async move {
                tokio::time::sleep(patience).await;
                wire.cut(Fault::ConfirmTimeout(patience));
            });
        } else {
            let due = Instant::now() + world.millis(0..60);
            self.answers.push(Answer { due, ticket, settlement });
        }
        if world.mishap(Mishap::CrashAtPublish) {
            self.life.crash("after a publish");
        }
    }

    /// A message enters its queue, if there is one.
    async fn route(&mut self, to: &Destination, message: Message) -> Result<Settlement, Fault> {
        let (results, is_active) = match decode_to_service(&message.body) {
            ToService::Results(results) => (results.results, false),
            ToService::Presence(presence) => (Vec::new(), presence.role == Role::Active),
            ToService::Ping | ToService::Claims(_) | ToService::Post(_) | ToService::Unknown(_) => {
                (Vec::new(), false)
            }
        };
        let claims = match decode_to_service(&message.body) {
            ToService::Claims(claims) => claims.attempts,
            ToService::Results(_)
            | ToService::Presence(_)
            | ToService::Ping
            | ToService::Post(_)
            | ToService::Unknown(_) => Vec::new(),
        };
        self.inner.publish(to, message).await?;
        let settled = self.inner.settled().await?;
        let settlement = settled.into_iter().next().map(|(_, settlement)| settlement);
        if settlement == Some(Settlement::Confirmed) {
            if is_active {
                self.world.tell(|oracle| oracle.introduces(self.life.instance));
            }
            self.world.tell(|oracle| oracle.claimed.arrive(self.life.instance, &claims));
            for result in results {
                let (wire, attempt) = (&self.wire.name, result.attempt());
                self.world.note(format_args!("{wire}: arrived: {}", name(attempt)));
                self.world.tell(|oracle| oracle.arrives(attempt, result.lost));
            }
        }
        settlement.ok_or_else(|| Fault::Protocol("nothing was settled".to_owned()))
    }

    /// Tells the endpoint what is due, in any order.
    fn answer(&mut self) {
        if self.world.mishap(Mishap::CutAtConfirm) {
            return self.wire.sever(some_fault(&self.world));
        }
        let now = Instant::now();
        // Some of what is not due yet comes in the same batch.
        let batch = now + self.world.millis(0..30);
        let (mut due, later): (Vec<Answer>, Vec<Answer>) =
            std::mem::take(&mut self.answers).into_iter().partition(|answer| answer.due <= batch);
        self.answers = later;
        while !due.is_empty() {
            let next = self.world.within(0..due.len() as u64) as usize;
            let Answer { ticket, settlement, .. } = due.swap_remove(next);
            drop(self.settle.try_send((ticket, settlement)));
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
