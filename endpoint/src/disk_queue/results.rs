//! The outbox on disk: results are put in, read back in order, and released. Where
//! they gather, they share records ([`pack`]).
//!
//! No pack reaches over another record of the outbox: names grow, the results of
//! one commit are packed in the order of their names, and a pack out of which one
//! becomes a record of its own is split there.

use super::damage::Damaged;
use super::gathering::GATHERED;
use super::pack::{self, PACK, Packed};
use super::queue::{DiskQueue, Group};
use super::record::{self, Form, Key, Space};
use super::{Entry, Error, Finished, OutSeq, OutboxRecord, Writes};
use std::collections::BTreeMap;

/// What a commit does to packs.
#[derive(Default)]
pub(super) struct Packs {
    /// Results to be packed.
    fresh: Vec<Packed>,
    /// Packs that are changed, by their first name, as they will be.
    changed: BTreeMap<u64, Vec<Packed>>,
}

impl Packs {
    /// Writes what has changed.
    pub(super) fn write(&mut self, writes: &mut Writes) {
        self.fresh.sort_unstable_by_key(|result| result.seq);
        for results in self.fresh.chunks(PACK) {
            put(writes, results[0].seq, results);
        }
        for (first, results) in &self.changed {
            put(writes, *first, results);
        }
    }
}

/// The keys of results that lie alone, payload and all, as far as memory has them: a
/// release of one of these needs no look at the disk, which costs more than the removal.
#[derive(Default)]
pub(super) struct Alone(BTreeMap<u64, Key>);

impl Alone {
    /// As many as wait before they gather.
    const MAX: usize = GATHERED as usize;

    fn add(&mut self, key: Key) {
        self.0.insert(key.seq, key);
        if self.0.len() > Self::MAX {
            self.0.pop_first();
        }
    }

    fn take(&mut self, seq: u64) -> Option<Key> {
        self.0.remove(&seq)
    }
}

/// Writes a pack and its twin, or removes both if it is empty.
fn put(writes: &mut Writes, first: u64, results: &[Packed]) {
    let content = pack::encode(results);
    for key in [pack::key(first), pack::twin(first)] {
        if results.is_empty() {
            writes.remove(&key);
        } else {
            writes.put(&key, &content);
        }
    }
}

impl DiskQueue {
    pub(super) fn put_result(
        &mut self,
        group: &mut Group,
        out: OutSeq,
        result: &Finished,
    ) -> Result<(), Error> {
        group.next.waiting += 1;
        let (seq, attempt) = (out.0, result.attempt);
        if group.gathers() {
            let place = self.spool_away(group, Space::Outbox, &result.bytes)?;
            group.packs.fresh.push(Packed { seq, attempt, place });
            return Ok(());
        }
        let form = group.form(&result.bytes);
        let key = Key { space: Space::Outbox, seq, attempt, form };
        self.put(group, &key, &result.bytes)?;
        if form == Form::Inline {
            self.alone.add(key);
        }
        Ok(())
    }

    pub(super) fn release(&mut self, group: &mut Group, out: OutSeq) -> Result<(), Error> {
        if let Some(key) = self.alone.take(out.0) {
            group.writes.remove(&key.encode());
            group.next.waiting = group.next.waiting.saturating_sub(1);
            return Ok(());
        }
        let start = record::numbered(Space::Outbox, out.0);
        if let Some(found) = self.store.scan(Space::Outbox, &start).next() {
            let (raw, value) = found?;
            if raw.starts_with(&start) && pack::first(&raw).is_none() {
                group.writes.remove(&raw);
                group.next.waiting = group.next.waiting.saturating_sub(1);
                group.released.extend(record::spool_file(&raw, &value));
                return Ok(());
            }
        }
        let Some(first) = self.pack_of(group, out.0)? else { return Ok(()) };
        let Some(results) = group.packs.changed.get_mut(&first) else { return Ok(()) };
        let gone = results.extract_if(.., |result| result.seq == out.0);
        let files: Vec<u64> = gone.map(|result| result.place.file).collect();
        group.next.waiting = group.next.waiting.saturating_sub(files.len() as u64);
        group.released.extend(files);
        Ok(())
    }

    /// Takes a result out of its pack, if it is in one, so that a record of its own
    /// can be put in its place.
    pub(super) fn split_pack(&self, group: &mut Group, seq: u64) -> Result<(), Error> {
        let Some(first) = self.pack_of(group, seq)? else { return Ok(()) };
        let Some(results) = group.packs.changed.get_mut(&first) else { return Ok(()) };
        let at = results.partition_point(|result| result.seq < seq);
        let after = results.split_off(at + 1);
        results.truncate(at);
        if let Some(next) = after.first() {
            group.packs.changed.insert(next.seq, after);
        }
        Ok(())
    }

    /// The first name of the pack that holds a result, which is among those that
    /// the group changes from then on.
    fn pack_of(&self, group: &mut Group, seq: u64) -> Result<Option<u64>, Error> {
        let holds = |results: &[Packed]| results.iter().any(|result| result.seq == seq);
        let before = group.packs.changed.range(..=seq).next_back();
        if let Some((first, results)) = before
            && holds(results)
        {
            return Ok(Some(*first));
        }
        let Some((raw, value)) = self.store.last(Space::Outbox, &pack::key(seq))? else {
            return Ok(None);
        };
        let Some(first) =
            pack::first(&raw).filter(|first| !group.packs.changed.contains_key(first))
        else {
            return Ok(None);
        };
        let Some(results) = self.read_pack(first, &raw, &value)?.filter(|results| holds(results))
        else {
            return Ok(None);
        };
        group.packs.changed.insert(first, results);
        Ok(Some(first))
    }

    /// The results in a pack; by its twin if it is damaged, none if both are.
    fn read_pack(
        &self,
        first: u64,
        raw: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<Packed>>, Error> {
        if let Some(results) = record::unseal(raw, value).and_then(pack::decode) {
            return Ok(Some(results));
        }
        let key = pack::twin(first);
        let twin = self.store.get(&key)?;
        Ok(twin.and_then(|twin| record::unseal(&key, &twin).and_then(pack::decode)))
    }

    /// The records of the outbox from `from` on, in order, those in packs as if they
    /// lay alone.
    pub(super) fn results(
        &self,
        from: u64,
    ) -> Result<impl Iterator<Item = Result<Entry, Error>> + '_, Error> {
        let last = self.store.last(Space::Outbox, &pack::key(from))?;
        let pack = last.and_then(|(raw, _)| pack::first(&raw));
        let start = record::numbered(Space::Outbox, pack.unwrap_or(from));
        let entries = self.store.scan(Space::Outbox, &start);
        let records = entries.flat_map(|entry| match entry.and_then(|entry| self.unpack(entry)) {
            Ok(records) => records.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        });
        let early = move |raw: &[u8]| record::number(raw).is_some_and(|number| number < from);
        Ok(records.filter(move |record| !record.as_ref().is_ok_and(|(raw, _)| early(raw))))
    }

    /// A pack as the records that its results would have alone; another record, or a
    /// pack that is damaged with its twin, as it is.
    fn unpack(&self, (raw, value): Entry) -> Result<Vec<Entry>, Error> {
        let Some(first) = pack::first(&raw) else { return Ok(vec![(raw, value)]) };
        let Some(results) = self.read_pack(first, &raw, &value)? else {
            return Ok(vec![(raw, value)]);
        };
        let alone = |Packed { seq, attempt, place }| {
            let key = Key { space: Space::Outbox, seq, attempt, form: Form::Spooled }.encode();
            let value = record::seal(&key, &record::encode_place(place));
            (key, value)
        };
        Ok(results.into_iter().map(alone).collect())
    }

    /// The results from `from` on, in order: at most `max`, and `max_bytes`
    /// in all unless the first alone is larger. A damaged one is replaced on
    /// disk by a result that says so.
    ///
    /// # Errors
    /// The disk failed. The queue must not be used any more.
    pub(crate) fn outbox(
        &mut self,
        from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<OutboxRecord>, Error> {
        let (records, damaged) = self.read_outbox(from, max, max_bytes)?;
        if damaged.is_empty() {
            return Ok(records);
        }
        self.repair(damaged)?;
        self.read_outbox(from, max, max_bytes).map(|(records, _)| records)
    }

    fn read_outbox(
        &self,
        from: OutSeq,
        max: usize,
        max_bytes: usize,
    ) -> Result<(Vec<OutboxRecord>, Vec<Damaged>), Error> {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        let mut reader = self.spool.reader();
        let mut bytes = 0;
        for entry in self.results(from.0)?.take(max) {
            let (raw, value) = entry?;
            match self.payload(&mut reader, &raw, &value)? {
                Ok((key, payload)) => {
                    bytes += payload.len();
                    if bytes > max_bytes && !records.is_empty() {
                        break;
                    }
                    let (seq, attempt) = (OutSeq(key.seq), key.attempt);
                    records.push(OutboxRecord { seq, attempt, bytes: payload });
                }
                Err(how) => damaged.push(Damaged { raw, value, how }),
            }
        }
        Ok((records, damaged))
    }
}
