//! How tasks and results lie in the store: several small ones of a commit share a
//! record, as the store copies a page for each record that comes or goes.
//!
//! No record reaches over another one of its kind: numbers grow, those of one commit
//! share records in the order of their numbers, and a record out of which one is
//! replaced is split there. What leaves a shared record has it written anew, under a
//! key that names those that are left.

use super::damage::Damaged;
use super::gathering::GATHERED;
use super::queue::{DiskQueue, Group};
use super::record::{self, Form, INLINE_MAX, Key, LEN, MEMBERS_MAX, Member, Space};
use super::{Entry, Error, Writes};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The key of a record, as it lies on disk.
pub(super) type Raw = Arc<[u8]>;

/// Under which key tasks and results lie, as far as memory has it: all tasks, and the
/// newest results that lie in their records. What is here needs no look at the disk
/// to be removed, which costs more than the removal.
#[derive(Default)]
pub(super) struct Keys {
    tasks: BTreeMap<u64, Raw>,
    results: BTreeMap<u64, Raw>,
}

impl Keys {
    /// As many results as wait before they gather.
    const RESULTS_MAX: usize = GATHERED as usize;

    pub(super) fn note(&mut self, space: Space, member: &Member, raw: &Raw) {
        if space == Space::Inbox {
            self.tasks.insert(member.seq, Arc::clone(raw));
        } else if member.form == Form::Inline {
            self.results.insert(member.seq, Arc::clone(raw));
            if self.results.len() > Self::RESULTS_MAX {
                self.results.pop_first();
            }
        }
    }

    pub(super) fn take(&mut self, space: Space, seq: u64) -> Option<Raw> {
        let keys = if space == Space::Inbox { &mut self.tasks } else { &mut self.results };
        keys.remove(&seq)
    }
}

/// What comes and goes with a commit.
#[derive(Default)]
pub(super) struct Moves {
    fresh: Vec<Fresh>,
    /// Who leaves which record.
    gone: BTreeMap<Raw, Vec<u64>>,
    /// The record of the last one that memory did not know.
    found: Option<Found>,
    /// Whether what comes may lie between what is there, and so shares nothing.
    pub(super) replace: bool,
}

/// A payload, or its place, on its way into a record.
struct Fresh {
    space: Space,
    member: Member,
    content: Vec<u8>,
}

/// A record of results, and what it holds: the numbers, and the files of payloads.
struct Found {
    raw: Raw,
    members: Vec<(u64, Option<u64>)>,
}

impl Found {
    fn holds(&self, seq: u64) -> bool {
        self.members.iter().any(|member| member.0 == seq)
    }
}

impl Moves {
    pub(super) fn come(&mut self, space: Space, member: Member, content: Vec<u8>) {
        self.fresh.push(Fresh { space, member, content });
    }

    /// Takes `seq` out of the record under `raw`, which holds it.
    pub(super) fn go(&mut self, raw: Raw, seq: u64) {
        self.gone.entry(raw).or_default().push(seq);
    }
}

/// One of those that a record holds, as it was found.
pub(super) struct One {
    pub(super) space: Space,
    /// The key of its record.
    pub(super) raw: Raw,
    pub(super) member: Member,
    /// Its payload, or the place of it.
    pub(super) content: Vec<u8>,
}

impl One {
    /// The spool file that its payload is in.
    pub(super) fn file(&self) -> Option<u64> {
        let place =
            (self.member.form == Form::Spooled).then(|| record::decode_place(&self.content));
        Some(place??.file)
    }

    /// It as damage: as the record that it would be alone.
    pub(super) fn damaged(self, how: String) -> Damaged {
        let key = Key { space: self.space, members: vec![self.member] };
        let raw = key.encode();
        let value = record::seal(&raw, &self.content);
        let file = self.file();
        Damaged { raw, value, how, under: self.raw, key: Some(key), file }
    }
}

/// What a record holds, one by one, or how it is damaged.
pub(super) fn open((raw, value): Entry) -> Result<Vec<One>, Box<Damaged>> {
    let key = Key::decode(&raw);
    let contents = key
        .as_ref()
        .and_then(|key| record::split(record::unseal(&raw, &value)?, key.members.len()));
    let under = Raw::from(&raw[..]);
    let (Some(Key { space, members }), Some(contents)) = (&key, contents) else {
        let how =
            if key.is_some() { "its checksum does not match" } else { "its key is malformed" };
        let how = how.to_owned();
        return Err(Box::new(Damaged { raw, value, how, under, key, file: None }));
    };
    let one = |(member, content): (&Member, &[u8])| One {
        space: *space,
        raw: Arc::clone(&under),
        member: *member,
        content: content.to_vec(),
    };
    Ok(members.iter().zip(contents).map(one).collect())
}

impl DiskQueue {
    /// Writes what comes and goes with a group.
    pub(super) fn lay(&mut self, group: &mut Group) -> Result<(), Error> {
        let Moves { mut fresh, gone, replace, .. } = std::mem::take(&mut group.moves);
        for (raw, gone) in gone {
            self.shrink(&mut group.writes, &raw, &gone, replace)?;
        }
        fresh.sort_unstable_by_key(|fresh| (fresh.space, fresh.member.seq));
        let gathers = group.gathers();
        let shares = |fresh: &Fresh| !replace && (gathers || fresh.member.form == Form::Inline);
        let mut rest = &fresh[..];
        while let Some(first) = rest.first() {
            let mut bytes = LEN + first.content.len();
            let joins = |next: &&Fresh| {
                bytes += LEN + next.content.len();
                shares(first) && shares(next) && next.space == first.space && bytes <= INLINE_MAX
            };
            let more = rest[1..].iter().take(MEMBERS_MAX - 1).take_while(joins).count();
            let (record, others) = rest.split_at(1 + more);
            let contents: Vec<&[u8]> = record.iter().map(|fresh| &fresh.content[..]).collect();
            let members = record.iter().map(|fresh| fresh.member).collect();
            self.write(&mut group.writes, Key { space: first.space, members }, |raw| {
                record::seal(raw, &record::join(&contents))
            });
            rest = others;
        }
        Ok(())
    }

    /// Writes a record anew without those that are gone, or removes it; one in whose
    /// place something else comes is split there.
    fn shrink(
        &mut self,
        writes: &mut Writes,
        raw: &Raw,
        gone: &[u64],
        split: bool,
    ) -> Result<(), Error> {
        writes.remove(raw);
        let Some(Key { space, members }) = Key::decode(raw) else { return Ok(()) };
        let stays = |at: usize| !gone.contains(&members[at].seq);
        let left: Vec<usize> = (0..members.len()).filter(|at| stays(*at)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let value = self.store.get(raw)?.unwrap_or_default();
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
        let raw = Raw::from(key.encode());
        writes.put_raw(&raw, value(&raw));
        for member in &key.members {
            self.keys.note(key.space, member, &raw);
        }
    }

    /// Where a result lies that is about to go: under which key, and in which file its
    /// payload is; none if it is not there.
    pub(super) fn seek_result(
        &mut self,
        moves: &mut Moves,
        seq: u64,
    ) -> Result<Option<(Raw, Option<u64>)>, Error> {
        if let Some(raw) = self.keys.take(Space::Outbox, seq) {
            return Ok(Some((raw, None)));
        }
        if !moves.found.as_ref().is_some_and(|found| found.holds(seq)) {
            moves.found = self.find(seq)?;
        }
        Ok(moves.found.as_ref().and_then(|found| {
            let (_, file) = found.members.iter().find(|member| member.0 == seq)?;
            Some((Arc::clone(&found.raw), *file))
        }))
    }

    /// The record that a result would be in.
    fn find(&self, seq: u64) -> Result<Option<Found>, Error> {
        let after = record::numbered(Space::Outbox, seq.saturating_add(1));
        let Some(entry) = self.store.last(Space::Outbox, &after)? else { return Ok(None) };
        let raw = Raw::from(&entry.0[..]);
        let members = match open(entry) {
            Ok(all) => all.iter().map(|one| (one.member.seq, one.file())).collect(),
            Err(damaged) => damaged.members().iter().map(|member| (member.seq, None)).collect(),
        };
        Ok(Some(Found { raw, members }))
    }

    /// What the records of a kind hold from `from` on, in order.
    pub(super) fn all(
        &self,
        space: Space,
        from: u64,
    ) -> Result<impl Iterator<Item = Result<Result<One, Box<Damaged>>, Error>> + use<>, Error> {
        let start = record::numbered(space, from);
        // What begins before `from` may hold it.
        let start = self.store.last(space, &start)?.map_or(start, |(raw, _)| raw);
        let all = self.store.scan(space, &start).flat_map(|entry| match entry.map(open) {
            Ok(Ok(all)) => all.into_iter().map(|one| Ok(Ok(one))).collect(),
            Ok(Err(damaged)) => vec![Ok(Err(damaged))],
            Err(error) => vec![Err(error)],
        });
        let early = move |found: &Result<One, Box<Damaged>>| match found {
            Ok(one) => one.member.seq < from,
            Err(damaged) => damaged.members().last().is_some_and(|last| last.seq < from),
        };
        Ok(all.filter(move |found| !found.as_ref().is_ok_and(early)))
    }
}
