//! What becomes of a damaged record: it is kept in quarantine, reported, and
//! turned into a result, so that its task is never silent.

use super::queue::DiskQueue;
use super::record::{self, Key, Space};
use super::results::Alone;
use super::{Error, Finished, OutSeq, Writes};
use clutch_common::clock::now_ms;
use clutch_common::id::Attempt;
use clutch_common::result::{Outcome, TaskResult};
use clutch_common::wire;

/// A damaged record as it lies on disk.
pub(super) struct Damaged {
    pub(super) raw: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// How it is damaged, in words.
    pub(super) how: String,
}

impl DiskQueue {
    /// Puts damaged inbox and outbox records into quarantine. A task becomes a
    /// `rejected` result, a result an `interrupted` one in its place.
    pub(super) fn repair(&mut self, damaged: Vec<Damaged>) -> Result<(), Error> {
        let mut group = self.group();
        self.alone = Alone::default(); // what lies there is not what was put there
        for Damaged { raw, value, how } in damaged {
            let file = record::spool_file(&raw, &value);
            group.released.extend(file);
            self.quarantine(&mut group.writes, &raw, value, file);
            if raw.first() == Some(&(Space::Outbox as u8)) {
                group.next.waiting = group.next.waiting.saturating_sub(1);
            }
            // Without its key nobody can say which task it was.
            let Some(Key { space, seq, attempt, .. }) = Key::decode(&raw) else { continue };
            let (out, outcome, reason) = if space == Space::Outbox {
                self.split_pack(&mut group, seq)?;
                let reason = format!(
                    "it ended, but its result was damaged on the endpoint's disk ({how}); submit \
                     it again if it may run twice"
                );
                (seq, Outcome::Interrupted, reason)
            } else {
                let reason = format!(
                    "its record was damaged on the endpoint's disk ({how}); submit it again"
                );
                group.writes.remove(&record::numbered(Space::Started, seq));
                group.next.out += 1;
                group.finished.push(attempt);
                (group.next.out - 1, Outcome::Rejected, reason)
            };
            let bytes = self.lost(attempt, outcome, reason);
            self.put_result(&mut group, OutSeq(out), &Finished { attempt, bytes })?;
        }
        self.commit(group)
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
        let key = Key::decode(raw);
        tracing::error!(
            folder = %self.path().display(),
            key = %raw.escape_ascii(),
            task = key.map(|key| tracing::field::display(key.attempt)),
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
