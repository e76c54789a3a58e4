//! Writes groups of messages into queues, as one producer: aside, synced,
//! renamed into place, the folder synced. Blocks while the disk works.

use super::disk;
use super::group;
use super::names::FileName;
use super::options::Access;
use super::session::FolderSession;
use crate::link::Message;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Most bytes of bodies in one file, unless one message alone is larger.
const GROUP_BYTES: usize = 512 * 1024;

/// Most folders held open: one for each queue that was published to lately.
const MOST_OPEN: usize = 64;
/// A file being written, until it has its name.
const ASIDE: &str = ".writing";

/// A producer. Its groups in a queue are numbered without gaps, so a consumer
/// finds the next one by its name.
pub(super) struct Writer {
    session: Arc<FolderSession>,
    streams: BTreeMap<String, Stream>,
    /// The queues with an open folder, the one used longest ago first.
    open: VecDeque<String>,
}

/// A producer's folder in a queue.
struct Stream {
    path: PathBuf,
    folder: Option<File>,
    next: u64,
}

impl Writer {
    /// A producer of a session.
    pub(super) fn new(session: &Arc<FolderSession>) -> Self {
        Self { session: Arc::clone(session), streams: BTreeMap::new(), open: VecDeque::new() }
    }

    /// How many of these messages the next file takes, in order: at least one.
    pub(super) fn fits<'a>(&self, messages: impl Iterator<Item = &'a Message>) -> usize {
        let mut bytes = 0;
        let fitting = messages.take(self.session.root.options.group).take_while(|message| {
            bytes += message.body.len();
            bytes <= GROUP_BYTES
        });
        fitting.count().max(1)
    }

    /// Puts messages into a queue, as one file. They are there for consumers
    /// from then on, and durable after [`Writer::sync`].
    ///
    /// # Errors
    /// When nothing was put there. It may be tried again.
    pub(super) fn put<'a>(
        &mut self,
        queue: &str,
        messages: impl Iterator<Item = &'a Message> + Clone,
    ) -> io::Result<()> {
        let bytes = group::encode(messages);
        let access = self.session.root.access();
        match self.stream(queue).and_then(|stream| stream.write(&bytes, access)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // A session that took this one for dead removed its folder, which was empty.
                self.streams.remove(queue);
                self.stream(queue)?.write(&bytes, access)
            }
            done => done,
        }
    }

    /// Makes durable what was put into a queue.
    ///
    /// # Errors
    /// When that is not certain, or the root is not there any more: what was put
    /// is somewhere else then.
    pub(super) fn sync(&mut self, queue: &str) -> io::Result<()> {
        self.stream(queue)?.folder()?.sync_all()?;
        self.session.root.is_there().map_err(io::Error::other)
    }

    /// The folder for a queue, open.
    fn stream(&mut self, queue: &str) -> io::Result<&mut Stream> {
        if !self.streams.contains_key(queue) {
            let root = &self.session.root;
            root.is_there().map_err(io::Error::other)?;
            let path = root.ready(queue).join(self.session.member());
            disk::make_folder(&path, root.access())?;
            self.streams.insert(queue.to_owned(), Stream { path, folder: None, next: 1 });
        }
        self.open.retain(|open| open != queue);
        self.open.push_back(queue.to_owned());
        if self.open.len() > MOST_OPEN
            && let Some(oldest) = self.open.pop_front()
            && let Some(stream) = self.streams.get_mut(&oldest)
        {
            stream.folder = None;
        }
        let stream = self.streams.get_mut(queue).ok_or(ErrorKind::NotFound)?;
        if stream.folder.is_none() {
            stream.folder = Some(File::open(&stream.path)?);
        }
        Ok(stream)
    }
}

impl Stream {
    fn folder(&self) -> io::Result<&File> {
        self.folder.as_ref().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Writes the next group into the folder that is open, wherever its path
    /// leads by now.
    fn write(&mut self, bytes: &[u8], access: Access) -> io::Result<()> {
        let folder = self.folder()?;
        let name = FileName::fresh(self.next).name();
        let written = write_aside(folder, bytes, access)
            .and_then(|()| Ok(renameat(folder, ASIDE, folder, name)?));
        if let Err(error) = written {
            // What was written of it takes room that others may need.
            if let Err(error) = unlinkat(folder, ASIDE, AtFlags::empty()) {
                tracing::trace!(%error, "nothing was written aside");
            }
            return Err(error);
        }
        // Consumers watch the folder above this one: a change of its times names
        // it to them.
        disk::touch(folder);
        self.next += 1;
        Ok(())
    }
}

fn write_aside(folder: &File, bytes: &[u8], access: Access) -> io::Result<()> {
    let mode = Mode::from_raw_mode(access.file_mode());
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, ASIDE, flags, mode)?);
    if access != Access::Private {
        // The umask does not reach a mode that is set later.
        file.set_permissions(Permissions::from_mode(access.file_mode()))?;
    }
    file.write_all(bytes)?;
    file.sync_data()
}

impl Drop for Writer {
    fn drop(&mut self) {
        for stream in self.streams.values() {
            // Stays while there is something in it; the consumer removes it then.
            if let Err(error) = fs::remove_dir(&stream.path) {
                tracing::trace!(%error, "a producer's folder stays");
            }
        }
    }
}
