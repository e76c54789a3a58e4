//! The right to consume: leases, exclusive consumers and shared ones.

use super::*;
use clutch_common::id::EndpointId;
use clutch_common::topology::{self, QueueKind};

pub(super) async fn a_second_instance_is_locked_out_until_the_first_is_closed(site: &impl Site) {
    let first = connect(&site.url()).await;
    let second = connect(&site.url()).await;
    let mut leases = Vec::new();
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let id = EndpointId::new();
        first.declare(&topology::shared(QueueKind::Classic)).await.unwrap();
        first.declare(&topology::endpoint(id, kind)).await.unwrap();
        let (tasks, lease) = (topology::tasks_queue(id), topology::lease_queue(id));
        fill(first.as_ref(), &tasks, 3).await;
        let mut inlet = first.inlet(&options(&tasks, 8, Some(&lease))).await.unwrap();
        take(inlet.as_mut(), 3).await;
        let fault = fault(second.inlet(&options(&tasks, 8, Some(&lease))).await);
        assert!(matches!(fault, Fault::Locked(_)), "{kind:?}: {fault}");
        leases.push((tasks, lease));
    }
    first.close().await;
    for (tasks, lease) in leases {
        let mut inlet = leased(second.as_ref(), &tasks, &lease).await;
        assert_eq!(ids(&take(inlet.as_mut(), 3).await), numbers(0..3));
    }
}

pub(super) async fn a_lease_is_free_when_its_holder_is_dropped(site: &impl Site) {
    let first = with_queue(site, "tasks").await;
    fill(first.as_ref(), "tasks", 3).await;
    let mut inlet = leased(first.as_ref(), "tasks", "lease").await;
    take(inlet.as_mut(), 3).await;
    let second = connect(&site.url()).await;
    drop(first);
    // The inlet keeps its connection.
    let fault = fault(second.inlet(&options("tasks", 8, Some("lease"))).await);
    assert!(matches!(fault, Fault::Locked(_)), "{fault}");
    drop(inlet);
    let mut inlet = leased(second.as_ref(), "tasks", "lease").await;
    assert_eq!(ids(&take(inlet.as_mut(), 3).await), numbers(0..3));
}

pub(super) async fn a_second_exclusive_consumer_is_locked_out_whatever_its_lease(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    let first = connection.inlet(&options("tasks", 8, Some("a.lease"))).await.unwrap();
    let locked = fault(connection.inlet(&options("tasks", 8, Some("b.lease"))).await);
    assert!(matches!(&locked, Fault::Locked(text) if text.contains("tasks")), "{locked}");
    drop(first);
    leased(connection.as_ref(), "tasks", "b.lease").await;
}

pub(super) async fn exclusive_and_shared_consumers_exclude_each_other(site: &impl Site) {
    let connection = with_queue(site, "tasks").await;
    connection.declare(&queue("results", &[])).await.unwrap();
    let _exclusive = connection.inlet(&options("tasks", 8, Some("lease"))).await.unwrap();
    let _shared = shared(connection.as_ref(), "results", 8).await;
    for locked in [options("tasks", 8, None), options("results", 8, Some("results.lease"))] {
        let fault = fault(connection.inlet(&locked).await);
        assert!(matches!(fault, Fault::Locked(_)), "{fault}");
    }
}

pub(super) async fn several_may_consume_without_a_lease(site: &impl Site) {
    let first = with_queue(site, "results").await;
    let second = connect(&site.url()).await;
    let mut one = shared(first.as_ref(), "results", 1).await;
    let mut other = shared(second.as_ref(), "results", 1).await;
    fill(first.as_ref(), "results", 2).await;
    let mut there = [take(one.as_mut(), 1).await, take(other.as_mut(), 1).await].concat();
    there.sort_by_key(|delivery| delivery.message.message_id.clone());
    assert_eq!(ids(&there), ["0", "1"]);
}

pub(super) async fn leases_that_are_prefixes_and_suffixes_of_each_other_are_apart(
    site: &impl Site,
) {
    let names = ["a", "a.", "a.lease", "lease", ".lease", "a.lease.lease", "A", "a/lease", "%61"];
    let mut held = Vec::new();
    for (number, lease) in names.into_iter().enumerate() {
        let tasks = format!("tasks {number}");
        let connection = with_queue(site, &tasks).await;
        let inlet = connection.inlet(&options(&tasks, 8, Some(lease))).await;
        held.push((connection, inlet.unwrap_or_else(|fault| panic!("{lease}: {fault}"))));
    }
    let late = with_queue(site, "late").await;
    for lease in names {
        let fault = fault(late.inlet(&options("late", 8, Some(lease))).await);
        assert!(matches!(fault, Fault::Locked(_)), "{lease}: {fault}");
    }
}
