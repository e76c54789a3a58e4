//! Wakes a consumer's thread: at a change in its queue's folder (inotify), at a call of its
//! own process (an eventfd), or after a time. On a network file system inotify does not see
//! other hosts, and time alone is left.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Wakes the thread of one [`WakeListener`], from any other.
#[derive(Clone)]
pub(super) struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Wakes the thread, or keeps it from waiting the next time.
    pub(super) fn wake(&self) {
        // It fails only when the count is full, and then it has rung.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }
}

/// Waits for a reason to wake.
pub(super) struct WakeListener {
    waker: Arc<OwnedFd>,
    inotify: Option<OwnedFd>,
}

/// Why a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WakeReason {
    /// Nothing: the time is up.
    Nothing,
    /// Perhaps a [`Waker`], and changes of the entries of these names in the folder.
    Changes(BTreeSet<String>),
    /// More changes than are told one by one.
    Everything,
}

impl WakeListener {
    /// A listener for a folder.
    ///
    /// # Errors
    /// When there are no file descriptors left.
    pub(super) fn new(folder: &Path) -> io::Result<(Self, Waker)> {
        let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let inotify = watch(folder)
            .inspect_err(|error| {
                let folder = folder.display();
                tracing::warn!(%error, %folder, "no inotify for this folder: it is polled");
            })
            .ok();
        Ok((Self { waker: Arc::clone(&waker), inotify }, Waker(waker)))
    }

    /// Listens, for `limit` at most.
    pub(super) fn listen(&self, limit: Duration) -> io::Result<WakeReason> {
        let mut fds = vec![PollFd::new(&*self.waker, PollFlags::IN)];
        fds.extend(self.inotify.as_ref().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
        let limit = Timespec::try_from(limit).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => return Ok(WakeReason::Nothing),
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(WakeReason::Changes(BTreeSet::new())),
            Err(error) => return Err(error.into()),
        }
        // Empty when another wake took the rings along.
        rustix::io::read(&*self.waker, &mut [0; 8]).ok();
        self.changes()
    }

    fn changes(&self) -> io::Result<WakeReason> {
        let mut names = BTreeSet::new();
        let Some(inotify) = &self.inotify else { return Ok(WakeReason::Changes(names)) };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => match event.file_name().map(|name| name.to_str()) {
                    Some(Ok(name)) => drop(names.insert(name.to_owned())),
                    // No file of ours has a name that is no text.
                    Some(Err(_)) => {}
                    None => return Ok(WakeReason::Everything),
                },
                Err(Errno::WOULDBLOCK) => return Ok(WakeReason::Changes(names)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn watch(folder: &Path) -> rustix::io::Result<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // A producer's folder that is new, or got other times to say that something is
    // new in it.
    let changes = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&inotify, folder, changes)?;
    Ok(inotify)
}

#[cfg(test)]
mod tests {
    use super::super::disk;
    use super::*;
    use std::fs::File;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_wake_a_new_folder_and_a_changed_time_end_a_wait_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let (listener, waker) = WakeListener::new(folder.path()).unwrap();
        assert_eq!(listener.listen(Duration::from_millis(1)).unwrap(), WakeReason::Nothing);
        waker.wake();
        waker.wake();
        assert_eq!(listener.listen(LONG).unwrap(), WakeReason::Changes(BTreeSet::new()));
        assert_eq!(listener.listen(Duration::from_millis(1)).unwrap(), WakeReason::Nothing);
        let producer = folder.path().join("p");
        std::fs::create_dir(&producer).unwrap();
        let p = WakeReason::Changes(["p".to_owned()].into());
        assert_eq!(listener.listen(LONG).unwrap(), p);
        std::fs::write(producer.join("file"), b"").unwrap();
        assert_eq!(listener.listen(Duration::from_millis(1)).unwrap(), WakeReason::Nothing);
        disk::touch(File::open(&producer).unwrap());
        assert_eq!(listener.listen(LONG).unwrap(), p);
    }
}
