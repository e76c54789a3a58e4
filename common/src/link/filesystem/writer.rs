//! Writes groups of messages into queues, as one producer: aside, synced,
//! renamed into place, the folder synced. Blocks while the disk works.

use super::disk;
use super::group;
use super::names::Entry;
use super::options::Access;
use super::session::Session;
use crate::link::Message;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

/// Most bytes of bodies in one file, unless one message alone is larger.
const GROUP_BYTES: usize = 512 * 1024;

/// A producer. Its groups in a queue are numbered without gaps, so a consumer
/// finds the next one by its name.
pub(super) struct Writer {
    session: Arc<Session>,
    streams: BTreeMap<String, Stream>,
}

/// A producer's folder in a queue.
struct Stream {
    path: PathBuf,
    folder: File,
    next: u64,
}

impl Writer {
    /// A producer of a session.
    pub(super) fn new(session: &Arc<Session>) -> Self {
        Self { session: Arc::clone(session), streams: BTreeMap::new() }
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
        match self.stream(queue)?.write(&bytes, access) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Who took us for dead removed our folder, which was empty.
                self.streams.remove(queue);
                self.stream(queue)?.write(&bytes, access)
            }
            done => done,
        }
    }

    /// Makes durable what was put into a queue.
    pub(super) fn sync(&self, queue: &str) -> io::Result<()> {
        self.streams.get(queue).map_or(Ok(()), |stream| stream.folder.sync_all())
    }

    fn stream(&mut self, queue: &str) -> io::Result<&mut Stream> {
        if !self.streams.contains_key(queue) {
            let root = &self.session.root;
            let path = root.ready(queue).join(self.session.member());
            disk::make_folder(&path, root.access())?;
            let stream = Stream { folder: File::open(&path)?, path, next: 1 };
            self.streams.insert(queue.to_owned(), stream);
        }
        self.streams.get_mut(queue).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Stream {
    fn write(&mut self, bytes: &[u8], access: Access) -> io::Result<()> {
        let temporary = self.path.join(".writing");
        let path = self.path.join(Entry::fresh(self.next).name());
        let written = disk::write_synced(&temporary, bytes, access)
            .and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            // What was written of it takes room that others may need.
            disk::remove_if_there(&temporary)?;
            return Err(error);
        }
        self.next += 1;
        // Consumers watch the folder above this one: a change of its times names
        // it to them.
        disk::touch(&self.folder)
    }
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
