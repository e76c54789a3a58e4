//! What was seen, as others may ask it while the queue is written: memory first,
//! and the disk where memory says that the task may have come by long ago.

use super::queue::RUN;
use super::record::{self, Space};
use super::{Error, Store, seen};
use crate::storage::spool::{Place, ReadError, Spool};
use clutch_common::id::{Attempt, TaskId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tells what was seen; usable from any thread.
#[derive(Clone)]
pub(crate) struct SeenView {
    pub(super) index: Arc<Mutex<seen::Index>>,
    pub(super) store: Store,
    pub(super) spool: Spool,
}

impl SeenView {
    /// Remembers an attempt from now on, before it is on disk.
    pub(crate) fn note(&self, attempt: Attempt) {
        self.lock().note(attempt);
    }

    /// Forgets an attempt that was noted and has not finished. `before` is what
    /// was the highest one before it was noted.
    pub(crate) fn forget(&self, attempt: Attempt, before: Option<u32>) {
        self.lock().unnote(attempt, before);
    }

    /// The highest attempt at a task that is remembered.
    ///
    /// # Errors
    /// The disk could not be read.
    pub(crate) fn highest(&self, task: TaskId) -> Result<Option<u32>, Error> {
        let (mut highest, runs) = self.lock().look_up(task);
        for run in runs {
            let place = self.run_place(run)?;
            let attempts = place.map_or(Ok(None), |place| self.read_run(place))?;
            highest = highest.max(attempts.and_then(|attempts| seen::highest(&attempts, task)));
        }
        Ok(highest)
    }

    /// The attempts of a run; none if it is damaged, or gone meanwhile.
    pub(super) fn read_run(&self, place: Place) -> Result<Option<Vec<Attempt>>, Error> {
        match self.spool.reader().read(place) {
            Ok(bytes) => Ok(seen::decode(&bytes)),
            Err(ReadError::Damaged(_)) => Ok(None),
            Err(error @ ReadError::Io { .. }) => {
                Err(self.store.failed("reading the spool of")(error.into()))
            }
        }
    }

    /// Where a run is; nothing where it is gone.
    pub(super) fn run_place(&self, run: u64) -> Result<Option<Place>, Error> {
        let key = record::numbered(Space::Seen, run);
        let value = self.store.get(&key)?;
        let content = value.as_deref().and_then(|value| record::unseal(&key, value));
        Ok(content.and_then(|content| record::decode_place(content.strip_prefix(&[RUN])?)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, seen::Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
