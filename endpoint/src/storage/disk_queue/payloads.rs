//! Payloads of the queue: in records where they are small, in spool files otherwise.

use super::lying::One;
use super::queue::{DiskQueue, Group};
use super::record::{self, Form, Member, Space};
use super::{Error, Seq};
use crate::storage::spool::{Place, ReadError, Reader, Writing};
use clutch_common::task::Task;
use std::io;

/// How large a task is, in bytes, that is encoded in pieces: as one buffer it would be
/// in memory twice.
const LARGE: usize = 256 * 1024;

impl DiskQueue {
    /// Puts a task into the inbox; the number of its spool file, if it is in one.
    pub(super) fn put_task(
        &mut self,
        group: &mut Group,
        seq: Seq,
        task: &Task,
    ) -> Result<Option<u64>, Error> {
        let attempt = task.attempt();
        if task.work.size() > LARGE {
            let put = |writing: &mut Writing| {
                writing.put_in_pieces(|to| serde_json::to_writer(to, task).map_err(Into::into))
            };
            let place = self.append(group, Space::Inbox, put)?;
            let member = Member { seq: seq.0, attempt, form: Form::Spooled };
            group.moves.come(Space::Inbox, member, record::encode_place(place));
            Ok(Some(place.file))
        } else {
            let bytes = serde_json::to_vec(task)
                .map_err(|error| self.store.failed("encoding for")(error.into()))?;
            let member = Member { seq: seq.0, attempt, form: group.form(&bytes) };
            self.put(group, Space::Inbox, member, &bytes)
        }
    }

    /// Puts a payload into the inbox or the outbox; into the group's spool file for
    /// tasks or for results, which is returned, if its form says so.
    pub(super) fn put(
        &mut self,
        group: &mut Group,
        space: Space,
        member: Member,
        payload: &[u8],
    ) -> Result<Option<u64>, Error> {
        if member.form == Form::Inline {
            group.moves.come(space, member, payload.to_vec());
            return Ok(None);
        }
        let place = self.append(group, space, |writing| writing.put(payload))?;
        group.moves.come(space, member, record::encode_place(place));
        Ok(Some(place.file))
    }

    /// Appends to the group's spool file for tasks or for results.
    fn append(
        &mut self,
        group: &mut Group,
        space: Space,
        put: impl FnOnce(&mut Writing) -> io::Result<Place>,
    ) -> Result<Place, Error> {
        let writing = &mut group.writing[usize::from(space == Space::Outbox)];
        let place = || {
            let writing = match writing {
                Some(writing) => writing,
                none => none.insert(self.spool.begin(self.files.next_number())?),
            };
            put(writing)
        };
        let place = place().map_err(|error| self.failed_to_spool(error))?;
        self.files.refer(place.file);
        Ok(place)
    }

    pub(super) fn failed_to_spool(&self, error: io::Error) -> Error {
        self.store.failed("writing to the spool of")(error.into())
    }

    /// The payload of what was found, or how it is damaged.
    pub(super) fn payload(
        &self,
        reader: &mut Reader<'_>,
        one: &One,
    ) -> Result<Result<Vec<u8>, String>, Error> {
        if one.member.form == Form::Inline {
            return Ok(Ok(one.content.clone()));
        }
        let Some(place) = record::decode_place(&one.content) else {
            return Ok(Err("its pointer to the spool is malformed".to_owned()));
        };
        match reader.read(place) {
            Ok(payload) => Ok(Ok(payload)),
            Err(ReadError::Damaged(how)) => Ok(Err(how)),
            Err(error @ ReadError::Io { .. }) => {
                Err(self.store.failed("reading the spool of")(error.into()))
            }
        }
    }
}
