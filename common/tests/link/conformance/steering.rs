//! The queues that steer an endpoint and tell of its work, as Clutch declares them.

use super::*;
use clutch_common::id::EndpointId;
use clutch_common::topology::{
    self, DEAD_LETTER_QUEUE, EVENTS_EXCHANGE, EVENTS_MAX, EVENTS_QUEUE, QueueKind,
    RESULTS_EXCHANGE, RESULTS_QUEUE, control_queue, events_key, results_key,
};

/// More than RabbitMQ lets a message come by itself before it is a dead letter.
const SESSIONS: usize = 25;

/// Publishes messages by an exchange, one at a time; returns what became of the last one.
async fn by_key(outlet: &mut dyn Outlet, to: &Destination, ids: &[&str]) -> Option<Settlement> {
    let mut last = None;
    for id in ids {
        outlet.publish(to, message(id)).await.unwrap();
        last = settle(outlet).await.pop().map(|(_, settlement)| settlement);
    }
    last
}

pub(super) async fn events_are_refused_when_none_reads_them_and_keep_no_result_back(
    site: &impl Site,
) {
    let connection = connect(&site.url()).await;
    connection.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
    let (one, other) = (EndpointId::new(), EndpointId::new());
    let mut outlet = connection.outlet().await.unwrap();
    let [events, others] = [one, other].map(|id| by(EVENTS_EXCHANGE, &events_key(id)));
    by_key(outlet.as_mut(), &events, &["first"]).await;
    by_key(outlet.as_mut(), &others, &["second"]).await;
    let wrong = by(EVENTS_EXCHANGE, &results_key(one));
    let returned = by_key(outlet.as_mut(), &wrong, &["lost"]).await;
    assert!(matches!(returned, Some(Settlement::Returned(_))), "{returned:?}");
    publish(outlet.as_mut(), EVENTS_QUEUE, 2..usize::try_from(EVENTS_MAX).unwrap()).await;
    let refused = by_key(outlet.as_mut(), &events, &["more"]).await;
    assert_eq!(refused, Some(Settlement::Refused));
    let results = by(RESULTS_EXCHANGE, &results_key(one));
    let result = by_key(outlet.as_mut(), &results, &["a result"]).await;
    assert_eq!(result, Some(Settlement::Confirmed));
    let mut inlet = shared(connection.as_ref(), EVENTS_QUEUE, 100).await;
    let there = take(inlet.as_mut(), 100).await;
    assert_eq!(ids(&there)[..2], ["first", "second"]);
    inlet.acknowledge(there[99].tag).await.unwrap();
    inlet.secured().await.unwrap();
    let taken = by_key(outlet.as_mut(), &others, &["next"]).await;
    assert_eq!(taken, Some(Settlement::Confirmed), "there is room again");
    let mut inlet = shared(connection.as_ref(), RESULTS_QUEUE, 10).await;
    assert_eq!(ids(&take(inlet.as_mut(), 1).await), ["a result"]);
}

pub(super) async fn what_is_in_force_comes_to_every_session_and_is_never_a_dead_letter(
    site: &impl Site,
) {
    let id = EndpointId::new();
    let control = control_queue(id);
    let connection = connect(&site.url()).await;
    connection.declare(&topology::shared(QueueKind::Quorum)).await.unwrap();
    connection.declare(&topology::endpoint(id, QueueKind::Quorum)).await.unwrap();
    fill(connection.as_ref(), &control, 2).await;
    for _ in 0..SESSIONS {
        let mut inlet = one_by_one(connection.as_ref(), &control, 9).await;
        assert_eq!(ids(&take(inlet.as_mut(), 2).await), ["0", "1"]);
        drop(inlet);
    }
    assert_eq!(connection.waiting(DEAD_LETTER_QUEUE).await.unwrap(), 0);
    let mut inlet = one_by_one(connection.as_ref(), &control, 9).await;
    let there = take(inlet.as_mut(), 2).await;
    inlet.acknowledge_one(there[0].tag).await.unwrap();
    inlet.secured().await.unwrap();
    drop(inlet);
    let mut inlet = one_by_one(connection.as_ref(), &control, 9).await;
    assert_eq!(ids(&take(inlet.as_mut(), 1).await), ["1"], "the other one is released");
}
