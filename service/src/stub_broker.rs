//! A broker in memory for tests of what is above the seam: it settles, delivers
//! and fails as a test says, and writes down what it was asked.

use async_trait::async_trait;
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::link::{
    Connection, Delivery, Destination, Fault, Inlet, InletOptions, Message, Outlet, QueueBrowser,
    Settlement, Tag, Ticket, Transport,
};
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::topology::{EVENTS_QUEUE, OWNER_QUEUE, RESULTS_QUEUE, Topology};
use clutch_common::wire::{Presence, Role};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use uuid::Uuid;

/// Between two looks at what the test said.
const PAUSE: Duration = Duration::from_millis(5);

/// The broker. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Broker(Arc<Mutex<StubState>>);

#[derive(Default)]
struct StubState {
    declared: Vec<Topology>,
    refuse_declaring: Option<Fault>,
    settlements: VecDeque<Settlement>,
    /// Say nothing about what is published.
    silent: bool,
    fault_after_settling: Option<Fault>,
    published: Vec<(Destination, Message)>,
    deliveries: Vec<Delivery>,
    /// Do not end a connection when everything is delivered.
    patient: bool,
    acknowledged: Vec<Tag>,
    dead_lettered: Vec<Tag>,
    /// Queues that do not exist.
    returning: Vec<String>,
    /// How many messages wait in each queue.
    waiting: u64,
}

impl StubState {
    fn deliver(&mut self, message: Message) {
        let tag = Tag(self.deliveries.len() as u64 + 1);
        self.deliveries.push(Delivery { tag, redelivered: false, message });
    }
}

/// A message that can be told apart.
pub(crate) fn message(number: u8) -> Message {
    Message { body: vec![number], ..Message::default() }
}

/// A result of a task that was not submitted.
pub(crate) fn result(outcome: Outcome) -> TaskResult {
    result_of(Attempt { task_id: TaskId::new(), attempt: 1 }, outcome)
}

/// The presence message of an active instance without pending tasks.
pub(crate) fn active(endpoint_id: EndpointId, state_id: StateId, instance: Uuid) -> Presence {
    Presence {
        endpoint_id,
        state_id,
        instance,
        role: Role::Active,
        standby: false,
        replaces: false,
        answered: false,
        asks: false,
        pending: 0,
        lost: false,
        delivered: None,
        details: None,
    }
}

/// A result of an attempt.
pub(crate) fn result_of(attempt: Attempt, outcome: Outcome) -> TaskResult {
    TaskResult::not_run(attempt, outcome, "because".into(), EndpointId::new(), 5)
}

impl Broker {
    fn state(&self) -> MutexGuard<'_, StubState> {
        self.0.lock().unwrap()
    }

    /// Keeps consumers waiting when there is nothing to deliver.
    pub(crate) fn patient(self) -> Self {
        self.state().patient = true;
        self
    }

    /// Leaves publishers waiting, or goes on settling.
    pub(crate) fn silence(&self, silent: bool) {
        self.state().silent = silent;
    }

    pub(crate) fn settle_with(&self, settlements: impl IntoIterator<Item = Settlement>) {
        self.state().settlements = settlements.into_iter().collect();
    }

    pub(crate) fn fail_after_settling(&self, fault: Fault) {
        self.state().fault_after_settling = Some(fault);
    }

    /// Refuses every declaration except the claim to the results.
    pub(crate) fn refuse_declaring(&self, fault: Fault) {
        self.state().refuse_declaring = Some(fault);
    }

    pub(crate) fn deliver(&self, body: Vec<u8>) {
        self.deliver_message(Message { body, ..Message::default() });
    }

    pub(crate) fn deliver_message(&self, message: Message) {
        self.state().deliver(message);
    }

    /// Says from now on that so many messages wait in each queue.
    pub(crate) fn wait_with(&self, waiting: u64) {
        self.state().waiting = waiting;
    }

    /// Returns messages to this queue from now on, or takes them.
    pub(crate) fn return_for(&self, queue: &str, returned: bool) {
        let mut state = self.state();
        state.returning.retain(|other| other != queue);
        if returned {
            state.returning.push(queue.to_owned());
        }
    }

    pub(crate) fn published(&self) -> Vec<(Destination, Message)> {
        self.state().published.clone()
    }

    pub(crate) fn declared(&self) -> Vec<Topology> {
        self.state().declared.clone()
    }

    pub(crate) fn acknowledged(&self) -> Vec<Tag> {
        self.state().acknowledged.clone()
    }

    pub(crate) fn dead_lettered(&self) -> Vec<Tag> {
        self.state().dead_lettered.clone()
    }

    pub(crate) fn outlet(&self) -> Box<dyn Outlet> {
        Box::new(StubOutlet { broker: self.clone(), open: VecDeque::new(), last: 0 })
    }

    pub(crate) fn inlet(&self) -> Box<dyn Inlet> {
        // What is not acknowledged comes again.
        let settled = self.acknowledged().last().map_or(0, |tag| tag.0);
        Box::new(StubInlet { broker: self.clone(), next: usize::try_from(settled).unwrap() })
    }
}

#[async_trait]
impl Transport for Broker {
    async fn connect(&self, _: &str) -> Result<Box<dyn Connection>, Fault> {
        Ok(Box::new(self.clone()))
    }

    fn address(&self) -> String {
        "stub".to_owned()
    }
}

#[async_trait]
impl Connection for Broker {
    async fn declare(&self, topology: &Topology) -> Result<(), Fault> {
        let mut state = self.state();
        let claim = topology.queues.iter().any(|queue| queue.name == OWNER_QUEUE);
        if let Some(fault) = state.refuse_declaring.clone().filter(|_| !claim) {
            return Err(fault);
        }
        state.declared.push(topology.clone());
        Ok(())
    }

    async fn inlet(&self, options: &InletOptions) -> Result<Box<dyn Inlet>, Fault> {
        if options.queue == EVENTS_QUEUE {
            // Nothing is published there.
            return Ok(Box::new(StubInlet { broker: Self::default().patient(), next: 0 }));
        }
        Ok(self.inlet())
    }

    async fn outlet(&self) -> Result<Box<dyn Outlet>, Fault> {
        Ok(self.outlet())
    }

    async fn browse(&self, queue: &str, _: &str) -> Result<Box<dyn QueueBrowser>, Fault> {
        Err(Fault::Missing(format!("no queue '{queue}'")))
    }

    async fn waiting(&self, _: &str) -> Result<u64, Fault> {
        Ok(self.state().waiting)
    }

    async fn remove_queue(&self, queue: &str) -> Result<(), Fault> {
        self.return_for(queue, true);
        Ok(())
    }

    async fn close(&self) {}
}

struct StubOutlet {
    broker: Broker,
    open: VecDeque<Ticket>,
    last: u64,
}

#[async_trait]
impl Outlet for StubOutlet {
    async fn publish(&mut self, to: &Destination, message: Message) -> Result<Ticket, Fault> {
        self.last += 1;
        self.open.push_back(Ticket(self.last));
        let mut state = self.broker.state();
        if state.returning.contains(&to.routing_key) {
            state.settlements.push_back(Settlement::Returned("NO_ROUTE".into()));
        } else if to.routing_key == RESULTS_QUEUE {
            state.deliver(message.clone());
        }
        state.published.push((to.clone(), message));
        Ok(Ticket(self.last))
    }

    async fn settled(&mut self) -> Result<Vec<(Ticket, Settlement)>, Fault> {
        while self.broker.state().silent {
            tokio::time::sleep(PAUSE).await;
        }
        let Some(ticket) = self.open.pop_front() else { return std::future::pending().await };
        let mut state = self.broker.state();
        match (state.settlements.pop_front(), state.fault_after_settling.take()) {
            (Some(settlement), fault) => {
                state.fault_after_settling = fault;
                Ok(vec![(ticket, settlement)])
            }
            (None, Some(fault)) => Err(fault),
            (None, None) => Ok(vec![(ticket, Settlement::Confirmed)]),
        }
    }

    fn open(&self) -> usize {
        self.open.len()
    }
}

struct StubInlet {
    broker: Broker,
    next: usize,
}

#[async_trait]
impl Inlet for StubInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, Fault> {
        loop {
            let (batch, patient): (Vec<Delivery>, bool) = {
                let state = self.broker.state();
                (
                    state.deliveries.iter().skip(self.next).take(max).cloned().collect(),
                    state.patient,
                )
            };
            self.next += batch.len();
            match (batch.is_empty(), patient) {
                (false, _) => return Ok(batch),
                (true, false) => return Err(Fault::Closed("drained".into())),
                (true, true) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn lost(&mut self) -> Fault {
        std::future::pending().await
    }

    async fn acknowledge(&mut self, up_to: Tag) -> Result<(), Fault> {
        self.broker.state().acknowledged.push(up_to);
        Ok(())
    }

    async fn acknowledge_one(&mut self, tag: Tag) -> Result<(), Fault> {
        self.acknowledge(tag).await
    }

    async fn dead_letter(&mut self, tag: Tag) -> Result<(), Fault> {
        self.broker.state().dead_lettered.push(tag);
        Ok(())
    }
}
