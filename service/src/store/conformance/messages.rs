//! Messages that are kept for tasks: recorded once, read in order, and ended once.

use super::{begin, chunk, done, record, specs};
use crate::model::MessageState;
use crate::store::{Forgettable, Keeping, MessageEnd, NewMessage, RecordedTask, Store, WhichKept};
use clutch_common::id::EndpointId;
use clutch_common::task::result::Outcome;
use uuid::Uuid;

/// The most messages that a case reads at once.
const MANY: usize = 100;

/// Two tasks of a submission.
async fn two_tasks(store: &Store) -> [RecordedTask; 2] {
    let two = begin(store, chunk(EndpointId::new(), "two", &specs(2))).await.unwrap();
    two.try_into().unwrap()
}

/// A message from one task to another.
fn message(from: &RecordedTask, to: &RecordedTask, body: &[u8]) -> NewMessage {
    NewMessage {
        id: Uuid::now_v7(),
        source: from.task.attempt(),
        task: to.seq,
        pinned: None,
        addressee: "in".to_owned(),
        body: body.to_vec(),
    }
}

/// The bytes of the messages that are kept.
async fn bodies(store: &Store, which: WhichKept) -> Vec<Vec<u8>> {
    let kept = store.kept_messages(which, 0, MANY).await.unwrap();
    kept.into_iter().map(|message| message.body).collect()
}

pub(super) async fn a_message_is_kept_once_and_ends_once(store: Store) {
    let [from, to] = two_tasks(&store).await;
    let sent = message(&from, &to, b"\0any bytes\xff");
    let keep = |message: &NewMessage| store.keep_message(message.clone(), 5);
    assert_eq!(keep(&sent).await.unwrap(), Keeping::New);
    assert_eq!(keep(&sent).await.unwrap(), Keeping::Known);
    let other = NewMessage { task: from.seq, ..sent.clone() };
    assert_eq!(keep(&other).await.unwrap(), Keeping::OtherMessage);
    assert_eq!(store.count_kept().await.unwrap(), 1);
    let kept = store.kept_messages(WhichKept::All, 0, MANY).await.unwrap().remove(0);
    assert_eq!((kept.id, &kept.body, &*kept.addressee), (sent.id, &sent.body, "in"));
    assert_eq!((kept.source, kept.target.kin.task), (from.task.attempt(), to.task.id));
    let end = |end| store.end_message(sent.id, end, 9);
    assert!(end(MessageEnd::Taken(2)).await.unwrap());
    assert!(!end(MessageEnd::Ended(Outcome::Failed)).await.unwrap(), "it was taken");
    let shown = store.message(sent.id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.attempt), (MessageState::Taken, Some(2)));
    assert_eq!((shown.bytes, shown.kept_at_ms, shown.ended_at_ms), (11, 5, Some(9)));
    assert_eq!(store.count_kept().await.unwrap(), 0);
    assert_eq!(keep(&sent).await.unwrap(), Keeping::Known, "it is known after its end");
}

pub(super) async fn messages_are_read_in_order_and_those_to_ended_tasks_apart(store: Store) {
    let [one, two] = two_tasks(&store).await;
    for (from, to, body) in [(&one, &two, b"1"), (&two, &one, b"2"), (&one, &two, b"3")] {
        let kept = store.keep_message(message(from, to, body), 5).await.unwrap();
        assert_eq!(kept, Keeping::New);
    }
    assert_eq!(bodies(&store, WhichKept::All).await, [b"1", b"2", b"3"]);
    assert_eq!(bodies(&store, WhichKept::To(two.seq)).await, [b"1", b"3"]);
    let page = store.kept_messages(WhichKept::All, 0, 2).await.unwrap();
    let rest = store.kept_messages(WhichKept::All, page[1].n, MANY).await.unwrap();
    assert_eq!((page.len(), rest.len(), &*rest[0].body), (2, 1, &b"3"[..]));
    assert!(bodies(&store, WhichKept::ToEnded).await.is_empty());
    record(&store, &[done(&two, 1, Outcome::Succeeded)], &[], 10).await.unwrap();
    assert_eq!(bodies(&store, WhichKept::ToEnded).await, [b"1", b"3"]);
    store.forget(Forgettable::EndedBefore(u64::MAX), 0, false).await.unwrap();
    assert_eq!(bodies(&store, WhichKept::All).await, [b"2"], "they go with their target");
}

pub(super) async fn a_task_has_a_bounded_number_of_messages(store: Store) {
    let [from, to] = two_tasks(&store).await;
    for _ in 0..1000 {
        let kept = store.keep_message(message(&from, &to, b""), 5).await.unwrap();
        assert_eq!(kept, Keeping::New);
    }
    let more = store.keep_message(message(&from, &to, b""), 5).await.unwrap();
    let other = store.keep_message(message(&to, &from, b""), 5).await.unwrap();
    assert_eq!((more, other), (Keeping::NoRoom, Keeping::New));
}
