//! Parts that have nothing in common but a folder.

use clutch_tests::{binaries, scenario, skip};

#[test]
fn two_endpoints_and_a_service_do_a_job_without_any_network() {
    let test = "two_endpoints_and_a_service_do_a_job_without_any_network";
    if !scenario::islands_permitted() {
        return skip::because(test, "a network namespace is not permitted");
    }
    let islands = scenario::islands(binaries::folder().unwrap(), 150).unwrap();
    assert!(islands.holds(), "{islands:?}");
}
