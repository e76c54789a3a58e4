//! Has messages published by the session's submitter, and waits for what became of
//! them. Tasks share messages; where the broker takes no message as large, each of
//! its tasks goes alone.

use crate::publishing::pack::{self, Packed, Part};
use crate::publishing::submitter::{Fate, Job, Unplaced};
use clutch_common::id::EndpointId;
use clutch_common::link::{Destination, Message};
use clutch_common::system::clock::now_ms;
use clutch_common::topology;
use tokio::sync::{mpsc, oneshot};

/// Has messages published; what became of each.
pub(crate) async fn place(
    jobs: &mpsc::Sender<Job>,
    destination: Destination,
    messages: Vec<Message>,
) -> Vec<Fate> {
    let lost = || Err(Unplaced::Unknown("the link to the broker was lost".to_owned()));
    let count = messages.len();
    let (reply, answer) = oneshot::channel();
    match jobs.send(Job { destination, messages, reply }).await {
        Ok(()) => answer.await.unwrap_or_else(|_| vec![lost(); count]),
        Err(_) => vec![lost(); count],
    }
}

/// Has tasks published to an endpoint; what became of each.
pub(crate) async fn place_tasks(
    jobs: &mpsc::Sender<Job>,
    endpoint: EndpointId,
    tasks: &[Part<'_>],
) -> Vec<Fate> {
    let queue =
        || Destination { exchange: String::new(), routing_key: topology::tasks_queue(endpoint) };
    let (messages, ranges) = split(pack::pack(tasks, now_ms()));
    if messages.is_empty() {
        return Vec::new();
    }
    let mut fates = Vec::with_capacity(tasks.len());
    for (range, fate) in ranges.into_iter().zip(place(jobs, queue(), messages).await) {
        match (fate, tasks.get(range.clone())) {
            (Err(Unplaced::TooLarge(_)), Some(several @ [_, _, ..])) => {
                let (alone, _) = split(pack::singly(several, now_ms()));
                fates.extend(place(jobs, queue(), alone).await);
            }
            (fate, _) => fates.extend(range.map(|_| fate.clone())),
        }
    }
    fates
}

fn split(packed: Vec<Packed>) -> (Vec<Message>, Vec<std::ops::Range<usize>>) {
    packed.into_iter().map(|Packed { message, tasks }| (message, tasks)).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Broker;
    use crate::publishing::submitter::submit;
    use clutch_common::id::TaskId;
    use clutch_common::link::Settlement;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn tasks_that_share_a_message_too_large_go_alone_and_only_the_large_one_stays() {
        let broker = Broker::default();
        broker.settle_with([
            Settlement::TooLarge(10),
            Settlement::Confirmed,
            Settlement::TooLarge(10),
        ]);
        let (jobs, mut queue) = mpsc::channel(1);
        let tasks = [(TaskId::new(), "1"), (TaskId::new(), "22222222222")];
        let placing = async {
            let fates = place_tasks(&jobs, EndpointId::new(), &tasks).await;
            drop(jobs);
            fates
        };
        let stop = CancellationToken::new();
        let (ended, fates) = tokio::join!(submit(broker.outlet(), &mut queue, &stop), placing);
        assert_eq!(ended, Ok(()), "the link is as good as before");
        assert_eq!(fates, [Ok(()), Err(Unplaced::TooLarge(10))]);
        assert_eq!(broker.published().len(), 3);
    }
}
