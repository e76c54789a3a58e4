//! The router with real records and a stub broker: what it publishes for what endpoints say.

use super::*;
use crate::model::MessageState;
use crate::publishing::{AnswerRecorder, Placements, Publisher, publish};
use crate::store::conformance::{chunk, record, specs, store};
use crate::store::{Registration, Store};
use crate::stub_broker::{Broker, result_of};
use clutch_common::id::{Attempt, EndpointId, StateId, TaskId};
use clutch_common::link::Settlement;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::topology;
use clutch_common::wire::{
    Ask, Deliver, Judgement, MessageBody, PostToEndpoint, PostToService, Reply, RequestAnswer,
    Steering, TargetVerdict, TaskMessage, TaskRequest, ToEndpoint, decode_steering,
    decode_to_endpoint,
};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// A service with an endpoint, and a session of its router.
struct World {
    _temp: TempDir,
    store: Store,
    broker: Broker,
    endpoint: EndpointId,
    /// Two tasks of one submission.
    tasks: Vec<TaskId>,
    posts: Posts,
    commits: watch::Sender<u64>,
    _running: JoinSet<()>,
}

async fn world(rules: Rules) -> World {
    let (temp, store) = store().await;
    let (broker, endpoint) = (Broker::default(), EndpointId::new());
    let name = "lab".to_owned();
    let wanted =
        Registration { name, id: Some(endpoint), queue: None, lost_after: None, now_ms: 1 };
    store.register(wanted).await.unwrap();
    let begun = store.record_submission(chunk(endpoint, "k", &specs(2))).await.unwrap().unwrap();
    let submitted = begun.tasks.iter().map(|task| (task.seq, 1)).collect();
    store.mark_submitted(submitted, 5).await.unwrap();
    let (commits, (posts, incoming)) = (watch::Sender::new(0), posts());
    let (jobs, mut queue) = mpsc::channel(16);
    let later = TaskTracker::new();
    let (news, placements) = (watch::Sender::new(0), Placements::default());
    let answers =
        AnswerRecorder::new(store.clone(), news, commits.clone(), placements, later.clone());
    let publisher = Publisher::new(jobs, answers);
    let mut running = JoinSet::new();
    let outlet = broker.outlet();
    running.spawn(async move {
        publish(outlet, &mut queue, &CancellationToken::new()).await.unwrap();
    });
    let session = (store.clone(), broker.clone(), commits.subscribe());
    running.spawn(async move {
        let (store, connection, commits) = session;
        let mail = Mail::default();
        let parts = RouterParts {
            store: &store,
            publisher,
            connection: &connection,
            rules: &rules,
            commits,
            submissions: &later,
            mail: &mail,
        };
        Router::run(parts, incoming, &CancellationToken::new()).await.unwrap();
    });
    let tasks = begun.tasks.iter().map(|task| task.task.id).collect();
    World { _temp: temp, store, broker, endpoint, tasks, posts, commits, _running: running }
}

impl World {
    /// A request of the first task.
    fn asks(&self, copy: u32, ask: Ask) -> TaskRequest {
        TaskRequest {
            endpoint_id: self.endpoint,
            state_id: StateId::new(),
            request: Uuid::from_u128(9),
            copy,
            source: Attempt { task_id: self.tasks[0], attempt: 1 },
            ask,
        }
    }

    fn sends(&self, copy: u32, to: TaskId, body: &str) -> TaskRequest {
        self.asks(
            copy,
            Ask::Send(TaskMessage {
                to,
                attempt: None,
                addressee: "in".to_owned(),
                body: MessageBody::of(body.as_bytes()),
                wait_ms: 1000,
                mailbox: false,
            }),
        )
    }

    /// A verdict on the message to the second task.
    fn judges(&self, verdict: Judgement) -> PostToService {
        PostToService::Verdict(TargetVerdict {
            endpoint_id: self.endpoint,
            state_id: StateId::new(),
            message: Uuid::from_u128(9),
            copy: 1,
            since: 1,
            source: Attempt { task_id: self.tasks[0], attempt: 1 },
            answer_to: Some(self.endpoint),
            to: self.tasks[1],
            attempt: None,
            verdict,
        })
    }

    /// Hands a message over, and waits until it is done.
    async fn route(&self, post: PostToService) {
        let (incoming, mut settled) = Incoming::new(post);
        self.posts.hand_over(vec![incoming]);
        settled.done().await;
    }

    async fn ends(&self, task: TaskId, outcome: Outcome) {
        let result = TaskResult {
            endpoint_id: self.endpoint,
            ..result_of(Attempt { task_id: task, attempt: 1 }, outcome)
        };
        record(&self.store, &[result], &[], 10).await.unwrap();
        self.commits.send_modify(|count| *count += 1);
    }

    /// The messages that were published to the endpoint's control queue.
    fn published(&self) -> Vec<PostToEndpoint> {
        let queue = topology::control_queue(self.endpoint);
        let published = self.broker.published().into_iter();
        let posts = published.filter(|(to, _)| to.routing_key == queue).map(|(_, message)| {
            let Ok(Steering::Post(post)) = decode_steering(&message.body) else {
                panic!("another message")
            };
            post
        });
        posts.collect()
    }

    /// The reply that was published last.
    async fn last_reply(&self, published: usize) -> Reply {
        while self.published().len() < published {
            tokio::task::yield_now().await;
        }
        match self.published().pop() {
            Some(PostToEndpoint::Answer(RequestAnswer { answer, .. })) => answer,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_goes_to_its_target_and_its_verdict_to_its_sender() {
    let world = world(Rules::default()).await;
    let request = world.sends(1, world.tasks[1], "hello");
    world.route(PostToService::Request(request.clone())).await;
    let Ask::Send(content) = request.ask else { panic!("another request") };
    let deliver = Deliver {
        message: request.request,
        copy: 1,
        source: request.source,
        answer_to: Some(world.endpoint),
        content,
    };
    assert_eq!(world.published(), [PostToEndpoint::Deliver(deliver)]);
    world.route(world.judges(Judgement::Held)).await;
    assert_eq!(world.last_reply(2).await, Reply::Held);
    world.route(world.judges(Judgement::Taken(1))).await;
    assert_eq!(world.last_reply(3).await, Reply::Delivered(1));
}

#[tokio::test]
async fn a_target_that_has_ended_is_told_from_one_that_never_was() {
    let world = world(Rules::default()).await;
    world.ends(world.tasks[1], Outcome::Failed).await;
    let to_ended = world.sends(1, world.tasks[1], "x");
    world.route(PostToService::Request(to_ended)).await;
    assert_eq!(world.last_reply(1).await, Reply::Finished(Outcome::Failed));
    let to_nothing = world.sends(1, TaskId::new(), "x");
    world.route(PostToService::Request(to_nothing)).await;
    assert_eq!(world.last_reply(2).await, Reply::Unknown);
    world.route(world.judges(Judgement::NotHere)).await;
    assert_eq!(world.last_reply(3).await, Reply::Finished(Outcome::Failed));
}

#[tokio::test]
async fn the_sender_to_a_target_that_ends_is_told_once_its_result_is_recorded() {
    let world = world(Rules::default()).await;
    world.route(world.judges(Judgement::Ended(Outcome::Succeeded))).await;
    assert_eq!(world.published(), []);
    world.ends(world.tasks[1], Outcome::Succeeded).await;
    assert_eq!(world.last_reply(1).await, Reply::Finished(Outcome::Succeeded));
}

#[tokio::test]
async fn a_message_is_done_only_once_the_broker_has_what_follows_from_it() {
    let world = world(Rules::default()).await;
    world.broker.silence(true);
    let request = world.sends(1, world.tasks[1], "x");
    let (incoming, mut settled) = Incoming::new(PostToService::Request(request));
    world.posts.hand_over(vec![incoming]);
    while world.published().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!settled.is_done());
    world.broker.silence(false);
    settled.done().await;
}

#[tokio::test]
async fn the_sender_is_told_what_the_records_say_where_the_target_has_no_queue() {
    let world = world(Rules::default()).await;
    world.ends(world.tasks[1], Outcome::Interrupted).await;
    world.broker.settle_with([Settlement::Returned("NO_ROUTE".into())]);
    world.route(PostToService::Request(world.sends(2, world.tasks[1], "x"))).await;
    assert_eq!(world.last_reply(2).await, Reply::Finished(Outcome::Interrupted));
}

#[tokio::test]
async fn an_endpoint_that_gives_no_verdict_is_sent_a_bounded_number_of_messages() {
    let world = world(Rules::default()).await;
    // The stub says that nothing waits: the queue is read, and all may be sent.
    for number in 0..1500_u128 {
        let request = world.sends(1, world.tasks[1], "x");
        let request = TaskRequest { request: Uuid::from_u128(number), ..request };
        world.route(PostToService::Request(request)).await;
    }
    assert_eq!(world.published().len(), 1500);
    world.broker.wait_with(5);
    for number in 1500..2500_u128 {
        let request = world.sends(1, world.tasks[1], "x");
        let request = TaskRequest { request: Uuid::from_u128(number), ..request };
        world.route(PostToService::Request(request)).await;
    }
    let published = world.published();
    let is_deliver = |post: &&PostToEndpoint| matches!(post, PostToEndpoint::Deliver(_));
    assert_eq!(published.iter().filter(is_deliver).count(), 2000);
    assert_eq!(world.last_reply(2500).await, Reply::NoRoom);
}

#[tokio::test]
async fn children_are_recorded_once_with_their_parent_and_their_outcome_is_told() {
    let world = world(Rules::default()).await;
    let asked = r#"{"tasks":[{"argv":["true"]},{"argv":["false"]}]}"#;
    let ask = |copy| world.asks(copy, Ask::Submit(asked.parse().unwrap()));
    world.route(PostToService::Request(ask(1))).await;
    let Reply::Submitted(ids) = world.last_reply(1).await else { panic!("not submitted") };
    world.route(PostToService::Request(ask(2))).await;
    assert_eq!(world.last_reply(2).await, Reply::Submitted(ids.clone()), "the same ones");
    let task = world.store.task(ids[1]).await.unwrap().unwrap().task.unwrap();
    assert_eq!(task.parent, Some(world.tasks[0]));
    let queue = topology::tasks_queue(world.endpoint);
    let published = async || loop {
        let all = world.broker.published();
        if let Some((_, message)) = all.into_iter().find(|(to, _)| to.routing_key == queue) {
            return message;
        }
        tokio::task::yield_now().await;
    };
    let ToEndpoint::Tasks(tasks) = decode_to_endpoint(&published().await.body, None) else {
        panic!("no tasks")
    };
    assert!(tasks.tasks.iter().all(|one| one.parent == task.parent && one.group == task.group));
    world.ends(ids[1], Outcome::Failed).await;
    let outcome = |task| world.asks(1, Ask::Outcome { task, wait_ms: 60_000 });
    world.route(PostToService::Request(outcome(ids[1]))).await;
    let Reply::Ended(detail) = world.last_reply(3).await else { panic!("not ended") };
    assert!(detail.text().contains(r#""state":"failed""#), "{detail}");
    world.route(PostToService::Request(outcome(TaskId::new()))).await;
    assert_eq!(world.last_reply(4).await, Reply::Unknown);
}

#[tokio::test]
async fn children_go_to_other_endpoints_only_where_the_rules_name_them() {
    for (children_at, allowed) in [(vec![], false), (vec!["other".to_owned()], true)] {
        let world = world(Rules { children_at, ..Rules::default() }).await;
        let name = "other".to_owned();
        let wanted = Registration { name, id: None, queue: None, lost_after: None, now_ms: 1 };
        world.store.register(wanted).await.unwrap();
        let asked = r#"{"endpoint":"other","tasks":[{"argv":["true"]}]}"#;
        let ask = Ask::Submit(asked.parse().unwrap());
        world.route(PostToService::Request(world.asks(1, ask))).await;
        let reply = world.last_reply(1).await;
        assert_eq!(matches!(reply, Reply::Submitted(_)), allowed, "{reply:?}");
        assert_eq!(matches!(reply, Reply::Forbidden(_)), !allowed, "{reply:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_message_is_sent_again_until_its_target_took_it() {
    let world = world(Rules::default()).await;
    let mut request = world.sends(1, world.tasks[1], "later");
    let Ask::Send(message) = &mut request.ask else { panic!("another request") };
    message.mailbox = true;
    for (copy, published) in [(1, 1), (2, 3)] {
        let request = TaskRequest { copy, ..request.clone() };
        world.route(PostToService::Request(request)).await;
        while world.published().len() < published {
            tokio::time::sleep(PATIENCE / 100).await;
        }
    }
    let is_kept = |post: &&PostToEndpoint| match post {
        PostToEndpoint::Answer(answer) => answer.answer == Reply::Kept,
        PostToEndpoint::Deliver(_) => false,
    };
    assert_eq!(world.published().iter().filter(is_kept).count(), 2);
    let delivered = || {
        let posts = world.published().into_iter();
        let copies = posts.filter_map(|post| match post {
            PostToEndpoint::Deliver(deliver) => Some((deliver.copy, deliver.answer_to)),
            PostToEndpoint::Answer(_) => None,
        });
        copies.collect::<Vec<_>>()
    };
    while delivered().len() < 3 {
        tokio::time::sleep(PATIENCE).await;
    }
    assert_eq!(delivered()[..3], [(1, None), (2, None), (3, None)], "every now and then");
    let id = request.request;
    let state = async || world.store.message(id).await.unwrap().unwrap().state;
    assert_eq!(state().await, MessageState::Kept);
    let PostToService::Verdict(verdict) = world.judges(Judgement::Taken(1)) else {
        panic!("no verdict")
    };
    let own = TargetVerdict { answer_to: None, ..verdict };
    world.route(PostToService::Verdict(own)).await;
    assert_eq!(state().await, MessageState::Taken);
    let before = delivered().len();
    tokio::time::sleep(PATIENCE * 100).await;
    assert_eq!(delivered().len(), before, "nothing is kept, and nothing is sent");
}

#[tokio::test]
async fn a_kept_message_to_a_target_that_ended_says_so_by_the_word_of_its_endpoint() {
    let world = world(Rules::default()).await;
    let mut request = world.sends(1, world.tasks[1], "later");
    let Ask::Send(message) = &mut request.ask else { panic!("another request") };
    message.mailbox = true;
    world.route(PostToService::Request(request.clone())).await;
    world.ends(world.tasks[1], Outcome::Failed).await;
    let PostToService::Verdict(verdict) = world.judges(Judgement::NotHere) else {
        panic!("no verdict")
    };
    let own = TargetVerdict { answer_to: None, ..verdict };
    world.route(PostToService::Verdict(own)).await;
    let message = world.store.message(request.request).await.unwrap().unwrap();
    assert_eq!((message.state, message.outcome), (MessageState::Ended, Some(Outcome::Failed)));
}
