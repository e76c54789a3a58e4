//! The consuming end of a connection in a run. The endpoint's side hands orders
//! over and does not wait for the broker, as over AMQP; what carries them may be
//! late, or lose them with the connection.

use super::broker::some_fault;
use super::oracle::name;
use super::plan::Mishap;
use super::process::Life;
use super::steering;
use super::wire::Wire;
use super::world::{QUEUED, World};
use async_trait::async_trait;
use clutch_common::id::Attempt;
use clutch_common::link::{Calls, Connection, Delivery, Fault, Inlet, Message, Tag};
use clutch_common::wire::{Steering, ToEndpoint, decode_steering, decode_to_endpoint};
use futures_util::StreamExt as _;
use futures_util::stream;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// How many deliveries are taken from the broker at once.
const TAKEN: usize = 8;
/// More than any prefetch.
const BUFFERED: usize = 1024;

enum Order {
    Acknowledge(Tag),
    AcknowledgeOne(Tag),
    DeadLetter(Tag),
    /// Is answered once all before it is obeyed.
    Secure(oneshot::Sender<()>),
}

/// The endpoint's side.
pub(super) struct NetInlet {
    world: Arc<World>,
    life: Arc<Life>,
    wire: Arc<Wire>,
    /// Whether it is of the task queue, and not of the control queue.
    takes_tasks: bool,
    deliveries: mpsc::Receiver<Delivery>,
    /// The cancels and drains that were read last; they are obeyed before more is read.
    read: Vec<Steering>,
    orders: mpsc::Sender<Order>,
    /// The calls that come, until they are asked for.
    calls: Option<mpsc::Receiver<Message>>,
}

impl NetInlet {
    /// Begins to carry between the endpoint and an inlet of the broker's.
    pub(super) fn open(
        world: &Arc<World>,
        life: &Arc<Life>,
        wire: &Arc<Wire>,
        connection: &Arc<dyn Connection>,
        inner: Box<dyn Inlet>,
        takes_tasks: bool,
    ) -> Self {
        let (deliver, deliveries) = mpsc::channel(BUFFERED);
        let (orders, received) = mpsc::channel(QUEUED);
        let (call, calls) = mpsc::channel(QUEUED);
        if takes_tasks {
            world.conditions().holder = Some((Arc::clone(wire), call));
            world.judge(|oracle| oracle.consumes(life.instance));
        }
        let carrier = Carrier {
            world: Arc::clone(world),
            life: Arc::clone(life),
            wire: Arc::clone(wire),
            connection: Arc::clone(connection),
            takes_tasks,
            inner,
            deliver,
            orders: received,
            held: BTreeMap::new(),
        };
        world.network.spawn(carrier.carry());
        let (world, life, wire) = (Arc::clone(world), Arc::clone(life), Arc::clone(wire));
        let (read, calls) = (Vec::new(), Some(calls));
        Self { world, life, wire, takes_tasks, deliveries, read, orders, calls }
    }

    async fn order(&self, order: Order) -> Result<(), Fault> {
        self.life.gate.awake().await;
        self.wire.alive()?;
        let cut = self.world.mishap(Mishap::CutAtSettling);
        if !cut || self.world.flip() {
            // It is lost without a word if the wire has ended.
            drop(self.orders.try_send(order));
        }
        if cut {
            self.wire.cut(some_fault(&self.world));
        }
        self.wire.alive()
    }
}

#[async_trait]
impl Inlet for NetInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, Fault> {
        let mut taken = Vec::new();
        for order in self.read.drain(..) {
            self.world.note(format_args!(
                "{}: obeyed: {}",
                self.life.name,
                steering::words(&order)
            ));
            self.world.tell(|oracle| oracle.obeys(self.life.instance, &order));
        }
        loop {
            self.life.gate.awake().await;
            tokio::select! {
                biased;
                fault = self.wire.lost() => return Err(fault),
                () = self.life.gate.frozen() => (),
                _ = self.deliveries.recv_many(&mut taken, max) => break,
            }
        }
        if taken.is_empty() {
            return Err(self.wire.lost().await);
        }
        if self.takes_tasks {
            self.world.judge(|oracle| oracle.takes(self.life.instance));
        } else {
            let orders = taken.iter().filter_map(|delivery| {
                let Content::Order(order) = Content::of(delivery, false) else { return None };
                matches!(order, Steering::Cancel(_) | Steering::Drain(_)).then_some(order)
            });
            self.read = orders.collect();
        }
        Ok(taken)
    }

    async fn lost(&mut self) -> Fault {
        self.wire.lost().await
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), Fault> {
        self.order(Order::Acknowledge(up_to)).await
    }

    async fn acknowledge_one(&mut self, tag: Tag) -> Result<(), Fault> {
        self.order(Order::AcknowledgeOne(tag)).await
    }

    async fn dead_letter(&mut self, tag: Tag) -> Result<(), Fault> {
        self.order(Order::DeadLetter(tag)).await
    }

    async fn secured(&mut self) -> Result<(), Fault> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Secure(answer)).await?;
        tokio::select! {
            biased;
            fault = self.wire.lost() => Err(fault),
            answered = answered => {
                self.life.gate.awake().await;
                // There is no answer if the wire has ended.
                if answered.is_err() { Err(self.wire.lost().await) } else { Ok(()) }
            }
        }
    }

    fn calls(&mut self) -> Calls {
        let state = (self.calls.take(), Arc::clone(&self.wire));
        let calls = stream::unfold(state, |(mut calls, wire)| async move {
            let call = async { calls.as_mut()?.recv().await };
            // No more calls come; that the link is lost is noticed elsewhere.
            let next = tokio::select! {
                biased;
                fault = wire.lost() => Err(fault),
                Some(call) = call => Ok(call),
            };
            Some((next, (calls, wire)))
        });
        calls.boxed()
    }
}

/// The way between the endpoint and the broker, and the broker's side.
struct Carrier {
    world: Arc<World>,
    life: Arc<Life>,
    wire: Arc<Wire>,
    connection: Arc<dyn Connection>,
    takes_tasks: bool,
    inner: Box<dyn Inlet>,
    deliver: mpsc::Sender<Delivery>,
    orders: mpsc::Receiver<Order>,
    /// The deliveries that are not settled.
    held: BTreeMap<Tag, Content>,
}

impl Carrier {
    async fn carry(mut self) {
        let wire = Arc::clone(&self.wire);
        loop {
            tokio::select! {
                biased;
                () = wire.severed() => break,
                order = self.orders.recv() => match order {
                    None => break,
                    Some(order) => {
                        self.world.travel().await;
                        if wire.is_severed() && self.world.flip() {
                            break;
                        }
                        self.obey(order).await;
                    }
                },
                taken = self.inner.receive(TAKEN) => match taken {
                    Ok(deliveries) => self.hand_over(deliveries).await,
                    Err(fault) => wire.cut(fault),
                },
            }
        }
        for _ in 0..wire.still_arrives() {
            let Ok(order) = self.orders.try_recv() else { break };
            self.obey(order).await;
        }
        self.end().await;
    }

    async fn hand_over(&mut self, deliveries: Vec<Delivery>) {
        self.world.travel().await;
        for delivery in deliveries {
            let content = Content::of(&delivery, self.takes_tasks);
            let (wire, tag) = (&self.wire.name, delivery.tag.0);
            self.world.note(format_args!("{wire}: delivery {tag}: {}", content.words()));
            self.held.insert(delivery.tag, content);
            // Where the endpoint is gone, it stays unsettled.
            drop(self.deliver.send(delivery).await);
            if self.world.mishap(Mishap::CutAtDelivery) {
                self.wire.sever(some_fault(&self.world));
                return;
            }
        }
    }

    /// An order reaches the broker.
    async fn obey(&mut self, order: Order) {
        let (settled, done) = match order {
            Order::Acknowledge(up_to) => {
                let rest = self.held.split_off(&Tag(up_to.0 + 1));
                let settled = std::mem::replace(&mut self.held, rest).into_values();
                self.world.note(format_args!("{}: acknowledged {}", self.wire.name, up_to.0));
                (settled.collect(), self.inner.acknowledge(up_to).await)
            }
            Order::Secure(answer) => {
                self.world.travel().await;
                // The answer goes the way of all that the broker sends; where no caller waits for
                // it any more, it is lost.
                if !self.wire.is_severed() {
                    // The caller may have given up.
                    answer.send(()).ok();
                }
                return;
            }
            Order::AcknowledgeOne(tag) => {
                self.world.note(format_args!("{}: acknowledged {} alone", self.wire.name, tag.0));
                let settled: Vec<Content> = self.held.remove(&tag).into_iter().collect();
                (settled, self.inner.acknowledge_one(tag).await)
            }
            Order::DeadLetter(tag) => {
                self.world.note(format_args!("{}: dead letter {}", self.wire.name, tag.0));
                let settled = self.held.remove(&tag).into_iter().collect();
                (settled, self.inner.dead_letter(tag).await)
            }
        };
        settled.iter().for_each(|content| content.settled(&self.world, self.life.instance));
        if let Err(fault) = done {
            self.wire.cut(fault);
        }
        if self.world.mishap(Mishap::CrashAtAcknowledge) {
            self.life.crash("after an acknowledgement");
        }
    }

    /// The broker goes on delivering to an end that is gone.
    async fn dead_end(&mut self) {
        while let Ok(taken) = self.inner.receive(TAKEN).await {
            for delivery in taken {
                self.held.insert(delivery.tag, Content::of(&delivery, self.takes_tasks));
            }
        }
    }

    /// The connection is gone; the broker may take its time to notice.
    async fn end(mut self) {
        if !self.takes_tasks {
            self.end_beside().await;
            return;
        }
        let linger = self.wire.fade();
        if !linger.is_zero() {
            drop(tokio::time::timeout(linger, self.dead_end()).await);
        }
        let unsettled = self.held.values().flat_map(Content::attempts).copied();
        self.world.tell(|oracle| oracle.leaves(self.life.instance, unsettled));
        self.world.note(format_args!("{}: consumes no more", self.wire.name));
        drop(self.inner);
        self.connection.close().await;
        self.wire.ended.cancel();
    }
}

impl Carrier {
    /// Ends an inlet of the control queue: it is closed, or its connection is gone. The end of that is for the
    /// inlet of the task queue to bring about.
    async fn end_beside(mut self) {
        if self.wire.is_severed() {
            let wire = Arc::clone(&self.wire);
            tokio::select! {
                biased;
                () = wire.ended.cancelled() => (),
                () = self.dead_end() => (),
            }
        }
        self.world.note(format_args!("{}: reads no control messages more", self.wire.name));
    }
}

/// The content of a delivery.
enum Content {
    /// Attempts, those included that cannot be read; or none.
    Tasks(Vec<Attempt>),
    /// The mark up to a cancel.
    CancelMark(u64),
    /// An order of the control queue.
    Order(Steering),
}

impl Content {
    /// The content of a delivery of the task queue, or of the control queue.
    fn of(delivery: &Delivery, from_tasks: bool) -> Self {
        let message = &delivery.message;
        if !from_tasks {
            let order = decode_steering(&message.body);
            return order.map_or(Self::Tasks(Vec::new()), Self::Order);
        }
        match decode_to_endpoint(&message.body, message.correlation_id.as_deref()) {
            ToEndpoint::Tasks(decoded) => {
                let unreadable = decoded.unreadable.iter().filter_map(|one| one.attempt);
                let tasks = decoded.tasks.iter().map(|task| task.attempt());
                Self::Tasks(tasks.chain(unreadable).collect())
            }
            ToEndpoint::CancelMark(mark) => Self::CancelMark(mark.up_to),
            ToEndpoint::RollCall(_) | ToEndpoint::Unknown(_) => Self::Tasks(Vec::new()),
        }
    }

    fn attempts(&self) -> &[Attempt] {
        match self {
            Self::Tasks(attempts) => attempts,
            Self::CancelMark(_) | Self::Order(_) => &[],
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Tasks(attempts) => {
                attempts.iter().map(|one| name(*one)).collect::<Vec<_>>().join(" ")
            }
            Self::CancelMark(up_to) => format!("the mark up to {up_to}"),
            Self::Order(order) => steering::words(order),
        }
    }

    /// The broker has let go of it.
    fn settled(&self, world: &World, by: usize) {
        match self {
            Self::Tasks(attempts) => attempts.iter().for_each(|attempt| {
                world.judge(|oracle| oracle.settled(by, *attempt));
            }),
            Self::CancelMark(up_to) => {
                world.judge(|oracle| oracle.orders.mark_settled(*up_to));
            }
            Self::Order(order) => drop(world.judge(|oracle| oracle.orders.settled(order))),
        }
    }
}
