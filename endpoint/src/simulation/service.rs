//! The service in a run: publishes tasks, some of them twice, some that cannot be
//! run or read; records results; and recovers what may be lost, as its records
//! decide. Its own link is sound.

use super::oracle::{Expected, name};
use super::plan::Mishap;
use super::process::ENDPOINT;
use super::records::{Records, Verdict};
use super::world::{World, lock};
use clutch_common::failover::Consequence;
use clutch_common::id::{Attempt, StateId, TaskId};
use clutch_common::link::{Delivery, Destination, Fault, InletOptions};
use clutch_common::link::{Message, Outlet, Settlement, Transport};
use clutch_common::task::priority::Priority;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::task::topic::TopicTerms;
use clutch_common::task::{Process, Task};
use clutch_common::wire::{Presence, Role};
use clutch_common::{topology, wire};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How often it looks for states that have been silent for too long.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a placed attempt may take to be claimed.
const START_WITHIN_MS: u64 = 60_000;
/// How often it looks how far it has read.
const BARRIER_EVERY_MS: u64 = 5_000;

/// The service.
pub(super) struct Service {
    pub(super) world: Arc<World>,
    pub(super) broker: Arc<dyn Transport>,
    records: Mutex<Records>,
    /// When the last barrier was sent into the results queue, and the same while it is not read.
    barrier: Mutex<(u64, Option<u64>)>,
    /// How the tasks end that are submitted again.
    expected: Mutex<BTreeMap<TaskId, Expected>>,
}

/// A message to be published, and what it brings.
struct Packed {
    message: Message,
    tasks: Vec<(Task, Expected)>,
}

impl Service {
    /// A service that has done nothing yet.
    pub(super) fn new(world: &Arc<World>, broker: &Arc<dyn Transport>) -> Arc<Self> {
        let plan = &world.plan;
        Arc::new(Self {
            world: Arc::clone(world),
            broker: Arc::clone(broker),
            records: Mutex::new(Records::new(plan.recovers(), plan.lost_after, Instant::now())),
            barrier: Mutex::default(),
            expected: Mutex::default(),
        })
    }

    /// Publishes all that the plan asks for. What is published twice is so at
    /// once, or later, as by a client that was in doubt.
    pub(super) async fn publish(&self) -> Result<(), Fault> {
        let world = &self.world;
        let connection = self.broker.connect("service").await?;
        let mut outlet = connection.outlet().await?;
        let mut number = 0;
        let mut again: Vec<Packed> = Vec::new();
        let pause = world.plan.faults_last.as_millis() as u64 / (2 * world.plan.messages);
        for _ in 0..world.plan.messages {
            tokio::time::sleep(world.millis(0..2 * pause + 1)).await;
            let packed = self.pack(&mut number);
            self.send(outlet.as_mut(), &packed).await?;
            if world.mishap(Mishap::Repeated) {
                again.push(packed);
            }
            while !again.is_empty() && world.flip() {
                let next = world.within(0..again.len() as u64) as usize;
                self.send_again(outlet.as_mut(), &again.swap_remove(next)).await?;
            }
        }
        for packed in again {
            self.send_again(outlet.as_mut(), &packed).await?;
        }
        connection.close().await;
        Ok(())
    }

    fn pack(&self, number: &mut u128) -> Packed {
        let (message, tasks, sound) = message(&self.world, number);
        lock(&self.expected).extend(sound);
        for (task, expected) in &tasks {
            let what = name(task.attempt());
            self.world.note(format_args!("service: publishes {what}: {expected:?}"));
            self.world.tell(|oracle| oracle.publishes(task.attempt(), *expected));
        }
        Packed { message, tasks }
    }

    /// Publishes tasks once more, unless one of them is to be cancelled.
    async fn send_again(&self, outlet: &mut dyn Outlet, packed: &Packed) -> Result<(), Fault> {
        let is_cancelled = |(task, _): &(Task, _)| lock(&self.records).is_cancelled(task.id);
        if packed.tasks.iter().any(is_cancelled) {
            return Ok(());
        }
        packed.tasks.iter().for_each(|(task, _)| self.publishes_again(task.attempt()));
        self.send(outlet, packed).await
    }

    fn publishes_again(&self, attempt: Attempt) {
        self.world.note(format_args!("service: publishes {} again", name(attempt)));
        self.world.tell(|oracle| oracle.publishes_again(attempt));
    }

    async fn send(&self, outlet: &mut dyn Outlet, packed: &Packed) -> Result<(), Fault> {
        if place(outlet, packed.message.clone()).await? {
            for (task, _) in &packed.tasks {
                self.world.tell(|oracle| oracle.submitted(task.attempt()));
                lock(&self.records).submitted(task.clone());
            }
        }
        Ok(())
    }

    /// Records results, and recovers what may be lost, for as long as it is
    /// polled.
    pub(super) async fn collect(&self) -> Result<(), Fault> {
        let connection = self.broker.connect("service/results").await?;
        let mut outlet = self.broker.connect("service/recovery").await?.outlet().await?;
        let options = InletOptions {
            queue: topology::RESULTS_QUEUE.to_owned(),
            prefetch: 100,
            lease: Some(topology::SERVICE_LEASE.to_owned()),
            one_by_one: false,
        };
        let mut inlet = connection.inlet(&options).await?;
        loop {
            let deliveries = tokio::select! {
                biased;
                deliveries = inlet.receive(100) => deliveries?,
                () = tokio::time::sleep(LOOK_EVERY) => Vec::new(),
            };
            for delivery in deliveries {
                self.take_in(&delivery);
                inlet.acknowledge(delivery.tag).await?;
            }
            if self.world.plan.recovers() {
                self.recover(outlet.as_mut()).await?;
            }
        }
    }

    fn take_in(&self, delivery: &Delivery) {
        match wire::decode_to_service(&delivery.message.body) {
            wire::ToService::Results(results) => {
                if let Some(unreadable) = results.unreadable.first() {
                    self.world.fail(format!("a result cannot be read: {unreadable}"));
                }
                results.results.iter().for_each(|result| self.record(result));
            }
            wire::ToService::Presence(presence) => self.hear(&presence),
            wire::ToService::Claims(claims) => {
                self.decide(|records| records.claim(&claims.attempts));
            }
            wire::ToService::Ping => {
                let read_ms = lock(&self.barrier).1.take().unwrap_or_default();
                for fenced in self.decide(|records| records.fence(read_ms)) {
                    self.world.note(format_args!("service: fences {}", name(fenced)));
                }
            }
            wire::ToService::Post(_) | wire::ToService::Unknown(_) => (),
        }
    }

    fn record(&self, result: &TaskResult) {
        let (world, attempt, outcome) = (&self.world, result.attempt(), result.outcome);
        let verdict = lock(&self.records).record(result, Instant::now());
        let why = result.lost.map_or(String::new(), |lost| format!(" ({lost:?})"));
        world.note(format_args!("service: {} {outcome}{why}: {verdict:?}", name(attempt)));
        if result.lost.is_none() {
            world.judge(|oracle| oracle.records(attempt, outcome));
        }
        match verdict {
            Verdict::Lost(Consequence::Cancel) => {
                world.judge(|oracle| oracle.concludes(attempt));
                world.judge(|oracle| oracle.cancels(attempt));
            }
            Verdict::Done | Verdict::Lost(Consequence::Interrupt) => {
                world.judge(|oracle| oracle.concludes(attempt));
                if result.lost.is_none() && outcome == Outcome::Cancelled {
                    world.tell(|oracle| oracle.orders.cancelled(attempt.task_id));
                }
            }
            Verdict::Kept | Verdict::Known | Verdict::Lost(_) | Verdict::Unknown => (),
        }
    }

    fn hear(&self, presence: &Presence) {
        let world = &self.world;
        let (instance, role) = (node(presence.state_id), presence.role);
        let pending = presence.pending;
        world.note(format_args!(
            "service: hears that instance {instance} is {role:?}, {pending} pending"
        ));
        let given_up = lock(&self.records).hear(presence, Instant::now());
        given_up.into_iter().for_each(|state| self.gives_up(state));
        if role == Role::Standby && world.plan.recovers() {
            world.call(Message { body: wire::encode_ping(), ..Message::default() });
        }
    }

    fn gives_up(&self, state: StateId) {
        let instance = node(state);
        self.world.note(format_args!("service: gives up instance {instance}"));
        self.world.tell(|oracle| oracle.gives_up(instance));
    }

    /// Declares the endpoint lost by a person's word, which may be wrong: an instance that is
    /// there is called, and says so.
    fn declares_lost(&self) {
        self.world.note(format_args!("service: is told that the endpoint is lost"));
        let lost = self.decide(Records::declare_lost);
        if !lost.is_empty() {
            lost.into_iter().for_each(|state| self.gives_up(state));
            self.world.call(Message { body: wire::encode_ping(), ..Message::default() });
        }
    }

    pub(super) fn decide<T>(&self, how: impl FnOnce(&mut Records) -> T) -> T {
        how(&mut lock(&self.records))
    }

    /// Gives up silent states, submits again tasks that are nowhere, and asks for tasks that
    /// may be. A client that was in doubt for long may publish a task that is nowhere, too.
    async fn recover(&self, outlet: &mut dyn Outlet) -> Result<(), Fault> {
        let silent = self.decide(|records| records.give_up(Instant::now()));
        silent.into_iter().for_each(|state| self.gives_up(state));
        if self.world.mishap(Mishap::DeclaredLost) {
            self.declares_lost();
        }
        let (now_ms, (sent, unread)) = (self.world.clock_ms(), *lock(&self.barrier));
        if self.world.plan.topics && unread.is_none() && now_ms >= sent + BARRIER_EVERY_MS {
            *lock(&self.barrier) = (now_ms, Some(now_ms));
            let barrier = Message { body: wire::encode_ping(), ..Message::default() };
            place_in(outlet, topology::RESULTS_QUEUE.to_owned(), barrier).await?;
        }
        let start_by_ms = self.world.clock_ms() + START_WITHIN_MS;
        while let Some(task) = self.decide(|records| records.next_to_resubmit(start_by_ms)) {
            let attempt = task.attempt();
            let expected = lock(&self.expected).get(&task.id).copied();
            self.world.note(format_args!("service: submits again, as {}", name(attempt)));
            self.world.tell(|oracle| expected.map(|expected| oracle.publishes(attempt, expected)));
            let earlier = Task { attempt: attempt.attempt - 1, ..task.clone() };
            let mut tasks = vec![&task];
            // One that could not be read the first time could be now.
            let same = expected == self.world.tell(|oracle| oracle.expects(earlier.attempt()));
            let same = same && task.topic.is_none();
            if same && self.world.plan.once_in(Mishap::Repeated).is_some() && self.world.flip() {
                self.publishes_again(earlier.attempt());
                tasks.insert(0, &earlier);
            }
            for task in tasks {
                let body = wire::encode_tasks(&[task]);
                place(outlet, Message { body, ..Message::default() }).await?;
            }
            self.decide(|records| records.placed(task.id));
        }
        while let Some(roll_call) = self.decide(|records| records.next_to_ask(Instant::now())) {
            let names: Vec<String> = roll_call.attempts.iter().map(|one| name(*one)).collect();
            let (instance, names) = (node(roll_call.state_id), names.join(" "));
            self.world.note(format_args!("service: asks instance {instance} for {names}"));
            let body = wire::encode_roll_call(&roll_call);
            place(outlet, Message { body, ..Message::default() }).await?;
        }
        Ok(())
    }
}

/// Publishes to the endpoint's task queue; says whether the broker has it.
pub(super) async fn place(outlet: &mut dyn Outlet, message: Message) -> Result<bool, Fault> {
    place_in(outlet, topology::tasks_queue(ENDPOINT), message).await
}

/// Publishes to a queue; says whether the broker has it.
pub(super) async fn place_in(
    outlet: &mut dyn Outlet,
    queue: String,
    message: Message,
) -> Result<bool, Fault> {
    let to = Destination { exchange: String::new(), routing_key: queue };
    outlet.publish(&to, message).await?;
    let settled = outlet.settled().await?;
    Ok(settled.iter().all(|(_, settlement)| *settlement == Settlement::Confirmed))
}

/// The instance that has a state.
fn node(state: StateId) -> usize {
    state.0.as_u128() as usize - 1
}

/// A message and the tasks in it, how they must end, and how they must where
/// they are submitted again.
type Made = (Message, Vec<(Task, Expected)>, BTreeMap<TaskId, Expected>);

fn message(world: &World, number: &mut u128) -> Made {
    let count = world.within(1..world.plan.message_tasks + 1);
    let mut tasks: Vec<(Task, Expected)> = (0..count).map(|_| task(world, number)).collect();
    let mut body = wire::encode_tasks(&tasks.iter().map(|(task, _)| task).collect::<Vec<_>>());
    let sound = tasks.iter().map(|(task, expected)| (task.id, *expected)).collect();
    let correlation_id = (count == 1).then(|| tasks[0].0.id.to_string());
    if count == 1 && world.within(0..30) == 0 {
        body.truncate(body.len() / 2);
        tasks[0].1 = Expected::Not(Outcome::Rejected);
    }
    (Message { correlation_id, body, ..Message::default() }, tasks, sound)
}

fn task(world: &World, number: &mut u128) -> (Task, Expected) {
    *number += 1;
    let process = |argv: &[&str]| Process {
        argv: argv.iter().map(|argument| (*argument).into()).collect(),
        ..Process::default()
    };
    // Some have a payload that does not fit into a record of the disk queue.
    let large = world.within(0..5) == 0;
    let stdin = vec![b'x'; if large { world.within(0..6_000) as usize } else { 0 }];
    let work = Process { stdin: stdin.into(), ..process(&["true"]) };
    let mut task = Task::new(TaskId(uuid::Uuid::from_u128(*number)), work);
    task.priority = Priority::ALL[world.within(0..5) as usize];
    if world.plan.topics && world.flip() {
        let start_by_ms = world.clock_ms() + world.within(500..START_WITHIN_MS);
        task.topic = Some(TopicTerms { name: "t".to_owned(), start_by_ms, version: None });
    }
    let slots = world.plan.slots as u32;
    if world.within(0..4) == 0 {
        task.cores = world.within(1..u64::from(slots) + 1) as u32;
    }
    let expected = match world.within(0..20) {
        0 => {
            task.work = clutch_common::task::Work::Process(Process::default());
            Expected::Not(Outcome::Rejected)
        }
        1 => {
            task.expires_at_ms = Some(1);
            Expected::Not(Outcome::Expired)
        }
        2 => {
            task.cores = slots + 1;
            Expected::Not(Outcome::Rejected)
        }
        3..7 => {
            task.rerun = false;
            Expected::Run { rerun: false }
        }
        _ => Expected::Run { rerun: true },
    };
    (task, expected)
}
