//! A disk as one process reaches it: the store and the files below the disk queue, in
//! memory. The process may die, and the disk may fail, before and after each effect; after
//! that nothing of the process has an effect.

use super::contents::{Contents, Written};
use super::media::{COUNTER, Media};
use super::plan::Mishap;
use super::process::Life;
use super::world::{World, lock};
use crate::storage::disk_queue::CommitCounter;
use crate::storage::disk_queue::store::{Entries, Entry, Store, StoreError, Writes};
use crate::storage::files::{Files, StoredFile};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

/// The disk of an instance.
pub(super) struct Disk {
    media: Media,
    /// The content that it must have.
    pub(super) contents: Contents,
    /// The changes of the commit under way.
    writing: Vec<Written>,
    /// Whether it has failed the process that uses it.
    pub(super) has_failed: bool,
}

impl Disk {
    /// An empty one.
    pub(super) fn new(instance: usize) -> Self {
        let (media, contents) = (Media::new(), Contents::new(instance));
        Self { media, contents, writing: Vec::new(), has_failed: false }
    }

    /// The process that used it is gone, with a power cut or not; another one will.
    pub(super) fn crash(&mut self, world: &World, power_cut: bool) {
        let kept = self.media.crash(power_cut, |end| world.within(0..end));
        if kept {
            self.written(world);
        }
        self.writing.clear();
        self.has_failed = false;
    }

    /// The next commit adds this.
    pub(super) fn begins(&mut self, writing: Vec<Written>) {
        self.writing = writing;
    }

    /// The changes of the commit under way are durable.
    pub(super) fn written(&mut self, world: &World) {
        for written in std::mem::take(&mut self.writing) {
            self.contents.add(world, written);
        }
    }
}

/// The disk, to one process.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
    pub(super) disk: Arc<Mutex<Disk>>,
}

impl Device {
    /// The commit counter on it.
    pub(super) fn commit_counter(&self) -> CommitCounter {
        CommitCounter::over(Box::new(OpenFile { device: self.clone(), file: COUNTER }))
    }

    fn read<T>(&self, how: impl FnOnce(&Media) -> T) -> io::Result<T> {
        self.works()?;
        Ok(how(&lock(&self.disk).media))
    }

    /// Changes the disk; the process may die, or the disk fail, before or after that.
    fn effect<T>(&self, what: &str, how: impl FnOnce(&mut Disk) -> T) -> io::Result<T> {
        self.meet_mishaps("before", what)?;
        let done = how(&mut lock(&self.disk));
        self.meet_mishaps("after", what)?;
        Ok(done)
    }

    fn meet_mishaps(&self, when: &str, what: &str) -> io::Result<()> {
        self.works()?;
        if self.world.mishap(Mishap::CrashAtWrite) {
            self.life.crash(&format!("{when} {what}"));
        }
        if self.world.mishap(Mishap::BrokenDisk) {
            let name = &self.life.name;
            self.world.note(format_args!("{name}: the disk breaks {when} {what}"));
            lock(&self.disk).has_failed = true;
        }
        self.works()
    }

    fn works(&self) -> io::Result<()> {
        if self.life.is_over() {
            return Err(io::Error::other("the process is gone"));
        }
        if lock(&self.disk).has_failed { Err(io::Error::other("the disk broke")) } else { Ok(()) }
    }
}

impl Store for Device {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read(|media| media.get(key))?)
    }

    fn range(&self, from: &[u8], end: &[u8]) -> Entries {
        let (device, end) = (self.clone(), end.to_vec());
        let mut from = Bound::Included(from.to_vec());
        Box::new(std::iter::from_fn(move || {
            let start = from.as_ref().map(Vec::as_slice);
            match device.read(|media| media.first(start, &end)) {
                Ok(entry) => {
                    let entry = entry?;
                    from = Bound::Excluded(entry.0.clone());
                    Some(Ok(entry))
                }
                Err(error) => Some(Err(error.into())),
            }
        }))
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Entry>, StoreError> {
        Ok(self.read(|media| media.last(from, to))?)
    }

    fn apply(&self, writes: Writes) -> Result<(), StoreError> {
        Ok(self.effect("the store is written", |disk| disk.media.apply(writes))?)
    }

    fn flush(&self) -> Result<(), StoreError> {
        let flush = |disk: &mut Disk| {
            disk.media.flush();
            disk.written(&self.world);
        };
        Ok(self.effect("the store is flushed", flush)?)
    }

    fn is_here(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn file(&self) -> Option<(&File, u64)> {
        None
    }
}

impl Files for Device {
    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        let file = self.effect("a file is made", |disk| disk.media.create(name))?;
        Ok(Box::new(OpenFile { device: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        let file = self.read(|media| media.find(name))??;
        Ok(Box::new(OpenFile { device: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.effect("a file is renamed", |disk| disk.media.rename(from, to))?
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.effect("a file is linked", |disk| disk.media.link(from, to))?
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.effect("a file is removed", |disk| disk.media.remove(name))?
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.read(Media::names)
    }

    fn sync(&self) -> io::Result<()> {
        self.effect("the folder is synced", |disk| disk.media.sync_names())
    }
}

/// An open file on a device.
struct OpenFile {
    device: Device,
    file: u64,
}

impl StoredFile for OpenFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let write = |disk: &mut Disk| disk.media.write(self.file, bytes, offset);
        self.device.effect("a file is written", write)?
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.device.read(|media| media.read(self.file, bytes, offset))?
    }

    fn sync(&self) -> io::Result<()> {
        self.device.effect("a file is synced", |disk| disk.media.sync(self.file))?
    }
}
