//! What wakes a consumer: a change in its queue's folder (inotify), a ring from
//! its own process (an eventfd), or time. Where there is no inotify, as on a
//! network file system for what other hosts do, time alone is left.

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

/// Rings one [`Ear`], from any thread.
#[derive(Clone)]
pub(super) struct Bell(Arc<OwnedFd>);

impl Bell {
    /// Rings. An ear that is not listening hears it later.
    pub(super) fn ring(&self) {
        // It fails only when the count is full, and then it has rung.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }
}

/// Listens.
pub(super) struct Ear {
    bell: Arc<OwnedFd>,
    inotify: Option<OwnedFd>,
}

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing: the time is up.
    Nothing,
    /// Perhaps a ring, and changes of what has these names in the folder.
    Changes(BTreeSet<String>),
    /// More changes than are told one by one.
    Everything,
}

impl Ear {
    /// An ear for a folder.
    ///
    /// # Errors
    /// When there are no file descriptors left.
    pub(super) fn new(folder: &Path) -> io::Result<(Self, Bell)> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let inotify = watch(folder)
            .inspect_err(|error| {
                let folder = folder.display();
                tracing::warn!(%error, %folder, "no inotify for this folder: it is polled");
            })
            .ok();
        Ok((Self { bell: Arc::clone(&bell), inotify }, Bell(bell)))
    }

    /// Listens, for `limit` at most.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub(super) fn listen(&self, limit: Duration) -> io::Result<Heard> {
        let mut fds = vec![PollFd::new(&*self.bell, PollFlags::IN)];
        fds.extend(self.inotify.as_ref().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
        let limit = Timespec::try_from(limit).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => return Ok(Heard::Nothing),
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Heard::Changes(BTreeSet::new())),
            Err(error) => return Err(error.into()),
        }
        // Empty when another wake took the rings along.
        rustix::io::read(&*self.bell, &mut [0; 8]).ok();
        self.changes()
    }

    fn changes(&self) -> io::Result<Heard> {
        let mut names = BTreeSet::new();
        let Some(inotify) = &self.inotify else { return Ok(Heard::Changes(names)) };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => match event.file_name().map(|name| name.to_str()) {
                    Some(Ok(name)) => drop(names.insert(name.to_owned())),
                    // A name that is no text is nobody's of ours.
                    Some(Err(_)) => {}
                    None => return Ok(Heard::Everything),
                },
                Err(Errno::WOULDBLOCK) => return Ok(Heard::Changes(names)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn watch(folder: &Path) -> rustix::io::Result<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // A producer's folder that is new, or whose times were changed to say that
    // something is new in it.
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
    fn an_ear_hears_rings_folders_and_changed_times_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (ear, bell) = Ear::new(folder.path()).unwrap();
        assert_eq!(ear.listen(Duration::from_millis(1)).unwrap(), Heard::Nothing);
        bell.ring();
        bell.ring();
        assert_eq!(ear.listen(LONG).unwrap(), Heard::Changes(BTreeSet::new()));
        assert_eq!(ear.listen(Duration::from_millis(1)).unwrap(), Heard::Nothing);
        let producer = folder.path().join("p");
        std::fs::create_dir(&producer).unwrap();
        let p = Heard::Changes(["p".to_owned()].into());
        assert_eq!(ear.listen(LONG).unwrap(), p);
        std::fs::write(producer.join("file"), b"").unwrap();
        assert_eq!(ear.listen(Duration::from_millis(1)).unwrap(), Heard::Nothing);
        disk::touch(File::open(&producer).unwrap());
        assert_eq!(ear.listen(LONG).unwrap(), p);
    }
}
