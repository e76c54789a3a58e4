//! Whether the payloads of a group lie in their records or in a file. Pure.
//!
//! In their records small ones cost least. But the store gives disk back to itself
//! only, and keeps many times what it holds while that grows. So where results
//! gather, as they do when nobody takes them, even small payloads go into files,
//! which are gone when their records are.

use super::record::INLINE_MAX;
use super::{Change, OutSeq};
use std::collections::BTreeSet;

/// From so many results on that wait, the next ones gather.
pub(super) const GATHERED: u64 = 4000;
/// From so many bytes of results on, a group's file is worth its syncs.
const WORTH_A_FILE: usize = 32 * 1024;

/// The largest payload of a group that lies in its record, in bytes, where so many
/// results wait; those being released are not written.
pub(super) fn inline_max(waiting: u64, changes: &[Change], releasing: &BTreeSet<OutSeq>) -> usize {
    if waiting < GATHERED {
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
    fn only_results_that_gather_in_numbers_go_into_files() {
        let finish = |out| {
            let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
            let result = Arc::new(Finished { attempt, bytes: vec![0; 1024] });
            Change::Finish { inbox: None, out: OutSeq(out), result }
        };
        let some: Vec<Change> = (0..32).map(finish).collect();
        let none = BTreeSet::new();
        let one = BTreeSet::from([OutSeq(3)]);
        assert_eq!(inline_max(GATHERED, &some, &none), 0);
        assert_eq!(inline_max(GATHERED - 1, &some, &none), INLINE_MAX);
        assert_eq!(inline_max(GATHERED, &some[1..], &none), INLINE_MAX);
        assert_eq!(inline_max(GATHERED, &some, &one), INLINE_MAX);
    }
}
