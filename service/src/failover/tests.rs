//! The real session on a fake broker: what instances say goes in, and what is
//! called, closed, asked and submitted again comes out.

mod cancel;

use super::ConnectionCloser;
use crate::broker::health::HealthState;
use crate::broker::ownership::Claimant;
use crate::broker::session::{LinkState, SessionContext, keep_engaged};
use crate::model::{Destination, TaskSpec, TaskState};
use crate::publishing::Placements;
use crate::store::conformance::{spec, store};
use crate::store::{Chunk, Handing, RecordedTask, Registration, Store};
use crate::stub_broker::{Broker, result_of};
use async_trait::async_trait;
use clutch_common::id::{Attempt, EndpointId, ServiceId, StateId, TaskId};
use clutch_common::link::Message;
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use clutch_common::topology;
use clutch_common::wire::{self, Presence, Role, RollCall, ToEndpoint};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// How long anything may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Writes down what it was asked to close.
#[derive(Default)]
struct Closed(Mutex<Vec<(String, String, Instant)>>);

#[async_trait]
impl ConnectionCloser for Closed {
    async fn close_holder(&self, lease: &str, connection: &str) -> Result<bool, String> {
        self.0.lock().unwrap().push((lease.to_owned(), connection.to_owned(), Instant::now()));
        Ok(true)
    }
}

struct World {
    _temp: TempDir,
    running: Mutex<JoinSet<()>>,
    store: Store,
    broker: Broker,
    closed: Arc<Closed>,
    endpoint: EndpointId,
}

/// A session on a broker, with an endpoint that loses silent states soon.
async fn world(lost_after: Duration) -> World {
    let (temp, store) = store().await;
    let endpoint = register(&store, "lab", lost_after).await;
    let world = World {
        _temp: temp,
        running: Mutex::default(),
        store,
        broker: Broker::default().patient(),
        closed: Arc::default(),
        endpoint,
    };
    world.serve();
    world
}

async fn register(store: &Store, name: &str, lost_after: Duration) -> EndpointId {
    let wanted = Registration {
        name: name.to_owned(),
        id: None,
        queue: None,
        lost_after: Some(lost_after),
        now_ms: 1,
    };
    store.register(wanted).await.unwrap().0.id
}

impl World {
    /// Starts a session; one that was before is dropped where it stands.
    fn serve(&self) {
        let context = SessionContext {
            transport: Arc::new(self.broker.clone()),
            store: self.store.clone(),
            link: watch::channel(LinkState::Disengaged("not yet".into())).0,
            commits: watch::channel(0).0,
            news: watch::channel(0).0,
            closer: Some(self.closed.clone()),
            ask_after: Duration::from_secs(600),
            claimant: Claimant { service: ServiceId::new(), take_over: false },
            management: None,
            told: HealthState::default(),
            submissions: TaskTracker::new(),
            placements: Placements::default(),
            rules: crate::messages::Rules::default(),
        };
        let mut running = JoinSet::new();
        running.spawn(async move {
            keep_engaged(&context, || (), &CancellationToken::new()).await.unwrap();
        });
        *self.running.lock().unwrap() = running;
    }

    fn tell(&self, state: StateId, role: Role, standby: bool, pending: u64) -> Presence {
        self.tell_of(self.endpoint, state, role, standby, pending)
    }

    fn tell_of(
        &self,
        endpoint_id: EndpointId,
        state: StateId,
        role: Role,
        standby: bool,
        pending: u64,
    ) -> Presence {
        let instance = Uuid::from_u128(state.0.as_u128() + 1);
        let presence = Presence {
            endpoint_id,
            state_id: state,
            instance,
            role,
            standby,
            replaces: false,
            answered: false,
            asks: false,
            pending,
            lost: false,
            delivered: None,
            details: None,
        };
        self.broker.deliver_message(Message {
            message_id: Some(Uuid::new_v4().to_string()),
            body: wire::encode_presence(&presence),
            ..Message::default()
        });
        presence
    }

    /// Has another endpoint be asked for a task. What the service had to do for the first
    /// endpoint, by what it was told before, is done by then.
    async fn another_is_asked(&self, name: &str) {
        let endpoint = register(&self.store, name, SOON).await;
        let begun = self.submitted_to(endpoint, &[spec(&["a"])]).await;
        let (old, new) = (StateId::new(), StateId::new());
        self.tell_of(endpoint, old, Role::Active, true, 0);
        self.tell_of(endpoint, new, Role::Active, true, 0);
        let lost = TaskResult {
            endpoint_id: endpoint,
            lost: Some(Loss::HandedBack),
            state_id: Some(old),
            ..result_of(begun[0].task.attempt(), Outcome::Interrupted)
        };
        self.broker.deliver(wire::pack_results(endpoint, &[wire::encode_result(&lost)]));
        self.tell_of(endpoint, old, Role::Standby, true, 0);
        let queue = topology::tasks_queue(endpoint);
        until("another endpoint to be asked", async || !self.published(&queue).is_empty()).await;
    }

    fn lose(&self, task: TaskId, attempt: u32, lost: Loss, state: StateId) {
        let result = TaskResult {
            lost: Some(lost),
            state_id: Some(state),
            ..result_of(Attempt { task_id: task, attempt }, Outcome::Interrupted)
        };
        self.deliver(&result);
    }

    fn deliver(&self, result: &TaskResult) {
        let result = TaskResult { endpoint_id: self.endpoint, ..result.clone() };
        self.broker.deliver(wire::pack_results(self.endpoint, &[wire::encode_result(&result)]));
    }

    /// Tasks that the broker has.
    async fn submitted(&self, specs: &[TaskSpec]) -> Vec<RecordedTask> {
        self.submitted_to(self.endpoint, specs).await
    }

    async fn submitted_to(&self, endpoint: EndpointId, specs: &[TaskSpec]) -> Vec<RecordedTask> {
        let total = specs.len() as u64;
        let chunk = Chunk {
            to: Destination::Endpoint(endpoint.to_string()),
            key: format!("k of {endpoint}"),
            total,
            first: 0,
            specs: specs.to_vec(),
            handing: Handing::New,
            retry: None,
            due: None,
            parent: None,
            now_ms: now_ms(),
        };
        let begun = self.store.record_submission(chunk).await.unwrap().unwrap().tasks;
        let seqs = begun.iter().map(|one| (one.seq, 1)).collect();
        self.store.mark_submitted(seqs, 2000).await.unwrap();
        begun
    }

    /// The messages published to a queue.
    fn published(&self, queue: &str) -> Vec<Message> {
        let published = self.broker.published().into_iter();
        published.filter(|(to, _)| to.routing_key == queue).map(|(_, message)| message).collect()
    }

    /// Roll calls and attempts in the task queue, in order.
    fn task_queue(&self) -> Vec<ToEndpoint> {
        let queue = self.published(&topology::tasks_queue(self.endpoint));
        queue.iter().map(|message| wire::decode_to_endpoint(&message.body, None)).collect()
    }

    fn roll_calls(&self) -> Vec<RollCall> {
        let calls = self.task_queue().into_iter().filter_map(|message| match message {
            ToEndpoint::RollCall(call) => Some(call),
            ToEndpoint::Tasks(_) | ToEndpoint::CancelMark(_) | ToEndpoint::Unknown(_) => None,
        });
        calls.collect()
    }

    fn attempts(&self) -> Vec<Attempt> {
        let tasks = self.task_queue().into_iter().filter_map(|message| match message {
            ToEndpoint::RollCall(_) | ToEndpoint::CancelMark(_) | ToEndpoint::Unknown(_) => None,
            ToEndpoint::Tasks(tasks) => Some(tasks.tasks),
        });
        tasks.flatten().map(|task| task.attempt()).collect()
    }

    async fn state(&self, task: TaskId) -> TaskState {
        self.store.task(task).await.unwrap().unwrap().summary.state
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "{what}: not in time");
}

#[tokio::test]
async fn a_silent_holder_is_closed_three_seconds_after_its_last_word_and_one_that_answers_is_not() {
    let world = world(SOON).await;
    let (active, standby) = (StateId::new(), StateId::new());
    let holder = world.tell(active, Role::Active, false, 0);
    world.tell(standby, Role::Standby, true, 0);
    let lease = topology::lease_queue(world.endpoint);
    // Each call is answered, for longer than silence would be borne.
    let mut answered = 0;
    let mut last = Instant::now();
    until("five calls", async || {
        let calls = world.published(&lease).len();
        if calls > answered {
            answered = calls;
            world.tell(active, Role::Active, false, 0);
            last = Instant::now();
        }
        answered >= 5
    })
    .await;
    assert_eq!(
        wire::decode_to_lease_holder(&world.published(&lease)[0].body),
        wire::ToLeaseHolder::Ping
    );
    assert!(world.closed.0.lock().unwrap().is_empty());
    until("the connection to be closed", async || !world.closed.0.lock().unwrap().is_empty()).await;
    let (of, connection, when) = world.closed.0.lock().unwrap()[0].clone();
    let name = format!("clutch/{}/{}", world.endpoint, holder.instance);
    assert_eq!((of, connection), (lease, name));
    assert!(when - last >= Duration::from_millis(2900), "after {:?}", when - last);
    assert!(!world.published(topology::RESULTS_QUEUE).is_empty(), "all was read before");
}

#[tokio::test]
async fn no_connection_is_closed_while_pings_are_returned_or_the_results_queue_is_behind() {
    let world = world(SOON).await;
    let lease = topology::lease_queue(world.endpoint);
    world.broker.return_for(&lease, true);
    world.tell(StateId::new(), Role::Active, false, 0);
    world.tell(StateId::new(), Role::Standby, true, 0);
    until("six calls", async || world.published(&lease).len() >= 6).await;
    assert!(world.closed.0.lock().unwrap().is_empty(), "no instance held the lease");
    world.broker.return_for(topology::RESULTS_QUEUE, true);
    world.broker.return_for(&lease, false);
    until("six calls more", async || world.published(&lease).len() >= 12).await;
    assert!(world.closed.0.lock().unwrap().is_empty(), "it may have answered");
}

#[tokio::test]
async fn an_endpoint_without_a_standby_is_never_called() {
    let world = world(SOON).await;
    world.tell(StateId::new(), Role::Active, false, 3);
    // Another one, which shares its endpoint, is called again and again meanwhile.
    let other = register(&world.store, "other", SOON).await;
    world.tell_of(other, StateId::new(), Role::Active, false, 0);
    world.tell_of(other, StateId::new(), Role::Standby, true, 0);
    let called = |endpoint| world.published(&topology::lease_queue(endpoint)).len();
    until("three calls of the other", async || called(other) >= 3).await;
    assert_eq!(called(world.endpoint), 0);
    assert!(world.task_queue().is_empty());
}

#[tokio::test]
async fn attempts_handed_back_are_asked_for_and_submitted_again_if_they_are_lost() {
    let world = world(SOON).await;
    let specs = [spec(&["a"]), TaskSpec { rerun: false, ..spec(&["b"]) }, spec(&["c"])];
    let begun = world.submitted(&specs).await;
    let [a, b, c] = [0, 1, 2].map(|index: usize| begun[index].task.id);
    let (old, new) = (StateId::new(), StateId::new());
    world.tell(old, Role::Active, true, 0);
    world.tell(new, Role::Active, true, 0);
    for task in [a, b, c] {
        world.lose(task, 1, Loss::HandedBack, old);
    }
    for other in ["first", "second"] {
        world.another_is_asked(other).await;
    }
    assert!(world.roll_calls().is_empty(), "the old state may still have them");
    world.tell(old, Role::Standby, true, 0);
    until("the roll call", async || !world.roll_calls().is_empty()).await;
    let expected = [a, b, c].map(|task_id| Attempt { task_id, attempt: 1 });
    let instance = Uuid::from_u128(new.0.as_u128() + 1);
    let asked = RollCall { state_id: new, instance, attempts: expected.into() };
    assert_eq!(world.roll_calls(), [asked]);

    // One comes after all, two are nowhere, one of which must not run again.
    world.deliver(&result_of(Attempt { task_id: c, attempt: 1 }, Outcome::Succeeded));
    world.lose(a, 1, Loss::Unknown, new);
    world.lose(b, 1, Loss::Unknown, new);
    until("the second attempt", async || !world.attempts().is_empty()).await;
    assert_eq!(world.attempts(), [Attempt { task_id: a, attempt: 2 }]);
    until("its confirm", async || world.state(a).await == TaskState::Submitted).await;
    assert_eq!(world.state(b).await, TaskState::Done(Outcome::Interrupted));
    assert_eq!(world.state(c).await, TaskState::Done(Outcome::Succeeded));

    // A session later, nothing is in doubt; the first attempt's result is late.
    world.serve();
    world.deliver(&result_of(Attempt { task_id: a, attempt: 1 }, Outcome::Failed));
    world.deliver(&result_of(Attempt { task_id: b, attempt: 1 }, Outcome::Succeeded));
    world.deliver(&result_of(Attempt { task_id: a, attempt: 2 }, Outcome::Succeeded));
    let done = TaskState::Done(Outcome::Succeeded);
    until("the result", async || world.state(a).await == done).await;
    assert_eq!(world.state(b).await, TaskState::Done(Outcome::Interrupted));
    assert_eq!((world.roll_calls().len(), world.attempts().len()), (1, 1));
    let detail = world.store.task(a).await.unwrap().unwrap();
    let outcomes: Vec<Outcome> = detail.results.iter().map(|one| one.result.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Succeeded]);
    assert_eq!(detail.task.unwrap().attempt, 2);
}

#[tokio::test]
async fn a_new_disk_is_asked_for_all_and_asked_again_by_the_next_session() {
    let world = world(SOON).await;
    let specs: Vec<TaskSpec> = (0..2500).map(|n| spec(&["echo", &n.to_string()])).collect();
    let begun = world.submitted(&specs).await;
    world.tell(StateId::new(), Role::Active, false, 0);
    world.broker.return_for(&topology::tasks_queue(world.endpoint), true);
    let new = StateId::new();
    world.tell(new, Role::Active, false, 0);
    until("a roll call that fails", async || !world.roll_calls().is_empty()).await;
    let before = world.roll_calls().len();
    world.broker.return_for(&topology::tasks_queue(world.endpoint), false);
    world.serve();
    let asked = async |from: usize| {
        let mut asked: Vec<TaskId> = Vec::new();
        until("every attempt to be asked for", async || {
            let calls = world.roll_calls();
            let attempts = calls.iter().skip(from).flat_map(|call| {
                assert!(call.state_id == new && call.attempts.len() <= wire::ROLL_CALL_MAX);
                call.attempts.iter().map(|attempt| attempt.task_id)
            });
            asked = attempts.collect();
            asked.len() >= 2500
        })
        .await;
        asked.sort();
        asked
    };
    let expected: Vec<TaskId> = begun.iter().map(|one| one.task.id).collect();
    assert_eq!(asked(before).await, expected);
    let before = world.roll_calls().len();
    world.serve();
    let again = asked(before).await;
    assert_eq!(again, expected);
}

#[tokio::test]
async fn a_state_that_another_took_over_from_is_given_up_once_it_was_silent_for_long() {
    let world = world(Duration::from_millis(1500)).await;
    let begun = world.submitted(&[spec(&["a"])]).await;
    let task = begun[0].task.id;
    let (old, new) = (StateId::new(), StateId::new());
    world.tell(old, Role::Active, true, 0);
    world.tell(new, Role::Active, true, 0);
    let begin = Instant::now();
    // It is heard by a result, and has as much time again.
    sleep(Duration::from_millis(700)).await;
    let sign = TaskResult {
        state_id: Some(old),
        ..result_of(Attempt { task_id: TaskId::new(), attempt: 1 }, Outcome::Succeeded)
    };
    world.deliver(&sign);
    until("the roll call", async || !world.roll_calls().is_empty()).await;
    assert!(begin.elapsed() >= Duration::from_millis(2100), "{:?}", begin.elapsed());
    assert_eq!(world.roll_calls()[0].attempts, [Attempt { task_id: task, attempt: 1 }]);
    assert_eq!(world.roll_calls()[0].state_id, new);
}
