//! The promises of every transport through the seam: one suite, run unchanged on
//! each of them.
//!
//! A test is a function of a [`Site`]. `conformance!` makes one test of each for
//! a transport; `conformance!(… and processes)` adds those in which other
//! processes take part, for a transport that they reach.

mod child;
mod consuming;
mod crowd;
mod declaring;
mod leasing;
mod looking;
mod naming;
mod processes;
mod publishing;
mod redelivering;
mod rng;
mod routing;
mod site;
mod steering;
mod torn;

use crate::toolkit::*;
use clutch_common::link::{
    Connection, Delivery, Destination, Fault, Inlet, Message, Outlet, Settlement,
};
use clutch_common::topology::{Argument, Binding, Exchange, ExchangeKind, Topology};
use rng::Rng;
use site::Site;
use std::time::Duration;

/// Makes a test of each function, on a site of its own.
macro_rules! tests {
    ($site:ty: $($module:ident { $($name:ident)* })*) => {$($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            super::$module::$name(&<$site>::fresh()).await;
        }
    )*)*};
}

/// Makes a test of each function, which may run parts of itself in other
/// processes.
macro_rules! process_tests {
    ($site:ty: $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let test = concat!(module_path!(), "::", stringify!($name));
            match super::child::role() {
                Some(role) => role.play().await,
                None => super::processes::$name(&<$site>::fresh(), test).await,
            }
        }
    )*};
}

macro_rules! conformance {
    ($module:ident: $site:ident) => {
        mod $module {
            conformance!(within one process, super::site::$site);
        }
    };
    ($module:ident: $site:ident and processes) => {
        mod $module {
            conformance!(within one process, super::site::$site);
            process_tests! { super::site::$site:
                what_is_confirmed_is_there_although_the_publisher_is_killed
                a_lease_is_free_when_its_holder_is_killed
                killed_at_any_point_nothing_confirmed_is_lost
            }
        }
    };
    (within one process, $site:ty) => {
        use super::site::Site as _;
        tests! { $site:
            publishing {
                a_message_arrives_as_it_was_sent
                bodies_from_nothing_to_the_limit_arrive_whole
                one_byte_over_the_limit_is_refused_and_loses_nothing_else
                what_is_confirmed_is_there_although_everything_was_dropped
                order_is_kept_per_producer
                unroutable_is_told
                unroutable_is_told_in_the_midst_of_what_is_routable
                a_missing_exchange_is_missing_and_only_the_outlet_is_lost
                a_full_queue_refuses
                a_cancelled_settled_loses_nothing
                a_closed_connection_is_told_to_its_outlet
            }
            consuming {
                a_missing_queue_is_missing
                acknowledging_a_range_leaves_out_what_was_dead_lettered
                one_delivery_is_settled_by_itself
                the_prefetch_bounds_what_is_under_way_and_zero_is_not_boundless
                what_one_prefetch_leaves_goes_to_another_consumer
                a_cancelled_receive_loses_nothing_and_keeps_the_order
                waiting_for_the_loss_of_the_link_swallows_no_delivery
                a_closed_connection_is_told_to_its_inlet
            }
            redelivering {
                what_is_not_settled_comes_again_in_order_after_a_close
                what_is_not_settled_comes_again_in_order_after_a_drop
                what_a_dropped_inlet_had_goes_to_another
                what_an_inlet_beside_the_one_with_the_lease_holds_comes_again
                nothing_acknowledged_comes_again_after_a_close
                nothing_secured_comes_again_after_a_drop
                a_dead_letter_arrives_as_it_was
                past_the_delivery_limit_a_message_is_a_dead_letter
            }
            leasing {
                a_second_instance_is_locked_out_until_the_first_is_closed
                a_lease_is_free_when_its_holder_is_dropped
                a_second_exclusive_consumer_is_locked_out_whatever_its_lease
                exclusive_and_shared_consumers_exclude_each_other
                several_may_consume_without_a_lease
                leases_that_are_prefixes_and_suffixes_of_each_other_are_apart
            }
            looking {
                looking_leaves_everything_where_it_was
                what_is_removed_is_gone_and_the_rest_is_not
                what_is_held_goes_to_nobody_else
                what_waits_is_counted_without_taking_any
                a_look_tells_what_waits_and_whether_an_instance_is_there
                what_waits_is_counted_and_what_comes_later_is_shown
                a_shelf_needs_its_queue_its_lease_and_its_connection
                a_dead_letter_says_where_it_died_and_why
                what_is_published_was_never_dead
            }
            declaring {
                declaring_again_changes_nothing
                a_queue_declared_again_keeps_what_it_has
                a_queue_that_is_removed_takes_nothing_and_can_be_declared_again
                a_mismatch_says_what_differs_and_what_to_do
                results_are_of_one_service_until_another_takes_them_over
            }
            routing {
                a_topic_exchange_routes_by_words
                a_fanout_exchange_routes_to_every_queue
                several_bindings_of_one_queue_take_a_message_once
            }
            steering {
                events_are_refused_when_none_reads_them_and_keep_no_result_back
                what_is_in_force_comes_to_every_session_and_is_never_a_dead_letter
            }
            naming {
                queues_with_odd_and_similar_names_are_apart
                odd_routing_keys_and_exchanges_are_taken_as_they_are
            }
            crowd { every_message_reaches_one_of_many_consumers_once }
            torn { torn_at_any_await_nothing_confirmed_is_lost_and_nothing_acked_returns }
        }
    };
}

conformance!(amqp: Amqp and processes);
conformance!(filesystem: Filesystem and processes);
conformance!(memory: Memory);

/// An exchange, and the queues bound to it by their keys.
fn exchange(name: &str, kind: ExchangeKind, bound: &[(&str, &str)]) -> Topology {
    let binding = |(queue, key): &(&str, &str)| Binding {
        queue: (*queue).to_owned(),
        exchange: name.to_owned(),
        key: (*key).to_owned(),
    };
    Topology {
        exchanges: vec![Exchange { name: name.to_owned(), kind }],
        bindings: bound.iter().map(binding).collect(),
        ..Topology::default()
    }
}

/// Where an exchange sends a key.
fn by(exchange: &str, routing_key: &str) -> Destination {
    Destination { exchange: exchange.to_owned(), routing_key: routing_key.to_owned() }
}

/// A connection to a site, where a queue is declared.
async fn with_queue(site: &impl Site, name: &str) -> Box<dyn Connection> {
    let connection = connect(&site.url()).await;
    connection.declare(&queue(name, &[])).await.unwrap();
    connection
}

/// An inlet that shares its queue.
async fn shared(connection: &dyn Connection, queue: &str, prefetch: u16) -> Box<dyn Inlet> {
    within(connection.inlet(&options(queue, prefetch, None))).await.unwrap()
}

/// How long nothing must come for an end to be one.
const QUIET: Duration = Duration::from_millis(300);

/// Sees that a queue has nothing but what its inlet took: what is published last
/// comes next, and nothing after it.
async fn nothing_else(connection: &dyn Connection, queue: &str, inlet: &mut dyn Inlet) {
    let mut outlet = connection.outlet().await.unwrap();
    publish(outlet.as_mut(), queue, ["the end"]).await;
    let next = take(inlet, 1).await;
    assert_eq!(ids(&next), ["the end"]);
    let more = tokio::time::timeout(QUIET, inlet.receive(1)).await;
    assert!(more.is_err(), "{more:?}");
    inlet.acknowledge(next[0].tag).await.unwrap();
}

/// Ends after the first poll or a later one, and so cancels a wait that it races.
async fn impatience(rng: &mut Rng) {
    if rng.below(2) == 0 {
        tokio::task::yield_now().await;
    }
}

/// Opens an inlet with a lease as soon as it is free.
async fn leased(connection: &dyn Connection, queue: &str, lease: &str) -> Box<dyn Inlet> {
    let trying = async {
        loop {
            match connection.inlet(&options(queue, 100, Some(lease))).await {
                Ok(inlet) => return inlet,
                Err(Fault::Locked(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(fault) => panic!("{fault}"),
            }
        }
    };
    within(trying).await
}
