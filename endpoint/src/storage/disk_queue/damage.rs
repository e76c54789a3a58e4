//! Repair of damaged records: each is kept in quarantine, reported, and turned into a
//! result, so that every task has one.

use super::packing::{Damaged, RawKey};
use super::queue::{DiskQueue, OpenCommit};
use super::record::{self, Key, Member, Space};
use super::{Error, Finished, OutSeq};
use clutch_common::id::Attempt;
use clutch_common::system::clock::now_ms;
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::wire;

impl DiskQueue {
    /// Puts damaged inbox and outbox records into quarantine. A task becomes a
    /// `rejected` result, a result an `interrupted` one in its place.
    pub(super) fn repair(&mut self, damaged: Vec<Damaged>) -> Result<(), Error> {
        let mut group = self.group();
        group.batch.replaces = true;
        for Damaged { raw, value, how, under, key, file } in damaged {
            let is_member = under[..] != raw[..];
            group.released.extend(file);
            self.records.quarantine(&mut group.writes, (raw, value), file, self.spool.spool());
            // Without its key it cannot be told which tasks it held.
            let Some(Key { space, members }) = key else { continue };
            for member in members {
                if is_member {
                    group.batch.remove(RawKey::clone(&under), member.seq);
                }
                self.replace(&mut group, space, &member, &how)?;
            }
        }
        self.commit(group)
    }

    /// Puts a result in the place of one that is lost, or of a task.
    fn replace(
        &mut self,
        group: &mut OpenCommit,
        space: Space,
        &Member { seq, attempt, .. }: &Member,
        how: &str,
    ) -> Result<(), Error> {
        self.records.take_key(space, seq);
        let (out, outcome, reason) = if space == Space::Outbox {
            group.counters.waiting = group.counters.waiting.saturating_sub(1);
            let reason = format!(
                "it ended, but its result was damaged on the endpoint's disk ({how}); submit \
                 it again if it may run twice"
            );
            (seq, Outcome::Interrupted, reason)
        } else {
            let reason =
                format!("its record was damaged on the endpoint's disk ({how}); submit it again");
            group.writes.remove(&record::numbered(Space::Started, seq));
            group.finished.push(attempt);
            (group.counters.out, Outcome::Rejected, reason)
        };
        let bytes = self.lost(attempt, outcome, reason);
        self.add_result(group, OutSeq(out), &Finished { attempt, bytes }, false)
    }

    fn lost(&self, attempt: Attempt, outcome: Outcome, reason: String) -> Vec<u8> {
        let identity = &self.identity;
        let mut result =
            TaskResult::not_run(attempt, outcome, reason, identity.endpoint_id, now_ms());
        result.state_id = Some(identity.state_id);
        wire::encode_result(&result)
    }
}
