//! State folders that were copied, put back, or only moved.

use super::*;
use clutch_common::id::StateId;
use std::fs;

/// Copies what is in a folder, over what is in another if that is there.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A folder with two tasks, one of them started, and a result; and its id.
fn used(folder: &TempDir) -> StateId {
    let (mut queue, _) = open_at(&folder.path().join("state"));
    let (one, two, three) = (task(10), task(10), task(10));
    queue.apply(&[accept(0, &one), accept(1, &two), accept(2, &three)]).unwrap();
    queue.apply(&[Change::Start { seq: Seq(0) }, finish(Some(2), 0, three.attempt(), 10)]).unwrap();
    queue.state_id()
}

fn open_at(path: &Path) -> (DiskQueue, Vec<Accepted>) {
    DiskQueue::open(&options(path, 1000)).unwrap()
}

#[test]
fn a_copy_gets_an_id_of_its_own_and_runs_nothing_that_it_holds() {
    let folder = folder();
    let state = used(&folder);
    let (path, elsewhere) = (folder.path().join("state"), folder.path().join("copy"));
    copy(&path, &elsewhere);
    let before = {
        let (queue, tasks) = open_at(&elsewhere);
        let from = path.display().to_string();
        assert_eq!(queue.origin(), &Origin::Copied { from });
        assert_ne!(queue.state_id(), state);
        assert!(tasks.iter().all(|task| task.unsecured.is_some()) && tasks.len() == 2);
        assert_eq!(queue.waiting(), 1, "results are results wherever they are");
        queue.state_id()
    };
    // Also if the daemon died before it had handed them back.
    let (queue, tasks) = open_at(&elsewhere);
    assert_eq!((queue.origin(), queue.state_id()), (&Origin::Own, before));
    assert!(tasks.iter().all(|task| task.unsecured.is_some()) && tasks.len() == 2);
    let (queue, tasks) = open_at(&path);
    assert_eq!((queue.origin(), queue.state_id()), (&Origin::Own, state));
    assert!(tasks.iter().all(|task| task.unsecured.is_none()), "the original goes on");
}

#[test]
fn a_folder_that_was_put_back_runs_nothing_that_it_holds() {
    let folder = folder();
    let state = used(&folder);
    let (path, aside) = (folder.path().join("state"), folder.path().join("aside"));
    copy(&path, &aside);
    fs::remove_dir_all(&path).unwrap();
    copy(&aside, &path);
    let (queue, tasks) = open_at(&path);
    assert_ne!(queue.state_id(), state);
    // Where the host has no name, the path may be that of another host.
    if Path::new("/etc/machine-id").exists() {
        assert_eq!(queue.origin(), &Origin::PutBack { was: state });
    }
    assert!(tasks.iter().all(|task| task.unsecured.is_some()) && tasks.len() == 2);
}

#[test]
fn a_folder_whose_files_are_those_of_an_earlier_start_runs_nothing_that_it_holds() {
    let folder = folder();
    let state = used(&folder);
    let (path, aside) = (folder.path().join("state"), folder.path().join("aside"));
    copy(&path, &aside);
    drop(open_at(&path));
    copy(&aside, &path);
    let (queue, tasks) = open_at(&path);
    assert_ne!(queue.state_id(), state);
    assert!(tasks.iter().all(|task| task.unsecured.is_some()) && tasks.len() == 2);
}

#[test]
fn a_folder_that_was_renamed_goes_on() {
    let folder = folder();
    let state = used(&folder);
    let renamed = folder.path().join("renamed");
    fs::rename(folder.path().join("state"), &renamed).unwrap();
    for _ in 0..2 {
        let (queue, tasks) = open_at(&renamed);
        assert_eq!((queue.origin(), queue.state_id()), (&Origin::Own, state));
        assert!(tasks.iter().all(|task| task.unsecured.is_none()) && tasks.len() == 2);
    }
}
