//! The files in a sandbox that is about to be removed, for the task's result.
//!
//! Reads folders below the one it is given, and changes nothing. Promises that it follows
//! no symbolic link, enters no folder that something else is mounted on, and looks at no
//! more than [`ENTRIES`] entries.

use clutch_common::task::removed_files::RemovedFiles;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How many entries of folders are looked at: files and folders.
const ENTRIES: usize = 10_000;

/// The files below a folder, those nearest to it first; `None` if there are none.
pub(super) fn files(folder: &Path) -> Option<RemovedFiles> {
    let device = fs::symlink_metadata(folder).ok()?.dev();
    let mut found = RemovedFiles::none();
    let mut left = ENTRIES;
    let mut folders = VecDeque::from([PathBuf::new()]);
    while let Some(relative) = folders.pop_front() {
        let path = folder.join(&relative);
        let here = fs::symlink_metadata(&path).is_ok_and(|it| it.is_dir() && it.dev() == device);
        let Some(entries) = fs::read_dir(&path).ok().filter(|_| here) else { continue };
        let mut entries: Vec<fs::DirEntry> = entries.flatten().take(left).collect();
        left -= entries.len();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = relative.join(entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push_back(name);
            } else {
                found.add(name.into_os_string());
            }
        }
    }
    (found.count > 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::task::byte_string::ByteString;

    #[test]
    fn files_are_named_from_the_top_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let sandbox = root.path().join("sandbox");
        fs::create_dir_all(sandbox.join("deep/er")).unwrap();
        assert_eq!(files(&sandbox), None, "there are folders only");
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/secret"), "x").unwrap();
        std::os::unix::fs::symlink(root.path().join("outside"), sandbox.join("a-link")).unwrap();
        fs::write(sandbox.join("deep/er/c"), "x").unwrap();
        fs::write(sandbox.join("z"), "x").unwrap();
        let found = files(&sandbox).unwrap();
        assert_eq!(found.names, ["a-link", "z", "deep/er/c"].map(ByteString::from));
        assert_eq!(found.count, 3);
        assert_eq!(files(&root.path().join("gone")), None);
    }

    #[test]
    fn a_great_many_files_are_counted_up_to_a_bound() {
        let root = tempfile::tempdir().unwrap();
        for name in 0..ENTRIES + 5 {
            fs::write(root.path().join(name.to_string()), "").unwrap();
        }
        let found = files(root.path()).unwrap();
        assert_eq!(found.count, RemovedFiles::COUNTED);
        assert_eq!(found.names.len(), RemovedFiles::NAMES);
    }
}
