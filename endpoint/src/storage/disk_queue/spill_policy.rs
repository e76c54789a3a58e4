//! Whether the payloads of a commit are put into their records or into a spool file. Pure.
//!
//! Small payloads cost least in their records. But the store gives disk back to itself only,
//! and keeps many times what it holds while that grows. So where many results wait, as they
//! do while the broker takes none, even small payloads go into files, which are removed
//! with their records.

use super::record::INLINE_MAX;
use super::{Change, OutSeq};
use std::collections::BTreeSet;

/// From how many waiting results on the next ones are spooled.
pub(super) const MANY_RESULTS: u64 = 4000;
/// From how many bytes of results on the file of a commit is worth its syncs.
const WORTH_A_FILE: usize = 32 * 1024;

/// The largest payload of a commit that is put into its record, in bytes, where `waiting`
/// results wait; those being released are not written.
pub(super) fn inline_max(waiting: u64, changes: &[Change], releasing: &BTreeSet<OutSeq>) -> usize {
    if waiting < MANY_RESULTS {
        return INLINE_MAX;
    }
    let size = |change: &Change| match change {
        Change::Finish { out, result, .. } | Change::HandBack { out, result, .. }
            if !releasing.contains(out) =>
        {
            result.bytes.len()
        }
        Change::Accept { .. }
        | Change::Secure { .. }
        | Change::Start { .. }
        | Change::Finish { .. }
        | Change::HandBack { .. }
        | Change::Release { .. } => 0,
    };
    let bytes: usize = changes.iter().map(size).sum();
    if bytes < WORTH_A_FILE { INLINE_MAX } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk_queue::Finished;
    use clutch_common::id::{Attempt, TaskId};
    use std::sync::Arc;

    #[test]
    fn only_many_results_beside_many_that_wait_are_spooled() {
        let finish = |out| {
            let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
            let result = Arc::new(Finished { attempt, bytes: vec![0; 1024] });
            Change::Finish { inbox: None, out: OutSeq(out), result }
        };
        let some: Vec<Change> = (0..32).map(finish).collect();
        let none = BTreeSet::new();
        let one = BTreeSet::from([OutSeq(3)]);
        assert_eq!(inline_max(MANY_RESULTS, &some, &none), 0);
        assert_eq!(inline_max(MANY_RESULTS - 1, &some, &none), INLINE_MAX);
        assert_eq!(inline_max(MANY_RESULTS, &some[1..], &none), INLINE_MAX);
        assert_eq!(inline_max(MANY_RESULTS, &some, &one), INLINE_MAX);
    }
}
