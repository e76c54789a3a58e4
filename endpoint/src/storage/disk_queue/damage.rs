//! What becomes of a damaged record: it is kept in quarantine, reported, and
//! turned into a result, so that its task is never silent.

use super::lying::Raw;
use super::queue::{DiskQueue, Group};
use super::record::{self, Key, Member, Space};
use super::{Error, Finished, OutSeq, Writes};
use clutch_common::id::Attempt;
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::wire;

/// A damaged record as it lies on disk, or one of those that a sound one holds as if
/// it lay alone.
pub(super) struct Damaged {
    pub(super) raw: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// How it is damaged, in words.
    pub(super) how: String,
    /// The key that it lies under.
    pub(super) under: Raw,
    /// What `raw` says.
    pub(super) key: Option<Key>,
    /// The spool file that its payload is in.
    pub(super) file: Option<u64>,
}

impl Damaged {
    /// What is damaged.
    pub(super) fn members(&self) -> &[Member] {
        self.key.as_ref().map_or(&[], |key| &key.members)
    }
}

impl DiskQueue {
    /// Puts damaged inbox and outbox records into quarantine. A task becomes a
    /// `rejected` result, a result an `interrupted` one in its place.
    pub(super) fn repair(&mut self, damaged: Vec<Damaged>) -> Result<(), Error> {
        let mut group = self.group();
        group.moves.replace = true;
        for Damaged { raw, value, how, under, key, file } in damaged {
            group.released.extend(file);
            self.quarantine(&mut group.writes, &raw, value, file);
            // Without its key nobody can say which tasks it was.
            let Some(Key { space, members }) = key else { continue };
            for member in members {
                if under[..] != raw[..] {
                    group.moves.go(Raw::clone(&under), member.seq);
                }
                self.replace(&mut group, space, &member, &how)?;
            }
        }
        self.commit(group)
    }

    /// Puts a result in the place of one that is lost, or of a task.
    fn replace(
        &mut self,
        group: &mut Group,
        space: Space,
        &Member { seq, attempt, .. }: &Member,
        how: &str,
    ) -> Result<(), Error> {
        self.keys.take(space, seq);
        let (out, outcome, reason) = if space == Space::Outbox {
            group.next.waiting = group.next.waiting.saturating_sub(1);
            let reason = format!(
                "it ended, but its result was damaged on the endpoint's disk ({how}); submit \
                 it again if it may run twice"
            );
            (seq, Outcome::Interrupted, reason)
        } else {
            let reason =
                format!("its record was damaged on the endpoint's disk ({how}); submit it again");
            group.writes.remove(&record::numbered(Space::Started, seq));
            group.next.out += 1;
            group.finished.push(attempt);
            (group.next.out - 1, Outcome::Rejected, reason)
        };
        let bytes = self.lost(attempt, outcome, reason);
        self.put_result(group, OutSeq(out), &Finished { attempt, bytes })
    }

    fn lost(&self, attempt: Attempt, outcome: Outcome, reason: String) -> Vec<u8> {
        let mut result = TaskResult::not_run(attempt, outcome, reason, self.endpoint_id, now_ms());
        result.state_id = Some(self.state_id);
        wire::encode_result(&result)
    }

    /// Moves a damaged record of any kind out of the way and reports it; the
    /// file that its payload is in is kept beside it.
    pub(super) fn quarantine(
        &self,
        writes: &mut Writes,
        raw: &[u8],
        value: Vec<u8>,
        file: Option<u64>,
    ) {
        let tasks = Key::decode(raw).map(|key| {
            let attempts = key.members.iter().map(|member| member.attempt.to_string());
            attempts.collect::<Vec<_>>().join(", ")
        });
        tracing::error!(
            folder = %self.path().display(),
            key = %raw.escape_ascii(),
            tasks,
            "a record of the disk queue is damaged: it is kept in quarantine"
        );
        writes.remove(raw);
        writes.put_raw(&[&[Space::Quarantine as u8], raw].concat(), value);
        if let Some(file) = file
            && let Err(error) = self.spool.set_aside(file)
        {
            tracing::warn!(file, error = %error, "a damaged spool file could not be set aside");
        }
    }
}
