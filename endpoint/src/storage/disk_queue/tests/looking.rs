//! A look at a state folder changes nothing in it.

use super::*;
use crate::storage::disk_queue::{FolderLook, OpenError, look};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// All that is in a folder: paths, contents, modes and the times of writing.
fn all_of(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, i64)> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let found = path.metadata().unwrap();
            if found.is_dir() {
                open.push(path.clone());
            }
            let content = if found.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let written = if found.is_file() { found.mtime_nsec() } else { 0 };
            all.insert(path, (content, found.mode(), written));
        }
    }
    all
}

#[test]
fn a_look_counts_what_waits_and_no_death() {
    let folder = folder();
    let (mut queue, _) = open(&folder);
    let (small, large) = (task(1), task(LARGE));
    queue.apply(&[accept(0, &small), accept(1, &large)]).unwrap();
    queue.apply(&[finish(None, 0, small.attempt(), LARGE)]).unwrap();
    // The daemon dies while it runs one.
    std::mem::forget(queue.running().note(large.attempt(), None));
    queue.running().die();
    drop(queue);
    let before = all_of(folder.path());
    for _ in 0..3 {
        let found = look(&options(folder.path(), 1000)).unwrap();
        assert_eq!(found, FolderLook::Pending { tasks: 2, results: 1 });
        assert!(all_of(folder.path()) == before, "the look has changed something");
    }
    let (queue, _) = open(&folder);
    assert_eq!(queue.deaths()[&large.attempt()].count, 1, "a look counted as a death");
}

#[test]
fn what_a_look_finds_wrong_is_told_of_the_folder_and_nothing_is_left_behind() {
    let folder = folder();
    drop(open(&folder));
    let before = all_of(folder.path());
    let other = Options { endpoint_id: EndpointId::new(), ..options(folder.path(), 1000) };
    let error = look(&other).unwrap_err();
    assert!(matches!(&error, OpenError::Owner { path, .. } if path == folder.path()), "{error}");
    assert!(all_of(folder.path()) == before, "the look has changed something");
}
