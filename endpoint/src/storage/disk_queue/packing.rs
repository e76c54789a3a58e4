//! How tasks and results are packed into records of the store.
//!
//! A *record* is an entry of the store that holds one task or result, its *member*, or
//! several small ones of one commit: the store copies a page for each record that is added
//! or removed, so fewer records cost less. What a member holds is its payload, or the place
//! of its payload in a spool file.
//!
//! Records of a key space cover disjoint, ascending ranges of sequence numbers: members of
//! one commit share records in the order of their numbers, and a record is split where one
//! of its members is replaced. A member that leaves a shared record has the record written
//! anew, under a key that names the members that are left.

use super::Error;
use super::record::{self, Form, INLINE_MAX, Key, LEN, MEMBERS_MAX, Member, Space};
use super::spill_policy::MANY_RESULTS;
use super::store::{Entry, Store, StoreError, Writes};
use crate::storage::spool::Spool;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The key of a record, as bytes.
pub(super) type RawKey = Arc<[u8]>;

/// The records of a queue.
pub(super) struct RecordStore {
    store: Arc<dyn Store>,
    /// The state folder, for errors.
    path: PathBuf,
    keys: Keys,
}

/// The keys of the records that tasks and results are in, as far as memory has them: of all
/// tasks, and of the newest results that have their payloads in their records. A member with a
/// known key is removed without reading the store, which costs more than the removal.
#[derive(Default)]
struct Keys {
    tasks: BTreeMap<u64, RawKey>,
    results: BTreeMap<u64, RawKey>,
}

impl Keys {
    /// As many results as wait before their payloads are spooled.
    const RESULTS_MAX: usize = MANY_RESULTS as usize;

    fn note(&mut self, space: Space, member: &Member, raw: &RawKey) {
        if space == Space::Inbox {
            self.tasks.insert(member.seq, Arc::clone(raw));
        } else if member.form == Form::Inline {
            self.results.insert(member.seq, Arc::clone(raw));
            if self.results.len() > Self::RESULTS_MAX {
                self.results.pop_first();
            }
        }
    }

    fn take(&mut self, space: Space, seq: u64) -> Option<RawKey> {
        let keys = if space == Space::Inbox { &mut self.tasks } else { &mut self.results };
        keys.remove(&seq)
    }
}

/// The members that a commit adds and removes.
#[derive(Default)]
pub(super) struct Batch {
    added: Vec<NewMember>,
    /// The sequence numbers that leave each record.
    removed: BTreeMap<RawKey, Vec<u64>>,
    /// The record that was read last to find a result.
    last_read: Option<ReadRecord>,
    /// Whether members are added in the place of others, and so share no record.
    pub(super) replaces: bool,
    /// Whether places of payloads share records as small payloads do.
    pub(super) packs_places: bool,
}

/// A member on its way into a record.
struct NewMember {
    space: Space,
    member: Member,
    content: Vec<u8>,
}

/// A record of results that was read: the numbers, and the spool files of payloads.
struct ReadRecord {
    raw: RawKey,
    members: Vec<(u64, Option<u64>)>,
}

impl ReadRecord {
    fn holds(&self, seq: u64) -> bool {
        self.members.iter().any(|member| member.0 == seq)
    }
}

impl Batch {
    /// Adds a member with its payload, or the place of it.
    pub(super) fn add(&mut self, space: Space, member: Member, content: Vec<u8>) {
        self.added.push(NewMember { space, member, content });
    }

    /// Removes `seq` from the record under `raw`, which holds it.
    pub(super) fn remove(&mut self, raw: RawKey, seq: u64) {
        self.removed.entry(raw).or_default().push(seq);
    }

    /// Whether a member may share its record.
    fn shares(&self, new: &NewMember) -> bool {
        !self.replaces && (self.packs_places || new.member.form == Form::Inline)
    }
}

/// A member of a record that was read.
pub(super) struct StoredMember {
    pub(super) space: Space,
    /// The key of its record.
    pub(super) raw: RawKey,
    pub(super) member: Member,
    /// Its payload, or the place of it.
    pub(super) content: Vec<u8>,
}

impl StoredMember {
    /// The spool file that its payload is in.
    pub(super) fn file(&self) -> Option<u64> {
        let place =
            (self.member.form == Form::Spooled).then(|| record::decode_place(&self.content));
        Some(place??.file)
    }

    /// The member as damage: as the record that it would be alone.
    pub(super) fn damaged(self, how: String) -> Damaged {
        let key = Key { space: self.space, members: vec![self.member] };
        let raw = key.encode();
        let value = record::seal(&raw, &self.content);
        let file = self.file();
        Damaged { raw, value, how, under: self.raw, key: Some(key), file }
    }
}

/// A damaged record, or a damaged member of a sound one as the record that it would be
/// alone.
pub(super) struct Damaged {
    pub(super) raw: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// How it is damaged, in words.
    pub(super) how: String,
    /// The key of the record in the store.
    pub(super) under: RawKey,
    /// The key, if `raw` is one.
    pub(super) key: Option<Key>,
    /// The spool file that its payload is in.
    pub(super) file: Option<u64>,
}

impl Damaged {
    /// The members that are lost.
    pub(super) fn members(&self) -> &[Member] {
        self.key.as_ref().map_or(&[], |key| &key.members)
    }
}

/// The members of a record, or how it is damaged.
fn unpack((raw, value): Entry) -> Result<Vec<StoredMember>, Box<Damaged>> {
    let key = Key::decode(&raw);
    let contents = key
        .as_ref()
        .and_then(|key| record::split(record::unseal(&raw, &value)?, key.members.len()));
    let under = RawKey::from(&raw[..]);
    let (Some(Key { space, members }), Some(contents)) = (&key, contents) else {
        let how =
            if key.is_some() { "its checksum does not match" } else { "its key is malformed" };
        let how = how.to_owned();
        return Err(Box::new(Damaged { raw, value, how, under, key, file: None }));
    };
    let stored = |(member, content): (&Member, &[u8])| StoredMember {
        space: *space,
        raw: Arc::clone(&under),
        member: *member,
        content: content.to_vec(),
    };
    Ok(members.iter().zip(contents).map(stored).collect())
}

impl RecordStore {
    /// The records in `store`, which is in the state folder `path`.
    pub(super) fn new(store: Arc<dyn Store>, path: PathBuf) -> Self {
        Self { store, path, keys: Keys::default() }
    }

    /// The state folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The store below.
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Makes the error of what was being `doing`.
    pub(super) fn failed(&self, doing: &'static str) -> impl Fn(StoreError) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error { path: path.clone(), doing, source }
    }

    /// Makes the error of the spool that an error of the system is.
    pub(super) fn failed_to_spool(&self, error: io::Error) -> Error {
        self.failed("writing to the spool of")(error.into())
    }

    /// The value of a key, as it is stored.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.store.get(key).map_err(self.failed("reading"))
    }

    /// The keys of `space` from `from` on and their values, in order.
    pub(super) fn scan(
        &self,
        space: Space,
        from: &[u8],
    ) -> impl Iterator<Item = Result<Entry, Error>> + use<> {
        let failed = self.failed("reading");
        let entries = self.store.range(from, &[space as u8 + 1]);
        entries.map(move |entry| entry.map_err(&failed))
    }

    /// The last key of `space` up to `to` and its value, if there is any.
    pub(super) fn last(&self, space: Space, to: &[u8]) -> Result<Option<Entry>, Error> {
        self.store.last(&[space as u8], to).map_err(self.failed("reading"))
    }

    /// Makes all of `writes` durable, or none.
    pub(super) fn commit(&self, writes: Writes) -> Result<(), Error> {
        if writes.is_empty() {
            return Ok(());
        }
        let failed = self.failed("writing to");
        self.store.apply(writes).map_err(&failed)?;
        self.store.flush().map_err(&failed)?;
        match self.store.is_here() {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed("its file is not at its path any more".into())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Moves a damaged entry of any kind out of the way and reports it; the spool file that
    /// its payload is in is kept beside it.
    pub(super) fn quarantine(
        &self,
        writes: &mut Writes,
        (raw, value): Entry,
        file: Option<u64>,
        spool: &Spool,
    ) {
        let tasks = Key::decode(&raw).map(|key| {
            let attempts = key.members.iter().map(|member| member.attempt.to_string());
            attempts.collect::<Vec<_>>().join(", ")
        });
        tracing::error!(
            folder = %self.path.display(),
            key = %raw.escape_ascii(),
            tasks,
            "a record of the disk queue is damaged: it is kept in quarantine"
        );
        writes.remove(&raw);
        writes.put_raw(&[&[Space::Quarantine as u8], &raw[..]].concat(), value);
        if let Some(file) = file
            && let Err(error) = spool.set_aside(file)
        {
            tracing::warn!(file, error = %error, "a damaged spool file could not be set aside");
        }
    }

    /// Writes the records of a batch.
    pub(super) fn write_batch(
        &mut self,
        writes: &mut Writes,
        mut batch: Batch,
    ) -> Result<(), Error> {
        for (raw, removed) in std::mem::take(&mut batch.removed) {
            self.shrink(writes, &raw, &removed, batch.replaces)?;
        }
        let mut added = std::mem::take(&mut batch.added);
        added.sort_unstable_by_key(|new| (new.space, new.member.seq));
        let mut rest = &added[..];
        while let Some(first) = rest.first() {
            let mut bytes = LEN + first.content.len();
            let joins = |next: &&NewMember| {
                bytes += LEN + next.content.len();
                batch.shares(first)
                    && batch.shares(next)
                    && next.space == first.space
                    && bytes <= INLINE_MAX
            };
            let more = rest[1..].iter().take(MEMBERS_MAX - 1).take_while(joins).count();
            let (record, others) = rest.split_at(1 + more);
            let contents: Vec<&[u8]> = record.iter().map(|new| &new.content[..]).collect();
            let members = record.iter().map(|new| new.member).collect();
            self.write(writes, Key { space: first.space, members }, |raw| {
                record::seal(raw, &record::join(&contents))
            });
            rest = others;
        }
        Ok(())
    }

    /// Writes a record anew without the members that are `removed`, or removes it; with
    /// `split`, another record will be between those that are left.
    fn shrink(
        &mut self,
        writes: &mut Writes,
        raw: &RawKey,
        removed: &[u64],
        split: bool,
    ) -> Result<(), Error> {
        writes.remove(raw);
        let Some(Key { space, members }) = Key::decode(raw) else { return Ok(()) };
        let stays = |at: usize| !removed.contains(&members[at].seq);
        let left: Vec<usize> = (0..members.len()).filter(|at| stays(*at)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let value = self.get(raw)?.unwrap_or_default();
        let contents = record::unseal(raw, &value);
        let contents = contents.and_then(|content| record::split(content, members.len()));
        for left in left.chunk_by(|a, b| !split || a + 1 == *b) {
            let key = Key { space, members: left.iter().map(|at| members[*at]).collect() };
            self.write(writes, key, |raw| match &contents {
                Some(contents) => {
                    let contents: Vec<&[u8]> = left.iter().map(|at| contents[*at]).collect();
                    record::seal(raw, &record::join(&contents))
                }
                // Under another key it is as damaged as before, and read as such.
                None => value.clone(),
            });
        }
        Ok(())
    }

    fn write(&mut self, writes: &mut Writes, key: Key, value: impl FnOnce(&[u8]) -> Vec<u8>) {
        let raw = RawKey::from(key.encode());
        writes.put_raw(&raw, value(&raw));
        for member in &key.members {
            self.keys.note(key.space, member, &raw);
        }
    }

    /// Notes under which key a task is that was read.
    pub(super) fn note_key(&mut self, stored: &StoredMember) {
        self.keys.note(stored.space, &stored.member, &stored.raw);
    }

    /// The key of the record that a member is in, if memory has it; it is forgotten.
    pub(super) fn take_key(&mut self, space: Space, seq: u64) -> Option<RawKey> {
        self.keys.take(space, seq)
    }

    /// Looks for a result that is about to be removed: the key of its record, and the spool
    /// file of its payload; none if there is no such result.
    pub(super) fn find_result(
        &mut self,
        batch: &mut Batch,
        seq: u64,
    ) -> Result<Option<(RawKey, Option<u64>)>, Error> {
        if let Some(raw) = self.take_key(Space::Outbox, seq) {
            return Ok(Some((raw, None)));
        }
        if !batch.last_read.as_ref().is_some_and(|record| record.holds(seq)) {
            batch.last_read = self.read_record(seq)?;
        }
        Ok(batch.last_read.as_ref().and_then(|record| {
            let (_, file) = record.members.iter().find(|member| member.0 == seq)?;
            Some((Arc::clone(&record.raw), *file))
        }))
    }

    /// The record that a result would be in.
    fn read_record(&self, seq: u64) -> Result<Option<ReadRecord>, Error> {
        let after = record::numbered(Space::Outbox, seq.saturating_add(1));
        let Some(entry) = self.last(Space::Outbox, &after)? else { return Ok(None) };
        let raw = RawKey::from(&entry.0[..]);
        let members = match unpack(entry) {
            Ok(all) => all.iter().map(|stored| (stored.member.seq, stored.file())).collect(),
            Err(damaged) => damaged.members().iter().map(|member| (member.seq, None)).collect(),
        };
        Ok(Some(ReadRecord { raw, members }))
    }

    /// The members of the records of a space from the number `from` on, in order.
    pub(super) fn members(
        &self,
        space: Space,
        from: u64,
    ) -> Result<
        impl Iterator<Item = Result<Result<StoredMember, Box<Damaged>>, Error>> + use<>,
        Error,
    > {
        let start = record::numbered(space, from);
        // A record that begins before `from` may hold it.
        let start = self.last(space, &start)?.map_or(start, |(raw, _)| raw);
        let all = self.scan(space, &start).flat_map(|entry| match entry.map(unpack) {
            Ok(Ok(all)) => all.into_iter().map(|stored| Ok(Ok(stored))).collect(),
            Ok(Err(damaged)) => vec![Ok(Err(damaged))],
            Err(error) => vec![Err(error)],
        });
        let early = move |found: &Result<StoredMember, Box<Damaged>>| match found {
            Ok(stored) => stored.member.seq < from,
            Err(damaged) => damaged.members().last().is_some_and(|last| last.seq < from),
        };
        Ok(all.filter(move |found| !found.as_ref().is_ok_and(early)))
    }
}
