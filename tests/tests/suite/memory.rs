//! The endpoint's memory has bounds.

use crate::heavy;
use clutch_tests::broker::{Properties, Raw};
use clutch_tests::world::{SOON, World};
use clutch_tests::{binaries, poll, scenario, skip};
use uuid::Uuid;

const MEGABYTE: u64 = 1 << 20;

#[test]
fn memory_stays_bounded_over_a_long_queue() {
    let test = "memory_stays_bounded_over_a_long_queue";
    if !binaries::optimised() {
        return skip::because(test, "the binaries are not release ones; use `cargo xtask test`");
    }
    let Some(world) = World::or_skip(test) else { return };
    let _turn = heavy();
    let measured = scenario::backlog(&world, 10_000, 10_000).unwrap();
    println!("{measured:?}");
    assert_eq!(measured.succeeded, 10_000);
    assert!(measured.peak <= 64 * MEGABYTE, "peak: {} bytes", measured.peak);
    assert!(measured.idle <= 15 * MEGABYTE, "idle: {} bytes", measured.idle);
    assert!(measured.idle_again <= 15 * MEGABYTE, "idle again: {} bytes", measured.idle_again);
}

#[test]
fn memory_stays_bounded_over_tasks_of_fifteen_megabytes() {
    let test = "memory_stays_bounded_over_tasks_of_fifteen_megabytes";
    if !binaries::optimised() {
        return skip::because(test, "the binaries are not release ones; use `cargo xtask test`");
    }
    let Some(world) = World::or_skip(test) else { return };
    let _turn = heavy();
    let measured = scenario::backlog(&world, 40, 15_000_000).unwrap();
    println!("{measured:?}");
    assert_eq!(measured.succeeded, 40);
    assert!(measured.peak <= 100 * MEGABYTE, "peak: {} bytes", measured.peak);
}

#[test]
fn memory_of_the_service_stays_bounded_over_a_message_of_a_hundred_thousand_results() {
    const RESULTS: usize = 100_000;
    let test = "memory_of_the_service_stays_bounded_over_a_message_of_a_hundred_thousand_results";
    if !binaries::optimised() {
        return skip::because(test, "the binaries are not release ones; use `cargo xtask test`");
    }
    let Some(world) = World::or_skip(test) else { return };
    let _turn = heavy();
    let endpoint = world.provision("lab").unwrap();
    let service = world.serve().unwrap();
    let mut raw = Raw::connect(&world.broker()).unwrap();
    let key = format!("{}.results", endpoint.id);
    let result = |_| {
        let (task, endpoint) = (Uuid::now_v7(), &endpoint.id);
        format!(
            r#"{{"task_id":"{task}","attempt":1,"outcome":"succeeded","ended_at_ms":1,"endpoint_id":"{endpoint}"}}"#
        )
    };
    let many: Vec<String> = (0..RESULTS).map(result).collect();
    let nothing = vec!["{}"; 5_000_000];
    for list in [many.join(","), nothing.join(",")] {
        let body = format!(
            r#"{{"version":1,"type":"clutch.results","endpoint":"{}","results":[{list}]}}"#,
            endpoint.id
        );
        raw.publish("results", key.as_bytes(), &Properties::default(), body.as_bytes()).unwrap();
    }
    poll::until("the results to be read", 2 * SOON, || {
        Ok((world.vhost().depth("dead-letters")? == Some(1)).then_some(()))
    })
    .unwrap();
    let peak = service.peak_memory().unwrap();
    println!("peak: {peak} bytes");
    assert!(peak <= 250 * MEGABYTE, "peak: {peak} bytes");
}
