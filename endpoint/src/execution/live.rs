//! The progress of running attempts before their results, and the output of those that are
//! followed. Shared by the executors, which put it in, and the publisher of events.
//!
//! Touches the folder of progress files. Promises that an attempt which tells no progress and
//! is not followed costs no allocation, no lock and no copy; and that what is held is bounded.

mod followed;
pub(crate) mod progress;
pub(crate) mod progress_files;

use clutch_common::id::Attempt;
use clutch_common::system::clock::now_ms;
use clutch_common::wire::{Follow, OutputEvent, StreamName, TaskProgress};
use followed::{Followed, Piece};
use progress_files::ProgressFiles;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// How many attempts are followed at once.
const FOLLOWED_MAX: usize = 32;
/// Of how many attempts the progress is kept.
const PROGRESS_MAX: usize = 4096;

/// The progress and the output of running attempts before their results.
#[derive(Debug, Default)]
pub(crate) struct Live {
    files: Option<ProgressFiles>,
    told: Mutex<LiveTable>,
    /// How often a run was to hand over what it keeps of its output.
    generation: AtomicU64,
    changed: Notify,
    output: Notify,
}

#[derive(Debug, Default)]
struct LiveTable {
    /// The last progress of calls.
    progress: BTreeMap<Attempt, TaskProgress>,
    followed: BTreeMap<Attempt, Followed>,
    aged_at_ms: u64,
}

impl Live {
    /// Creates it, with progress files in a folder of their own.
    pub(crate) fn with_files(files: ProgressFiles) -> Self {
        Self { files: Some(files), ..Self::default() }
    }

    /// Returns the file that an attempt may tell its progress in.
    pub(crate) fn progress_file(&self, attempt: Attempt) -> Option<PathBuf> {
        self.files.as_ref().map(|files| files.path(attempt))
    }

    /// Notes the progress of a call.
    pub(crate) fn tell_progress(&self, attempt: Attempt, progress: TaskProgress) {
        let mut told = self.told();
        if told.progress.len() < PROGRESS_MAX || told.progress.contains_key(&attempt) {
            told.progress.insert(attempt, progress);
        }
    }

    /// Returns the last progress of the attempts that run, and forgets that of others.
    /// Blocks: it looks for progress files. `running` is asked after these are listed.
    pub(crate) fn progress(
        &self,
        running: impl FnOnce() -> HashSet<Attempt>,
    ) -> BTreeMap<Attempt, TaskProgress> {
        let listed = self.files.as_ref().map(ProgressFiles::list).unwrap_or_default();
        let running = running();
        let mut told = self.told();
        told.progress.retain(|attempt, _| running.contains(attempt));
        let mut progress = told.progress.clone();
        drop(told);
        if let Some(files) = &self.files {
            progress.extend(files.read(listed, &running, now_ms()));
        }
        progress
    }

    /// Follows an attempt for a while. Returns whether it does: only so many are followed at
    /// once.
    pub(crate) fn follow(&self, follow: &Follow, now_ms: u64) -> bool {
        let mut told = self.told();
        told.followed.retain(|_, followed| !followed.is_over(now_ms));
        let is_full = told.followed.len() >= FOLLOWED_MAX;
        let again = match told.followed.get_mut(&follow.attempt) {
            Some(followed) => followed.renew(follow, now_ms),
            None if is_full => return false,
            None => {
                told.followed.insert(follow.attempt, Followed::new(follow, now_ms));
                true
            }
        };
        drop(told);
        if again {
            self.generation.fetch_add(1, Ordering::Release);
            self.changed.notify_waiters();
        }
        true
    }

    /// Waits until more has been asked for than at `seen`, and returns the new state of that.
    /// It begins with 0.
    pub(crate) async fn asked(&self, seen: u64) -> u64 {
        loop {
            let changed = self.changed.notified();
            let generation = self.generation.load(Ordering::Acquire);
            if generation != seen {
                return generation;
            }
            changed.await;
        }
    }

    /// Takes what a run keeps of a stream, from a position on, where that was asked for.
    /// Returns whether the attempt is followed.
    pub(crate) fn attach(
        &self,
        attempt: Attempt,
        stream: StreamName,
        kept: impl FnOnce(u64) -> Vec<Piece>,
    ) -> bool {
        let mut told = self.told();
        let Some(followed) = told.followed.get_mut(&attempt) else { return false };
        if let Some(from) = followed.attach(stream) {
            followed.kept(stream, kept(from), now_ms());
            self.output.notify_one();
        }
        true
    }

    /// Takes output of an attempt that was followed a moment ago. Returns whether it is.
    pub(crate) fn take(
        &self,
        attempt: Attempt,
        stream: StreamName,
        from: u64,
        bytes: &[u8],
    ) -> bool {
        let mut told = self.told();
        let Some(followed) = told.followed.get_mut(&attempt) else { return false };
        let was_ready = followed.is_ready();
        followed.output(stream, from, bytes, now_ms());
        if !was_ready {
            self.output.notify_one();
        }
        true
    }

    /// Waits until there may be output to publish.
    pub(crate) async fn output_ready(&self) {
        self.output.notified().await;
    }

    /// Takes output to publish, of about `max` bytes at most. Ends following that is over.
    pub(crate) fn take_output(&self, max: usize, now_ms: u64) -> Vec<OutputEvent> {
        let mut told = self.told();
        let ages = now_ms >= told.aged_at_ms + Followed::AGE_MS;
        if ages {
            told.aged_at_ms = now_ms;
        }
        let mut output = Vec::new();
        // Each has a share, so that one which writes much holds up no other.
        let ready = told.followed.values().filter(|followed| followed.is_ready()).count();
        let share = max / ready.max(1);
        for (attempt, followed) in &mut told.followed {
            for (stream, (from, piece)) in followed.take(share, now_ms) {
                let (attempt, bytes) = (*attempt, piece.into());
                output.push(OutputEvent { attempt, stream, from, bytes });
            }
            if ages {
                followed.age();
            }
        }
        told.followed.retain(|_, followed| followed.is_ready() || !followed.is_over(now_ms));
        if told.followed.values().any(Followed::is_ready) {
            self.output.notify_one();
        }
        output
    }

    fn told(&self) -> MutexGuard<'_, LiveTable> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use futures_util::FutureExt as _;

    fn attempt() -> Attempt {
        Attempt { task_id: TaskId::new(), attempt: 1 }
    }

    fn follow(attempt: Attempt) -> Follow {
        Follow { attempt, stdout_from: 1, stderr_from: 0, for_ms: 1000 }
    }

    #[test]
    fn output_is_taken_only_of_attempts_that_are_followed() {
        let live = Live::default();
        let (one, other) = (attempt(), attempt());
        assert!(live.asked(0).now_or_never().is_none());
        assert!(live.follow(&follow(one), 5));
        assert_eq!(live.asked(0).now_or_never(), Some(1));
        let kept = |from| {
            assert_eq!(from, 1);
            vec![(1, b"ept".to_vec())]
        };
        assert!(live.attach(one, StreamName::Stdout, kept));
        assert!(!live.attach(other, StreamName::Stdout, |_| panic!("it was not asked for")));
        assert!(live.take(one, StreamName::Stdout, 4, b"!"));
        assert!(!live.take(other, StreamName::Stdout, 4, b"!"));
        assert!(live.output_ready().now_or_never().is_some());
        let output = live.take_output(1000, 6);
        let expected =
            OutputEvent { attempt: one, stream: StreamName::Stdout, from: 1, bytes: "ept!".into() };
        assert_eq!(output, [expected]);
        assert!(live.take_output(1000, 2000).is_empty());
        assert!(!live.take(one, StreamName::Stdout, 5, b"late"), "its time was over");
    }

    #[test]
    fn no_more_than_a_number_of_attempts_are_followed_at_once() {
        let live = Live::default();
        let all: Vec<Attempt> = (0..FOLLOWED_MAX).map(|_| attempt()).collect();
        assert!(all.iter().all(|attempt| live.follow(&follow(*attempt), 0)));
        assert!(!live.follow(&follow(attempt()), 999));
        assert!(live.follow(&follow(all[0]), 999), "renewed");
        assert!(live.follow(&follow(attempt()), 1000), "the others are over");
    }

    #[test]
    fn the_last_progress_of_a_call_is_kept_while_it_runs() {
        let live = Live::default();
        let (one, over) = (attempt(), attempt());
        let progress = |at_ms| TaskProgress { fraction: None, message: None, data: None, at_ms };
        live.tell_progress(one, progress(1));
        live.tell_progress(one, progress(2));
        live.tell_progress(over, progress(1));
        assert_eq!(live.progress(|| [one].into()), [(one, progress(2))].into());
        assert!(live.progress(|| [over].into()).is_empty());
    }
}
