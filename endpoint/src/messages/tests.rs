//! Tasks of one endpoint send and receive; and its end of the way through the service, with the
//! test as the service.

use super::mailbox::Wanted;
use super::outgoing::SendEnd;
use super::requests::{Caller, HoldFor, RequestError, Sending};
use super::*;
use crate::pending::inbox::Held;
use crate::testing;
use clutch_common::id::EndpointId;
use clutch_common::task::Task;
use clutch_common::wire::{
    Ask, Cancel, Deliver, MessageBody, PostToEndpoint, PostToService, Reply, RequestAnswer,
    TaskMessage, TaskRequest,
};
use futures_util::FutureExt as _;
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;

/// An endpoint with tasks that run.
struct Site {
    _disk: TempDir,
    messages: Arc<Messages>,
    runs: Vec<OpenRun>,
    tasks: Vec<Task>,
    held: Vec<Held>,
}

async fn site(tasks: usize, rule: MessageRule) -> Site {
    let (disk, ledger) = testing::ledger(100);
    let tasks: Vec<Task> = (0..tasks).map(|_| Task { group: 7, ..testing::task() }).collect();
    ledger.accept(tasks.clone()).await.unwrap().await.unwrap();
    let messages = Arc::new(Messages::new(Arc::clone(&ledger), rule));
    let held: Vec<Held> = tasks.iter().map(|_| ledger.take().unwrap()).collect();
    let begin = |task: &Task| messages.begin(task.attempt(), &StopSignal::new());
    let runs = tasks.iter().map(begin).collect();
    // The disk has threads of its own, which no clock of a test stops.
    tokio::time::pause();
    Site { _disk: disk, messages, runs, tasks, held }
}

impl Site {
    /// Ends a task.
    async fn finish(&mut self, index: usize, outcome: Outcome) {
        let (ledger, attempt) = (&self.messages.ledger, self.tasks[index].attempt());
        let result = ledger.not_run(attempt, outcome, "x".to_owned());
        self.runs.remove(index).over(Some(outcome));
        tokio::time::resume();
        ledger.finish(&self.held[index], result).await.unwrap().await.unwrap();
        tokio::time::pause();
    }

    fn caller(&self, index: usize) -> Caller {
        self.messages.caller(self.runs[index].token.unwrap(), None).unwrap()
    }

    fn sending(&self, to: TaskId) -> Sending {
        Sending {
            to,
            attempt: None,
            addressee: "in".to_owned(),
            body: b"hello".as_slice().into(),
            id: None,
            wait: Duration::from_secs(90),
            mailbox: false,
        }
    }

    /// The next request that is published.
    async fn published(&self) -> TaskRequest {
        self.messages.post_ready().await;
        match self.messages.next_post() {
            Some(PostToService::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn verdict(&self) -> Judgement {
        match self.messages.next_post() {
            Some(PostToService::Verdict(verdict)) => verdict.verdict,
            other => panic!("{other:?}"),
        }
    }

    /// The next verdict, once there is one to be published.
    async fn later(&self) -> Judgement {
        self.messages.post_ready().await;
        self.verdict()
    }

    fn answer(&self, request: &TaskRequest, reply: Reply) {
        let answer = PostToEndpoint::Answer(RequestAnswer {
            request: request.request,
            copy: request.copy,
            since: request.copy,
            source: request.source,
            answer: reply,
        });
        self.messages.take(answer, false);
    }

    fn deliver(&self, id: u128, copy: u32, to: TaskId, wait_ms: u64) {
        let deliver = PostToEndpoint::Deliver(Deliver {
            message: Uuid::from_u128(id),
            copy,
            source: Attempt { task_id: TaskId(Uuid::from_u128(1)), attempt: 1 },
            answer_to: Some(EndpointId::new()),
            content: TaskMessage {
                to,
                attempt: None,
                addressee: "in".to_owned(),
                body: MessageBody::of(b"there"),
                wait_ms,
                mailbox: false,
            },
        });
        self.messages.take(deliver, false);
    }
}

static WANTED: LazyLock<Wanted> =
    LazyLock::new(|| Wanted { addressees: vec!["in".to_owned()], from: None });

#[tokio::test]
async fn a_message_is_delivered_once_a_process_took_it_without_any_link() {
    let site = site(2, MessageRule::Family).await;
    let (sender, receiver) = (site.caller(0), site.caller(1));
    let receiving = async {
        let given = receiver.receive(&WANTED, None, HoldFor::Connection).await.unwrap().unwrap();
        assert_eq!(given.letter.source, site.tasks[0].attempt(), "as its endpoint says");
        assert_eq!(&*given.letter.body, b"hello");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(receiver.acknowledge(given.delivery));
        site.messages.now()
    };
    let sending = async {
        let (_, end) = sender.send(site.sending(site.tasks[1].id)).await.unwrap();
        (end, site.messages.now())
    };
    let ((end, sent), taken) = tokio::join!(sending, receiving);
    assert_eq!(end, SendEnd::Delivered(1));
    assert!(sent >= taken, "not before it was taken");
    assert_eq!(site.messages.lock().requests.len(), 0);
}

#[tokio::test]
async fn a_message_that_no_process_takes_is_an_error_after_the_wait() {
    let site = site(2, MessageRule::Family).await;
    let (_, end) = site.caller(0).send(site.sending(site.tasks[1].id)).await.unwrap();
    assert_eq!(end, SendEnd::NotListening);
    assert_eq!(site.messages.now().as_secs(), 90);
    let receiver = site.caller(1);
    let none = receiver.receive(&WANTED, Some(Duration::from_secs(1)), HoldFor::Connection);
    assert_eq!(none.await.unwrap(), None, "it is not given after that");
}

#[tokio::test]
async fn a_target_that_ends_ends_the_send_and_the_token() {
    let mut site = site(2, MessageRule::Family).await;
    let (target, token) = (site.tasks[1].id, site.runs[1].token.unwrap());
    let (sender, receiver) = (site.caller(0), site.caller(1));
    let receiving = receiver.receive(&WANTED, None, HoldFor::Connection);
    let mut receiving = Box::pin(receiving);
    assert!(receiving.as_mut().now_or_never().is_none());
    let mut sending =
        Box::pin(sender.send(Sending { addressee: "other".to_owned(), ..site.sending(target) }));
    assert!(sending.as_mut().now_or_never().is_none());
    site.finish(1, Outcome::Failed).await;
    assert_eq!(receiving.await, Err(RequestError::BadToken));
    assert!(site.messages.caller(token, None).is_err());
    assert_eq!(
        sending.await.unwrap().1,
        SendEnd::Finished { outcome: Outcome::Failed, certain: true }
    );
    let end = sender.send(site.sending(target)).await.unwrap().1;
    assert_eq!(end, SendEnd::Finished { outcome: Outcome::Failed, certain: true });
    let end = sender.send(site.sending(TaskId::new())).await.unwrap().1;
    assert_eq!(end, SendEnd::Unreachable);
}

#[tokio::test]
async fn strangers_may_not_send_unless_the_endpoint_lets_them() {
    for (rule, allowed) in
        [(MessageRule::Family, false), (MessageRule::Any, true), (MessageRule::None, false)]
    {
        let site = site(1, rule).await;
        let stranger = testing::task();
        tokio::time::resume();
        site.messages.ledger.accept(vec![stranger.clone()]).await.unwrap().await.unwrap();
        tokio::time::pause();
        let (_, end) = site.caller(0).send(site.sending(stranger.id)).await.unwrap();
        assert_eq!(matches!(end, SendEnd::Forbidden(_)), !allowed, "{rule:?}: {end:?}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn what_is_sent_again_with_its_id_joins_what_waits() {
    let site = site(2, MessageRule::Family).await;
    let (sender, receiver) = (site.caller(0), site.caller(1));
    let again = || Sending { id: Some(Uuid::from_u128(5)), ..site.sending(site.tasks[1].id) };
    let receiving = async {
        let given = receiver.receive(&WANTED, None, HoldFor::Connection).await.unwrap().unwrap();
        let more = receiver.receive(&WANTED, Some(Duration::from_secs(9)), HoldFor::Connection);
        assert_eq!(more.await.unwrap(), None);
        receiver.acknowledge(given.delivery)
    };
    let (one, other, taken) = tokio::join!(sender.send(again()), sender.send(again()), receiving);
    assert!(taken);
    assert_eq!([one.unwrap().1, other.unwrap().1], [SendEnd::Delivered(1), SendEnd::Delivered(1)]);
    assert_eq!(sender.send(again()).await.unwrap().1, SendEnd::Delivered(1), "and later");
    let none = receiver.receive(&WANTED, Some(Duration::from_secs(1)), HoldFor::Connection);
    assert_eq!(none.await.unwrap(), None);
}

#[tokio::test]
async fn a_message_to_another_endpoint_goes_by_copies_until_it_is_answered() {
    let site = site(1, MessageRule::Family).await;
    let _linked = site.messages.linked();
    let (sender, target) = (site.caller(0), TaskId::new());
    let serving = async {
        let first = site.published().await;
        assert_eq!((first.copy, first.source), (1, site.tasks[0].attempt()));
        let Ask::Send(message) = &first.ask else { panic!("{first:?}") };
        assert_eq!((message.to, message.wait_ms), (target, 90_000));
        site.answer(&first, Reply::NotStarted);
        let second = site.published().await;
        let Ask::Send(message) = &second.ask else { panic!("{second:?}") };
        assert_eq!(second.copy, 2);
        assert!((88_900..=89_000).contains(&message.wait_ms), "what is left of it");
        site.answer(&second, Reply::Delivered(4));
    };
    let (sent, ()) = tokio::join!(sender.send(site.sending(target)), serving);
    assert_eq!(sent.unwrap().1, SendEnd::Delivered(4));
    assert!(site.messages.next_post().is_none());
}

#[tokio::test]
async fn a_copy_that_waits_for_the_link_is_not_published_twice() {
    let site = site(1, MessageRule::Family).await;
    let linked = site.messages.linked();
    let sender = site.caller(0);
    let mut sending = Box::pin(sender.send(site.sending(TaskId::new())));
    assert!(sending.as_mut().now_or_never().is_none());
    let waited = tokio::time::timeout(Duration::from_secs(20), &mut sending).await;
    assert!(waited.is_err());
    let only = site.published().await;
    assert_eq!(only.copy, 6, "the last one");
    assert!(site.messages.next_post().is_none());
    site.answer(&only, Reply::NotStarted);
    drop(linked);
    assert_eq!(sending.await.unwrap().1, SendEnd::NotListening, "none was held anywhere");
}

#[tokio::test]
async fn a_message_that_comes_is_judged_and_each_verdict_is_published() {
    let mut site = site(2, MessageRule::None).await;
    let (target, receiver) = (site.tasks[0].id, site.caller(0));
    site.deliver(1, 1, TaskId::new(), 9000);
    assert_eq!(site.verdict(), Judgement::NotHere);
    site.deliver(2, 1, target, 9000);
    let given = receiver.receive(&WANTED, None, HoldFor::Connection).await.unwrap().unwrap();
    receiver.acknowledge(given.delivery);
    assert_eq!(site.verdict(), Judgement::Taken(1));
    site.deliver(2, 2, target, 8000);
    assert_eq!(site.verdict(), Judgement::Taken(1), "a further copy");
    assert!(site.messages.next_post().is_none(), "that it was held is not told");
    site.deliver(3, 1, target, 5000);
    assert!(site.messages.next_post().is_none(), "a receiver may take it soon");
    assert_eq!(site.later().await, Judgement::Held);
    assert_eq!((site.later().await, site.messages.now().as_secs()), (Judgement::NotListening, 5));
    site.deliver(4, 1, target, 5000);
    assert_eq!(site.later().await, Judgement::Held);
    site.runs.remove(0).over(Some(Outcome::Failed));
    assert_eq!(site.verdict(), Judgement::Ended(Outcome::Failed));
    assert!(site.messages.post_ready().now_or_never().is_none(), "nothing else");
}

#[tokio::test]
async fn a_run_has_so_many_open_requests_and_the_endpoint_so_much_room() {
    let site = site(1, MessageRule::Family).await;
    let caller = site.caller(0);
    let open: Vec<_> = (0..runs::REQUESTS_MAX).map(|_| caller.open().unwrap()).collect();
    assert_eq!(caller.open().err(), Some(RequestError::TooMany));
    drop(open);
    assert!(caller.open().is_ok());
    let _linked = site.messages.linked();
    let large =
        || Sending { body: vec![0; ENDPOINT_BYTES_MAX / 2].into(), ..site.sending(TaskId::new()) };
    let mut sends: Vec<_> = (0..2).map(|_| Box::pin(caller.send(large()))).collect();
    for send in &mut sends {
        assert!(send.as_mut().now_or_never().is_none());
    }
    assert_eq!(caller.send(site.sending(TaskId::new())).await.unwrap().1, SendEnd::NoRoom);
    drop(sends);
    assert_eq!(site.messages.lock().bytes, 0);
}

#[tokio::test]
async fn a_target_that_is_cancelled_before_its_start_is_noticed_at_once() {
    let site = site(1, MessageRule::Family).await;
    let waiting = Task { group: 7, ..testing::task() };
    tokio::time::resume();
    let ledger = &site.messages.ledger;
    ledger.accept(vec![waiting.clone()]).await.unwrap().await.unwrap();
    tokio::time::pause();
    let _linked = site.messages.linked();
    let caller = site.caller(0);
    let mut sending = std::pin::pin!(caller.send(site.sending(waiting.id)));
    assert!(sending.as_mut().now_or_never().is_none());
    assert!(site.messages.next_post().is_none(), "it waits here");
    let cancel = Cancel { number: 1, attempts: vec![waiting.attempt()] };
    tokio::time::resume();
    ledger.cancel(&cancel).await.unwrap().1.await.unwrap();
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    assert!(sending.as_mut().now_or_never().is_none());
    let request = site.published().await;
    assert_eq!(tokio::time::Instant::now(), before, "without any wait");
    site.answer(&request, Reply::Finished(Outcome::Cancelled));
    let end = SendEnd::Finished { outcome: Outcome::Cancelled, certain: true };
    assert_eq!(sending.await.unwrap().1, end);
}
