//! Looks for files of messages that are damaged, missing or set aside. Reads a part of
//! what waits, bounded by number and bytes, and changes nothing.

use super::disk;
use super::group;
use super::names::{FileName, is_member};
use super::root::Root;
use super::sources::gaps_unclaimed;
use super::topology::Cached;
use crate::link::Fault;
use crate::text::counted::counted;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Most files that are read, and most bytes of them.
const MOST_FILES: usize = 1000;
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// The prefix of the name of a note about missing files.
const NOTE: &str = "missing.";

/// The damaged, missing and set-aside files of a folder.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// How many were set aside, as they could not be read.
    aside: u64,
    /// How many were found missing by a consumer, which noted so.
    noted: u64,
    /// The queues in which some are damaged or missing that no consumer has met.
    queues: Vec<QueueCensus>,
    files: usize,
    bytes: u64,
}

#[derive(Debug)]
struct QueueCensus {
    name: String,
    damaged: u64,
    missing: u64,
    /// One that is damaged.
    first: Option<PathBuf>,
}

/// Notes that files of a queue are missing, for `check` to tell later.
pub(super) fn note(root: &Root, queue: &str, missing: u64) -> io::Result<()> {
    let file = root.quarantine().join(format!("{NOTE}{}", uuid::Uuid::now_v7()));
    disk::replace(
        &file,
        format!("{} of {queue}\n", counted(missing, "file")).as_bytes(),
        root.access(),
    )
}

/// Looks at all queues of a folder.
pub(super) fn take(root: &Root) -> Result<Census, Fault> {
    let failed = |path: &Path, error: io::Error| root.fault("looking through", path, &error);
    let mut census = Census::default();
    let quarantine = root.quarantine();
    for name in disk::names(&quarantine).map_err(|error| failed(&quarantine, error))? {
        if name.starts_with(NOTE) {
            let text = fs::read_to_string(quarantine.join(name)).unwrap_or_default();
            let count = text.split(' ').next().and_then(|count| count.parse::<u64>().ok());
            census.noted += count.unwrap_or(1);
        } else if !name.starts_with('.') {
            census.aside += 1;
        }
    }
    let table = Cached::default().get(root)?;
    for name in table.queue_names() {
        let ready = root.ready(name);
        let queue = census.queue(&ready, name).map_err(|error| failed(&ready, error))?;
        if queue.damaged + queue.missing > 0 {
            census.queues.push(queue);
        }
    }
    Ok(census)
}

impl Census {
    fn queue(&mut self, ready: &Path, name: &str) -> io::Result<QueueCensus> {
        let mut queue = QueueCensus { name: name.to_owned(), damaged: 0, missing: 0, first: None };
        for producer in disk::names(ready)?.iter().filter(|name| is_member(name)) {
            let folder = ready.join(producer);
            let waiting = waiting(&folder)?;
            let missing = gaps_unclaimed(waiting.iter());
            if missing > 0 {
                // What was claimed while the names were listed is not in the next listing.
                queue.missing += gaps_unclaimed(self::waiting(&folder)?.iter()).min(missing);
            }
            for entry in waiting {
                let file = folder.join(entry.name());
                if self.files < MOST_FILES && self.bytes < MOST_BYTES && !self.is_good(&file)? {
                    queue.damaged += 1;
                    queue.first.get_or_insert(file);
                }
            }
        }
        Ok(queue)
    }

    /// Whether a file can be read, or was taken by a consumer meanwhile.
    fn is_good(&mut self, file: &Path) -> io::Result<bool> {
        self.files += 1;
        let size = fs::symlink_metadata(file).map(|found| found.len());
        self.bytes += size.unwrap_or_default();
        match group::read(file) {
            Ok(messages) => Ok(messages.is_ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Says what is wrong and what to do; nothing if all is well.
    pub(super) fn words(&self, quarantine: &Path) -> Option<String> {
        let mut words = Vec::new();
        if self.aside > 0 {
            words.push(format!("{} set aside as damaged", counted(self.aside, "file")));
        }
        if self.noted > 0 {
            words.push(format!("{} found missing", counted(self.noted, "file")));
        }
        for QueueCensus { name, damaged, missing, first } in &self.queues {
            if let Some(first) = first {
                let first = first.display();
                words.push(format!(
                    "{} of {name} damaged, one is {first}",
                    counted(*damaged, "file")
                ));
            }
            if *missing > 0 {
                words.push(format!("{} of {name} missing", counted(*missing, "file")));
            }
        }
        if words.is_empty() {
            return None;
        }
        let words = words.join("; ");
        Some(format!(
            "{words}. Tasks in them are asked for when an endpoint or the service meets the \
             damage, and run again or end as interrupted. Find out what damages files there (the \
             disk, another program), then remove those in {}",
            quarantine.display()
        ))
    }
}

/// The groups that wait in a producer's folder, in order.
fn waiting(folder: &Path) -> io::Result<Vec<FileName>> {
    let names = disk::names(folder)?;
    let mut entries: Vec<FileName> =
        names.iter().filter_map(|name| FileName::parse(name)).collect();
    entries.sort_unstable();
    Ok(entries)
}
