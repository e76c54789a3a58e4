//! Letters of the broker in memory are put back and dropped.

use super::*;
use crate::stub_broker;
use clutch_common::id::TaskId;
use clutch_common::link::memory::Memory;
use clutch_common::link::{Connection, InletOptions, REJECTED, Transport as _};
use clutch_common::task::{Process, Task};
use clutch_common::topology::{DEAD_LETTER_LEASE, DEAD_LETTER_QUEUE, QueueKind, RESULTS_QUEUE};

/// A broker with an endpoint's queue, and a message that its consumer refused.
struct TestLetters {
    connection: Box<dyn Connection>,
    browser: Box<dyn QueueBrowser>,
    outlet: Box<dyn Outlet>,
    endpoint: EndpointId,
}

impl TestLetters {
    async fn with(body: &[u8]) -> Self {
        let url = url::Url::parse(&format!("memory:{}", Uuid::new_v4())).unwrap();
        let connection = Memory::new(&url).unwrap().connect("test").await.unwrap();
        let endpoint = EndpointId::new();
        connection.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
        connection.declare(&topology::endpoint(endpoint, QueueKind::Classic)).await.unwrap();
        let queue = topology::tasks_queue(endpoint);
        let mut outlet = connection.outlet().await.unwrap();
        let to = Destination { exchange: String::new(), routing_key: queue.clone() };
        let message = Message { body: body.to_vec(), ..stub_broker::message(0) };
        assert_eq!(place(outlet.as_mut(), &to, message).await, Ok(None));
        let options = InletOptions { queue, prefetch: 1, lease: None, one_by_one: false };
        let mut inlet = connection.inlet(&options).await.unwrap();
        let tag = inlet.receive(1).await.unwrap()[0].tag;
        inlet.dead_letter(tag).await.unwrap();
        let browser = connection.browse(DEAD_LETTER_QUEUE, DEAD_LETTER_LEASE).await.unwrap();
        Self { connection, browser, outlet, endpoint }
    }

    async fn letter(&mut self) -> (HeldMessage, Letter) {
        let held = self.browser.next().await.unwrap().unwrap();
        let letter = Letter::read(&held.message);
        assert_eq!(letter.reason.as_deref(), Some(REJECTED));
        (held, letter)
    }

    async fn requeue(&mut self) -> Done {
        let (held, letter) = self.letter().await;
        requeue(self.browser.as_mut(), self.outlet.as_mut(), held, &letter).await.unwrap()
    }

    async fn discard(&mut self, yes: bool) -> Done {
        let (held, letter) = self.letter().await;
        let (browser, outlet) = (self.browser.as_mut(), self.outlet.as_mut());
        discard(browser, outlet, &held, &letter, yes).await.unwrap()
    }

    /// The messages in a queue.
    async fn there(&self, queue: &str) -> Vec<Message> {
        let mut browser = self.connection.browse(queue, "other.lease").await.unwrap();
        let mut messages = Vec::new();
        while let Some(held) = browser.next().await.unwrap() {
            messages.push(held.message);
        }
        messages
    }

    /// The number of dead letters once the shelf is closed.
    async fn letters(self) -> usize {
        drop(self.browser);
        let browser = self.connection.browse(DEAD_LETTER_QUEUE, DEAD_LETTER_LEASE).await;
        usize::try_from(browser.unwrap().waiting().await.unwrap()).unwrap()
    }
}

fn task() -> (Attempt, Vec<u8>) {
    let process = Process { argv: vec!["true".into()], ..Process::default() };
    let task = Task::new(TaskId::new(), process);
    (task.attempt(), wire::encode_tasks(&[&task]))
}

#[tokio::test]
async fn a_requeued_letter_is_in_its_queue_and_nowhere_else() {
    let mut desk = TestLetters::with(b"body").await;
    assert_eq!(desk.requeue().await, Done::Requeued);
    let back = desk.there(&topology::tasks_queue(desk.endpoint)).await;
    assert_eq!((back.len(), back[0].body.as_slice()), (1, &b"body"[..]));
    assert!(back[0].deaths.is_empty());
    assert_eq!(desk.letters().await, 0);
}

#[tokio::test]
async fn a_letter_without_a_queue_is_kept() {
    let mut desk = TestLetters::with(b"body").await;
    let (mut held, _) = desk.letter().await;
    for (queue, words) in [(Some("gone.tasks"), "no queue takes"), (None, "does not say")] {
        held.message.deaths.truncate(usize::from(queue.is_some()));
        if let Some(queue) = queue {
            held.message.deaths[0].queue = queue.to_owned();
        }
        let letter = Letter::read(&held.message);
        let (browser, outlet) = (desk.browser.as_mut(), desk.outlet.as_mut());
        let Done::Kept { why } = requeue(browser, outlet, held.clone(), &letter).await.unwrap()
        else {
            panic!("{queue:?}")
        };
        assert!(why.contains(words), "{why}");
    }
    assert_eq!(desk.letters().await, 1);
}

#[tokio::test]
async fn dropping_tasks_takes_a_yes_and_tells_their_end() {
    let (attempt, body) = task();
    let mut desk = TestLetters::with(&body).await;
    let Done::Kept { why } = desk.discard(false).await else { panic!("not kept") };
    assert!(why.contains(&attempt.task_id.to_string()) && why.contains("--yes"), "{why}");
    assert!(desk.there(RESULTS_QUEUE).await.is_empty());
    assert_eq!(desk.letters().await, 1);

    let mut desk = TestLetters::with(&body).await;
    assert_eq!(desk.discard(true).await, Done::Dropped { cancelled: vec![attempt] });
    let told = desk.there(RESULTS_QUEUE).await;
    let results = wire::decode_results(&told[0].body).results;
    assert_eq!((results.len(), results[0].attempt()), (1, attempt));
    assert_eq!(results[0].outcome, Outcome::Cancelled);
    assert_eq!(desk.letters().await, 0);
}

#[tokio::test]
async fn what_was_answered_for_is_dropped_and_nothing_is_told() {
    let mut desk = TestLetters::with(b"nonsense").await;
    assert_eq!(desk.discard(false).await, Done::Dropped { cancelled: vec![] });
    assert!(desk.there(RESULTS_QUEUE).await.is_empty());
    assert_eq!(desk.letters().await, 0);
}

#[tokio::test]
async fn a_doubt_is_tried_again_and_a_refusal_is_told() {
    let to = Destination { exchange: String::new(), routing_key: "q".to_owned() };
    let placed = async |settlements: &[Settlement]| {
        let broker = stub_broker::Broker::default();
        broker.settle_with(settlements.iter().cloned());
        let placed = place(broker.outlet().as_mut(), &to, stub_broker::message(1)).await.unwrap();
        (placed, broker.published().len())
    };
    use Settlement::{Confirmed, Doubt, Refused};
    assert_eq!(placed(&[Confirmed]).await, (None, 1));
    assert_eq!(placed(&[Doubt, Doubt, Confirmed]).await, (None, 3));
    let (why, published) = placed(&[Doubt, Refused]).await;
    assert!(why.is_some_and(|why| why.contains("full")) && published == 2);
    let (why, published) = placed(&[const { Doubt }; 9]).await;
    assert!(why.is_some() && published == TRIES);
}
