//! The spool folder's disk is full, or the folder is not there for a while.

use super::{running, running_in};
use clutch_tests::tmpfs::Tmpfs;
use clutch_tests::world::{SOON, World};
use clutch_tests::{machine, poll, skip};
use std::fs;

#[test]
fn a_full_disk_under_the_folder_delays_and_loses_nothing() {
    let test = "a_full_disk_under_the_folder_delays_and_loses_nothing";
    if !machine::is_root() {
        return skip::because(test, "only root may mount a file system");
    }
    let world = World::in_folder().unwrap();
    let disk = match Tmpfs::over(&world.shared(), 4096) {
        Ok(disk) => disk,
        Err(error) => return skip::because(test, &format!("{error:#}")),
    };
    let mut running = running_in(world);
    let gate = running.submit(300, 101);
    running.started(101);
    disk.fill().unwrap();
    gate.open().unwrap();
    // Whatever is removed from the folder makes room: it is taken again, until
    // the endpoint has said that it cannot write.
    poll::until("the endpoint to tell that the disk is full", SOON, || {
        disk.fill()?;
        running.daemon.next("the folder takes no more for now")
    })
    .unwrap();
    running.started(300);
    disk.free().unwrap();
    let verdict = running.verdict(300);
    assert!(verdict.ran_again.is_empty(), "{:?}", verdict.ran_again);
}

#[test]
fn a_folder_that_goes_and_comes_back_repeats_and_loses_nothing() {
    let mut running = running();
    let gate = running.submit(200, 51);
    running.started(51);
    let (spool, aside) = (running.world.spool(), running.world.shared().join("aside"));
    fs::rename(&spool, &aside).unwrap();
    for daemon in [&mut running.daemon, &mut running.service] {
        let lost = daemon.wait_for("disengaged", SOON).unwrap();
        assert!(lost["fault"].as_str().unwrap().contains("is gone"), "{lost}");
    }
    gate.open().unwrap();
    // All that was delivered runs without a link.
    poll::until("tasks to run without a folder", SOON, || {
        Ok((running.runs.read()?.len() > 60).then_some(()))
    })
    .unwrap();
    fs::rename(&aside, &spool).unwrap();
    for daemon in [&mut running.daemon, &mut running.service] {
        daemon.wait_for("engaged", SOON).unwrap();
    }
    let verdict = running.verdict(200);
    assert!(verdict.ran_again.is_empty(), "{:?}", verdict.ran_again);
}

#[test]
fn an_empty_folder_in_the_place_of_the_real_one_is_told_and_left_empty() {
    let mut running = running();
    let gate = running.submit(100, 51);
    running.started(51);
    let (spool, aside) = (running.world.spool(), running.world.shared().join("aside"));
    fs::rename(&spool, &aside).unwrap();
    fs::create_dir(&spool).unwrap();
    for daemon in [&mut running.daemon, &mut running.service] {
        // First it is noticed that the folder went, then what is there now.
        poll::until("the empty folder to be told", SOON, || {
            let told = daemon.next("disengaged")?;
            Ok(told.filter(|told| told["fault"].as_str().is_some_and(|it| it.contains("is empty"))))
        })
        .unwrap();
    }
    gate.open().unwrap();
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0, "something was put into it");
    fs::remove_dir(&spool).unwrap();
    fs::rename(&aside, &spool).unwrap();
    for daemon in [&mut running.daemon, &mut running.service] {
        daemon.wait_for("engaged", SOON).unwrap();
    }
    let verdict = running.verdict(100);
    assert!(verdict.ran_again.is_empty(), "{:?}", verdict.ran_again);
}
