//! Where a consumer's next group comes from: one folder for each producer, and
//! what is known of it. A claim is a rename; a second consumer finds nothing.
//!
//! A producer numbers its groups without gaps, so the next one is asked for by
//! name, and a folder is listed only when a name does not help: at first, where
//! other consumers take something too, and once in a while when all is quiet.

use super::disk;
use super::names::{FileName, is_member};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Most names kept of a listing.
const LISTED: usize = 1024;

/// The producers of a queue as one consumer sees them.
pub(super) struct Sources {
    ready: PathBuf,
    claims: PathBuf,
    /// Whether other consumers may take something.
    shared: bool,
    known: BTreeMap<String, Source>,
    /// The producer that had the last turn.
    last: String,
    /// How many groups are gone that no consumer claimed, since the count was last taken.
    missing: u64,
}

#[derive(Default)]
struct Source {
    /// The names that a listing has shown, in order.
    listed: VecDeque<FileName>,
    /// The number after those.
    next: Option<u64>,
    /// Whether there may be something.
    stirred: bool,
    /// Whether it is to be listed before it counts as empty.
    unsure: bool,
    /// Whether something was claimed, or looked for in vain, since it was last listed
    /// or looked at.
    moved: bool,
    /// How many groups were passed by because they are gone.
    missing: u64,
}

/// A group that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimedFile {
    /// Its producer.
    pub(super) producer: String,
    /// Its number, with this delivery counted.
    pub(super) entry: FileName,
}

impl ClaimedFile {
    /// Its file.
    pub(super) fn path(&self, claims: &Path) -> PathBuf {
        claims.join(self.entry.claim_name(&self.producer))
    }
}

impl Sources {
    /// The producers in `ready`; what is claimed goes into `claims`.
    pub(super) fn new(ready: PathBuf, claims: PathBuf, shared: bool) -> Self {
        Self { ready, claims, shared, known: BTreeMap::new(), last: String::new(), missing: 0 }
    }

    /// Looks which producers there are, and lets all of them be looked into; those
    /// with a listing that have given something since the last look.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let names = disk::names(&self.ready)?.into_iter();
        let there: BTreeSet<String> = names.filter(|name| is_member(name)).collect();
        self.known.retain(|producer, _| there.contains(producer));
        for producer in there {
            let source = self.known.entry(producer).or_insert_with(Source::fresh);
            source.stirred = true;
            source.unsure |= std::mem::take(&mut source.moved);
        }
        Ok(())
    }

    /// Something that was claimed is back: whatever was known of what comes next
    /// is not true any more.
    pub(super) fn forget(&mut self) {
        self.known.values_mut().for_each(|source| *source = Source::fresh());
    }

    /// Something is new in these folders.
    pub(super) fn stir(&mut self, producers: BTreeSet<String>) {
        for producer in producers.into_iter().filter(|name| is_member(name)) {
            self.known.entry(producer).or_insert_with(Source::fresh).stirred = true;
        }
    }

    /// Gives back the later part of a claim that is too large, at once, and keeps
    /// the first `count` messages. It comes next in its producer's order.
    ///
    /// # Errors
    /// When the file system takes no second name for a file.
    pub(super) fn split(&mut self, claim: &mut ClaimedFile, count: usize) -> io::Result<()> {
        let middle = claim.entry.from + count;
        let rest = FileName { from: middle, deliveries: claim.entry.deliveries - 1, ..claim.entry };
        let folder = self.ready.join(&claim.producer);
        let path = claim.path(&self.claims);
        // The rest first: what is there twice is delivered twice at worst.
        fs::hard_link(&path, folder.join(rest.name()))?;
        claim.entry.to = Some(middle);
        fs::rename(path, claim.path(&self.claims))?;
        if let Some(source) = self.known.get_mut(&claim.producer) {
            source.listed.push_front(rest);
            source.stirred = true;
        }
        disk::touch(fs::File::open(folder)?);
        Ok(())
    }

    /// How many groups are gone that were there, and that this consumer, the only one,
    /// has not claimed; since that was asked last.
    pub(super) fn missing(&mut self) -> u64 {
        std::mem::take(&mut self.missing)
    }

    /// Claims the next group of the next producer that has one.
    ///
    /// # Errors
    /// When a file cannot be renamed or a folder not be read. Nothing is skipped.
    pub(super) fn claim(&mut self) -> io::Result<Option<ClaimedFile>> {
        let stirred = |(_, source): &(&String, &Source)| source.stirred;
        let after = (std::ops::Bound::Excluded(self.last.clone()), std::ops::Bound::Unbounded);
        let later = self.known.range(after).filter(stirred);
        let turns: Vec<String> = later
            .chain(self.known.range(..=self.last.clone()).filter(stirred))
            .map(|(producer, _)| producer.clone())
            .collect();
        for producer in turns {
            let Some(source) = self.known.get_mut(&producer) else { continue };
            let folder = self.ready.join(&producer);
            let found = source.claim(&folder, &producer, &self.claims, self.shared)?;
            self.missing += std::mem::take(&mut source.missing);
            self.last.clone_from(&producer);
            if let Some(entry) = found {
                return Ok(Some(ClaimedFile { producer, entry }));
            }
        }
        Ok(None)
    }
}

impl Source {
    fn fresh() -> Self {
        Self { stirred: true, unsure: true, ..Self::default() }
    }

    /// Claims the next group of one producer.
    fn claim(
        &mut self,
        folder: &Path,
        producer: &str,
        claims: &Path,
        shared: bool,
    ) -> io::Result<Option<FileName>> {
        loop {
            while let Some(&entry) = self.listed.front() {
                let claimed = rename(entry, folder, producer, claims)?;
                self.listed.pop_front();
                if claimed.is_some() {
                    self.moved = true;
                    return Ok(claimed);
                }
                self.missing += u64::from(!shared);
            }
            if let Some(number) = self.next
                && let Some(claimed) = rename(FileName::fresh(number), folder, producer, claims)?
            {
                self.next = Some(number + 1);
                self.moved = true;
                return Ok(Some(claimed));
            }
            if self.next.is_some() && !(self.unsure || shared) {
                self.stirred = false;
                self.moved = true;
                return Ok(None);
            }
            self.listed = list(folder, self.next)?;
            if !shared {
                self.missing += match self.next {
                    Some(next) => gaps(&self.listed, next),
                    None => gaps_unclaimed(self.listed.iter()),
                };
            }
            self.unsure = false;
            if self.listed.is_empty() {
                self.stirred = false;
                return Ok(None);
            }
            self.next = self.listed.back().map(|entry| entry.number + 1).max(self.next);
        }
    }
}

/// How many numbers are missing from `next` on. What was put there before something
/// that is listed is listed, too, if it is there.
fn gaps(listed: &VecDeque<FileName>, next: u64) -> u64 {
    let mut expected = next;
    let mut missing = 0;
    for entry in listed {
        missing += entry.number.saturating_sub(expected);
        expected = expected.max(entry.number + 1);
    }
    missing
}

/// How many numbers are missing between groups that no consumer has had. What was given
/// back leaves gaps of its own.
pub(super) fn gaps_unclaimed<'a>(listed: impl Iterator<Item = &'a FileName>) -> u64 {
    let mut missing = 0;
    let mut last: Option<u64> = None;
    for entry in listed.filter(|entry| **entry == FileName::fresh(entry.number)) {
        missing += last.map_or(0, |last| (entry.number - last).saturating_sub(1));
        last = Some(entry.number);
    }
    missing
}

/// Claims one group, unless it is not there.
fn rename(
    entry: FileName,
    folder: &Path,
    producer: &str,
    claims: &Path,
) -> io::Result<Option<FileName>> {
    let claimed = FileName { deliveries: entry.deliveries + 1, ..entry };
    let to = claims.join(claimed.claim_name(producer));
    match fs::rename(folder.join(entry.name()), &to) {
        Ok(()) => Ok(Some(claimed)),
        Err(error) if error.kind() == ErrorKind::NotFound && claims.is_dir() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first entries of a folder, in order.
///
/// A listing is no snapshot: it may show a file and miss one that was there
/// before. What was there before something that the first listing shows, the
/// second one shows too; so the second is taken, up to what the first has shown.
/// Where the first one shows all numbers from `next` on, none is missing.
fn list(folder: &Path, next: Option<u64>) -> io::Result<VecDeque<FileName>> {
    let first = smallest(folder, FileName::fresh(u64::MAX))?;
    let Some(&last) = first.last() else { return Ok(VecDeque::new()) };
    let expected = next.into_iter().flat_map(|next| next..);
    if next.is_some() && first.iter().map(|entry| entry.number).eq(expected.take(first.len())) {
        return Ok(first.into());
    }
    Ok(smallest(folder, last)?.into())
}

fn smallest(folder: &Path, limit: FileName) -> io::Result<Vec<FileName>> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut smallest = BinaryHeap::new();
    for item in listing {
        let name = item?.file_name();
        let Some(entry) = name.to_str().and_then(FileName::parse) else { continue };
        if entry <= limit {
            smallest.push(entry);
        }
        if smallest.len() > LISTED {
            smallest.pop();
        }
    }
    Ok(smallest.into_sorted_vec())
}

#[cfg(test)]
mod tests;
