//! The endpoint's memory has bounds.

use crate::heavy;
use clutch_tests::world::World;
use clutch_tests::{binaries, scenario, skip};

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
