//! Watches over the state folder and the database's while the service runs: what is removed or
//! replaced there is noticed at once.
//!
//! Touches: inotify. Wakes for nothing else; where there is no inotify, it looks now and
//! then.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// How often the folder is looked at where there is no inotify.
const LOOK: Duration = Duration::from_secs(10);
/// How long to wait after an event: more files may be about to be removed.
const SETTLE: Duration = Duration::from_secs(1);
/// Room for some events; what they say does not matter.
const EVENTS: usize = 4096;

/// An eye on folders.
#[derive(Debug)]
pub(crate) struct FolderWatch(Option<AsyncFd<OwnedFd>>);

impl FolderWatch {
    /// Over folders that are there.
    pub(crate) fn over(folders: &[&Path]) -> Self {
        let watched = watch(folders).inspect_err(|error| {
            tracing::warn!(%error, "the state folder cannot be watched with inotify: it is checked every 10 s");
        });
        Self(watched.ok())
    }

    /// Returns when something may have been removed or replaced, a moment after that.
    pub(crate) async fn changed(&self) {
        match &self.0 {
            None => tokio::time::sleep(LOOK).await,
            Some(inotify) => {
                if let Ok(mut ready) = inotify.readable().await {
                    let mut events = [0; EVENTS];
                    while rustix::io::read(inotify.get_ref(), &mut events).is_ok_and(|n| n > 0) {}
                    ready.clear_ready();
                }
                tokio::time::sleep(SETTLE).await;
            }
        }
    }
}

fn watch(folders: &[&Path]) -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let gone = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
    let folder_gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
    for folder in folders {
        inotify::add_watch(&inotify, *folder, gone | folder_gone)?;
    }
    #[allow(
        deprecated,
        reason = "its successor is unsafe; what that guards against, a descriptor closed or replaced meanwhile, an OwnedFd never does"
    )]
    AsyncFd::with_interest(inotify, tokio::io::Interest::READABLE)
}

/// A socket, by its path and what was put there.
#[derive(Debug)]
pub(crate) struct FileIdentity {
    path: PathBuf,
    identity: (u64, u64),
}

impl FileIdentity {
    /// Identifies the file at a path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), identity: (found.dev(), found.ino()) })
    }

    /// Whether that is there still.
    pub(crate) fn is_there(&self) -> bool {
        Self::at(&self.path).is_ok_and(|now| now.identity == self.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;

    #[tokio::test]
    async fn what_is_removed_is_noticed_and_what_comes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let guard = FolderWatch::over(&[folder.path()]);
        std::fs::write(folder.path().join("file"), "").unwrap();
        let named = FileIdentity::at(&folder.path().join("file")).unwrap();
        let mut changed = pin!(guard.changed());
        assert!(poll!(&mut changed).is_pending() && named.is_there());
        std::fs::remove_file(folder.path().join("file")).unwrap();
        changed.await;
        assert!(!named.is_there());
        let mut changed = pin!(guard.changed());
        assert!(poll!(&mut changed).is_pending());
        folder.close().unwrap();
        changed.await;
    }
}
