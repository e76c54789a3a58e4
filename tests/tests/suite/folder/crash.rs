//! Either side is killed while tasks run.

use super::{SLOTS, run, running};

#[test]
fn kill_9_of_either_side_loses_nothing_and_repeats_at_most_what_ran() {
    let mut running = running();
    // The last ones are held until all kills have happened.
    let gate = running.submit(320, 281);
    let mut kills = 0;
    for (round, started) in (40..=280).step_by(40).enumerate() {
        running.started(started);
        if round % 2 == 0 {
            running.daemon.kill().unwrap();
            running.daemon = run(&running.world, &running.endpoint);
            kills += 1;
        } else {
            running.service.kill().unwrap();
            running.service = running.world.serve().unwrap();
        }
    }
    gate.open().unwrap();
    let verdict = running.verdict(320);
    assert_eq!(kills, 4);
    assert!(verdict.ran_again.len() <= SLOTS * kills, "{:?}", verdict.ran_again);
}

#[test]
fn both_sides_may_be_killed_at_once_and_at_any_moment() {
    let mut running = running();
    let gate = running.submit(200, 181);
    for started in [1, 20, 60, 61, 120] {
        running.started(started);
        running.service.kill().unwrap();
        running.daemon.kill().unwrap();
        running.daemon = run(&running.world, &running.endpoint);
        running.service = running.world.serve().unwrap();
    }
    gate.open().unwrap();
    let verdict = running.verdict(200);
    assert!(verdict.ran_again.len() <= SLOTS * 5, "{:?}", verdict.ran_again);
}
