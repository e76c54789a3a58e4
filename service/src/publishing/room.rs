//! Room for submissions that are published as they come: bounds the bytes that are recorded and
//! that the broker has not answered yet.
//!
//! A broker that confirms makes room faster than it is taken. One that does not, as while its
//! memory is short, would have every submission wait: so a submission that finds no room for
//! [`PATIENCE`] is told so, and others at once from then on until room is given back. Their
//! tasks wait in the records for the placer. Touches nothing; clones share the room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How many bytes of submissions are published at once.
const BYTES: usize = 32 * 1024 * 1024;
/// The unit, in bytes, in which room is given out.
const SHARE: usize = 64 * 1024;
/// How long a submission waits for room before the broker counts as one that does not confirm.
const PATIENCE: Duration = Duration::from_secs(1);

/// The room.
#[derive(Clone, Debug)]
pub(crate) struct PublishRoom {
    shares: Arc<Semaphore>,
    /// Whether nothing was given back since a submission found no room.
    stuck: Arc<AtomicBool>,
}

/// Room that a submission has until the broker has answered.
#[derive(Debug)]
pub(crate) struct RoomTaken {
    _shares: OwnedSemaphorePermit,
    stuck: Arc<AtomicBool>,
}

impl Drop for RoomTaken {
    fn drop(&mut self) {
        self.stuck.store(false, Ordering::Relaxed);
    }
}

impl Default for PublishRoom {
    fn default() -> Self {
        Self { shares: Arc::new(Semaphore::new(BYTES / SHARE)), stuck: Arc::default() }
    }
}

impl PublishRoom {
    /// Takes room for a submission of so many bytes; nothing while the broker does not confirm
    /// what others published.
    pub(crate) async fn take(&self, bytes: usize) -> Option<RoomTaken> {
        let shares = bytes.clamp(1, BYTES).div_ceil(SHARE);
        let shares = u32::try_from(shares).unwrap_or(u32::MAX);
        // Where nothing is taken, nothing will be given back.
        let is_taken = self.shares.available_permits() < BYTES / SHARE;
        if is_taken && self.stuck.load(Ordering::Relaxed) {
            return None;
        }
        let room = Arc::clone(&self.shares).acquire_many_owned(shares);
        let Ok(Ok(taken)) = timeout(PATIENCE, room).await else {
            if !self.stuck.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "the broker does not confirm what it is sent: tasks are recorded, and wait; \
                     look whether its memory or disk is short"
                );
            }
            return None;
        };
        Some(RoomTaken { _shares: taken, stuck: Arc::clone(&self.stuck) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_submission_waits_a_moment_for_room_and_others_not_at_all_until_some_is_given_back() {
        let room = PublishRoom::default();
        let first = room.take(BYTES - SHARE).await.unwrap();
        let second = room.take(1).await.unwrap();
        let began = Instant::now();
        assert!(room.take(1).await.is_none());
        assert_eq!(began.elapsed(), PATIENCE);
        assert!(room.take(SHARE).await.is_none());
        assert_eq!(began.elapsed(), PATIENCE, "nothing was given back meanwhile");
        drop(second);
        let second = room.take(SHARE).await.unwrap();
        let (third, ()) = tokio::join!(room.take(SHARE), async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(second);
        });
        assert!(third.is_some(), "it waits again, as something was given back");
        drop((first, third));
        assert!(room.take(10 * BYTES).await.is_some(), "the largest finds room");
    }
}
