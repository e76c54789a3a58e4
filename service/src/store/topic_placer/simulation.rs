//! Seeded simulation of placing: the records, the board and the rules of fences with members that
//! are cut off, killed and lost, with clocks that are off by up to 15 s.
//!
//! A seed determines a run. The records are a real database; the broker and the members are data
//! here. After every placement a judge compares credit and turns, and at the end every task that
//! a member could do has its outcome, and none started twice but after a crash or a loss.
//!
//! | variable | meaning |
//! |---|---|
//! | `CLUTCH_SIMULATE_SEEDS` | `A..B`: the seeds to run; 0..30 without it |

use super::*;
use crate::model::{Destination, TopicOrder};
use crate::schedule::choices::Choices;
use crate::store::conformance::{self, chunk};
use crate::store::{Batch, PresenceMessage, Registration};
use crate::stub_broker::{active, result_of};
use clutch_common::id::StateId;
use clutch_common::task::Task;
use clutch_common::task::result::Loss;
use clutch_common::wire::{Claims, FunctionOffer, InstanceDetails};
use std::collections::VecDeque;
use std::sync::Arc;
use uuid::Uuid;

const FUNCTIONS: [&str; 2] = ["f", "g"];

/// How far an attempt is at its member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Accepted,
    Claiming,
    Running,
}

struct Member {
    id: EndpointId,
    slots: u64,
    functions: usize,
    /// How far its clock is ahead.
    ahead: i64,
    linked: bool,
    gone: bool,
    queue: VecDeque<Task>,
    has: BTreeMap<Attempt, (Task, Phase)>,
    /// The messages that the broker does not have.
    outbox: VecDeque<Message>,
}

enum Message {
    Claim(Attempt),
    Result(Box<TaskResult>),
    Barrier(u64),
}

struct World {
    choices: Choices,
    store: Store,
    now_ms: u64,
    members: Vec<Member>,
    /// The results queue: what each message is, and the member that sent it.
    results: VecDeque<(Option<usize>, Message)>,
    barrier: bool,
    starts: BTreeMap<TaskId, (usize, usize)>,
    tasks: Vec<TaskId>,
}

impl World {
    async fn new(seed: u64) -> (tempfile::TempDir, Self) {
        let mut choices = Choices::of_seed(seed);
        let (temp, store) = conformance::store().await;
        let mut members = Vec::new();
        for number in 0..choices.between(1, 4) {
            members.push(Member {
                id: EndpointId(Uuid::from_u128(number as u128 + 1)),
                slots: choices.between(1, 4) as u64,
                functions: choices.between(1, 2),
                ahead: choices.ms(30_000) - 15_000,
                linked: true,
                gone: false,
                queue: VecDeque::new(),
                has: BTreeMap::new(),
                outbox: VecDeque::new(),
            });
        }
        let (results, starts) = (VecDeque::new(), BTreeMap::new());
        let (now_ms, barrier, tasks) = (1_000_000, false, Vec::new());
        let world = Self { choices, store, now_ms, members, results, barrier, starts, tasks };
        for number in 0..world.members.len() {
            world.register(number).await;
            world.tell(number).await;
        }
        (temp, world)
    }

    async fn register(&self, number: usize) {
        let (name, id) = (format!("m{number}"), Some(self.members[number].id));
        let wanted = Registration { name, id, queue: None, lost_after: None, now_ms: 1 };
        self.store.register(wanted).await.unwrap();
    }

    /// A member connects and tells what it offers.
    async fn tell(&self, number: usize) {
        let member = &self.members[number];
        let offers = FUNCTIONS[..member.functions].iter();
        let details = InstanceDetails {
            version: String::new(),
            host: String::new(),
            slots: member.slots,
            free: 0,
            topics: vec!["t".to_owned()],
            functions: offers
                .map(|name| FunctionOffer { name: (*name).to_owned(), version: None })
                .collect(),
            started_at_ms: 1,
            clock_ms: self.now_ms.checked_add_signed(member.ahead).unwrap(),
            draining: false,
        };
        let state = StateId(Uuid::from_u128(100 + number as u128));
        let presence = active(member.id, state, Uuid::from_u128(u128::from(self.now_ms)));
        let presence = clutch_common::wire::Presence { details: Some(details), ..presence };
        let message = PresenceMessage { presence, message: None, commits: None, waited: false };
        let batch = Batch { presences: vec![message], ..Batch::default() };
        self.store.record(Arc::new(batch), self.now_ms, |_| ()).await.unwrap();
    }

    async fn submit(&mut self) {
        let function = self.choices.below(FUNCTIONS.len());
        let spec = serde_json::json!({ "call": { "function": FUNCTIONS[function] } });
        let spec: crate::model::TaskSpec = serde_json::from_value(spec).unwrap();
        let order = TopicOrder {
            topic: "t".to_owned(),
            version: None,
            start_within_ms: 60_000,
            place_within_ms: None,
        };
        let specs = vec![spec; self.choices.between(1, 6)];
        let key = format!("k{}", self.tasks.len());
        let chunk = crate::store::Chunk {
            to: Destination::Topic(order),
            now_ms: self.now_ms,
            ..chunk(EndpointId(Uuid::nil()), &key, &specs)
        };
        let recorded = self.store.record_submission(chunk).await.unwrap().unwrap();
        self.tasks.extend(recorded.tasks.iter().map(|one| one.task.id));
    }

    async fn place(&mut self) {
        let limit = self.choices.between(1, 20);
        let page = self.store.place_topic_tasks(limit, self.now_ms).await.unwrap();
        for view in self.store.topic_board().with(|board| board.view(self.now_ms)).members {
            let is_given = page.by_member.contains_key(&view.endpoint);
            assert!(!is_given || view.held <= view.credit, "beyond its credit: {view:?}");
            let waits = "SELECT count(*) FROM topic_tasks w JOIN topic_kinds k ON k.n = w.kind \
                 WHERE w.waits = 1 AND k.function = ?";
            let member = self.members.iter().find(|one| one.id == view.endpoint).unwrap();
            for function in FUNCTIONS[..member.functions].iter().filter(|_| page.tasks < limit) {
                let count = move |db: &Db<'_>| db.only::<(u64,)>(waits, values![*function]);
                let (waiting,) = self.store.read("counting", count).await.unwrap();
                let idle = view.why_none.is_none() && waiting > 0;
                assert!(!idle, "{function} waits, and {view:?} has room");
            }
        }
        let now_ms = self.now_ms;
        let find = "SELECT count(*) FROM topic_tasks w WHERE w.waits = 1 AND w.turn < \
             (SELECT max(p.turn) FROM topic_tasks p WHERE p.kind = w.kind AND p.placed_at_ms = ?)";
        let count = move |db: &Db<'_>| db.only::<(u64,)>(find, values![now_ms]);
        if page.tasks > 0 {
            let (overtaken,) = self.store.read("counting", count).await.unwrap();
            assert_eq!(overtaken, 0, "a later turn was placed first");
        }
        for (id, tasks) in page.by_member {
            let taken = self.choices.below(10);
            let attempts: Vec<(i64, u32)> =
                tasks.iter().map(|one| (one.seq, one.task.attempt)).collect();
            if taken == 0 {
                self.store.keep_waiting(attempts).await.unwrap();
                continue;
            }
            let member = self.members.iter_mut().find(|one| one.id == id).unwrap();
            member.queue.extend(tasks.into_iter().map(|one| one.task));
            // Or the service has no answer yet: the task is at its member all the same.
            if taken > 2 {
                self.store.mark_submitted(attempts, self.now_ms).await.unwrap();
            }
        }
    }

    /// A member reads, claims, starts and ends what it can.
    fn member_goes_on(&mut self, number: usize) {
        let member = &mut self.members[number];
        if member.gone {
            return;
        }
        let clock = self.now_ms.checked_add_signed(member.ahead).unwrap();
        if member.linked {
            for task in member.queue.drain(..) {
                member.has.insert(task.attempt(), (task, Phase::Accepted));
            }
            while let Some(message) = member.outbox.pop_front() {
                if let Message::Claim(attempt) = message
                    && let Some((task, phase)) = member.has.get_mut(&attempt)
                    && task.topic.as_ref().unwrap().may_start(clock)
                {
                    *phase = Phase::Running;
                    self.starts.entry(attempt.task_id).or_default().0 += 1;
                }
                self.results.push_back((Some(number), message));
            }
        }
        let attempts: Vec<Attempt> = member.has.keys().copied().collect();
        for attempt in attempts {
            let (task, phase) = member.has.get_mut(&attempt).unwrap();
            let end = match *phase {
                Phase::Running if self.choices.once_in(3) => Outcome::Succeeded,
                Phase::Accepted | Phase::Claiming
                    if !task.topic.as_ref().unwrap().may_start(clock) =>
                {
                    Outcome::Interrupted
                }
                Phase::Accepted if member.linked => {
                    *phase = Phase::Claiming;
                    member.outbox.push_back(Message::Claim(attempt));
                    continue;
                }
                Phase::Accepted | Phase::Claiming | Phase::Running => continue,
            };
            let lost = (end == Outcome::Interrupted).then_some(Loss::NotStarted);
            let result = TaskResult { endpoint_id: member.id, lost, ..result_of(attempt, end) };
            member.has.remove(&attempt);
            member.outbox.push_back(Message::Result(Box::new(result)));
        }
    }

    async fn collect(&mut self, most: usize) {
        let mut batch = Batch::default();
        let mut heard = BTreeSet::new();
        let mut read_ms = None;
        for _ in 0..most {
            let Some((from, message)) = self.results.pop_front() else { break };
            let endpoint_id = from.map(|number| self.members[number].id);
            heard.extend(endpoint_id);
            match (message, endpoint_id) {
                (Message::Claim(attempt), Some(endpoint_id)) => {
                    let state_id = StateId(Uuid::nil());
                    batch.claims.push(Claims { endpoint_id, state_id, attempts: vec![attempt] });
                }
                (Message::Result(result), _) => batch.results.push(*result),
                (Message::Barrier(sent_ms), _) => {
                    read_ms = Some(sent_ms);
                    break;
                }
                (Message::Claim(_), None) => (),
            }
        }
        let tally = self.store.record(Arc::new(batch), self.now_ms, |_| ()).await.unwrap();
        assert_eq!(tally.refused + tally.external, 0, "every result is of a task here");
        self.store.topic_board().heard(heard, self.now_ms);
        if let Some(read_ms) = read_ms {
            self.barrier = false;
            let fenced = self.store.topic_board().with(|board| board.fenced(read_ms, 100));
            self.store.end_placements(fenced, After::Fenced, self.now_ms).await.unwrap();
        }
        let due = self.store.topic_board().with(|board| board.next_end());
        if due.is_some_and(|due| due <= self.now_ms) && !self.barrier {
            self.barrier = true;
            self.results.push_back((None, Message::Barrier(self.now_ms)));
        }
    }

    /// A fault.
    async fn fault(&mut self) {
        let number = self.choices.below(self.members.len());
        match self.choices.below(4) {
            0 => self.members[number].linked = false,
            1 => self.link(number).await,
            2 => {
                // Its daemon dies: what ran starts again with it, what was claimed is claimed again.
                let member = &mut self.members[number];
                for (attempt, (_, phase)) in &mut member.has {
                    if *phase == Phase::Running {
                        let starts = self.starts.entry(attempt.task_id).or_default();
                        *starts = (starts.0 + 1, starts.1 + 1);
                    }
                }
            }
            // The service starts again: its board begins from the records.
            _ => self.store.load_topics(self.now_ms).await.unwrap(),
        }
    }

    async fn link(&mut self, number: usize) {
        if !self.members[number].gone && !self.members[number].linked {
            self.members[number].linked = true;
            self.tell(number).await;
        }
    }

    /// A member is lost for good, with its disk.
    async fn lose(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.gone = true;
        for message in member.outbox.drain(..) {
            // It ran, and its result is lost with the disk.
            if let Message::Result(result) = message
                && result.outcome == Outcome::Succeeded
            {
                self.starts.entry(result.task_id).or_default().1 += 1;
            }
        }
        for attempt in member.has.keys() {
            self.starts.entry(attempt.task_id).or_default().1 += 1;
        }
        let id = member.id;
        // What is in the results queue is read before that.
        self.collect(usize::MAX).await;
        self.collect(usize::MAX).await;
        self.store.topic_board().seen(id, crate::topics::QueueReader::Away, self.now_ms);
        self.store.lose_member(id, self.now_ms).await.unwrap();
    }

    async fn step(&mut self) {
        match self.choices.below(12) {
            0 | 1 if self.tasks.len() < 60 => self.submit().await,
            2 | 3 => self.place().await,
            4..=6 => {
                let number = self.choices.below(self.members.len());
                self.member_goes_on(number);
            }
            7 | 8 => {
                let most = self.choices.between(1, 8);
                self.collect(most).await;
            }
            9 => self.fault().await,
            10 if self.choices.once_in(20) && self.members.iter().any(|one| !one.gone) => {
                let number = self.choices.below(self.members.len());
                if number > 0 && !self.members[number].gone {
                    self.lose(number).await;
                }
            }
            _ => self.now_ms += self.choices.below(20_000) as u64,
        }
    }

    /// Heals what can be, and goes on until nothing happens.
    async fn heal(&mut self) {
        for _ in 0..200 {
            self.now_ms += 5000;
            for number in 0..self.members.len() {
                self.link(number).await;
                let member = &self.members[number];
                if !member.gone {
                    self.store.topic_board().heard([member.id], self.now_ms);
                }
                (0..4).for_each(|_| self.member_goes_on(number));
            }
            self.collect(usize::MAX).await;
            self.place().await;
            let open = |db: &Db<'_>| {
                db.only::<(u64,)>("SELECT count(*) FROM tasks WHERE attempt IS NULL", &[])
            };
            if self.store.read("counting", open).await.unwrap() == (0,) {
                break;
            }
        }
    }

    async fn judge(&self) {
        let able = |function: &str| {
            let there = self.members.iter().filter(|one| !one.gone);
            there.flat_map(|one| &FUNCTIONS[..one.functions]).any(|name| *name == function)
        };
        for task in &self.tasks {
            let detail = self.store.task(*task).await.unwrap().unwrap();
            let (starts, excused) = self.starts.get(task).copied().unwrap_or_default();
            assert!(starts <= 1 + excused, "{starts} starts of {task}, {excused} excused");
            let function = detail.summary.command.clone().unwrap_or_default();
            let is_done = matches!(detail.summary.state, crate::model::TaskState::Done(_));
            let can = FUNCTIONS.iter().any(|name| function.contains(name) && able(name));
            assert!(is_done || !can, "{task} has no end: {:?}", detail.summary);
        }
    }
}

/// The seeds to play.
fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("CLUTCH_SIMULATE_SEEDS") else { return 0..30 };
    let (first, end) = range.split_once("..").unwrap();
    first.parse().unwrap()..end.parse().unwrap()
}

#[tokio::test]
async fn every_seed_keeps_the_promises() {
    let (mut starts, all) = (0, seeds());
    for seed in all.clone() {
        eprintln!("seed {seed}");
        let (_temp, mut world) = World::new(seed).await;
        for _ in 0..250 {
            world.step().await;
        }
        world.heal().await;
        world.judge().await;
        starts += world.starts.len();
    }
    assert!(starts > all.count() * 5, "{starts} tasks started");
}
