//! The state that the reader of the control queue shares with the rest of the link: whether
//! the queue is being read for the first time, which cancels a mark has released, copies of
//! urgent tasks, and requests about events.

use super::events_request::EventsRequests;
use clutch_common::task::Task;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// The most copies of urgent tasks that wait to be accepted; more are left out.
const COPIES_MAX: usize = 1000;

/// An order to release cancels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Release {
    /// Its number; they grow.
    id: u64,
    /// The number of the last cancel that is released.
    pub(crate) up_to: u64,
}

/// The part that the reader of the control queue shares.
#[derive(Debug)]
pub(crate) struct Steering {
    reading: watch::Sender<bool>,
    orders: AtomicU64,
    ordered: watch::Sender<Release>,
    released: watch::Sender<u64>,
    copies: Mutex<Vec<Task>>,
    copied: Notify,
    /// Requests about events.
    pub(crate) events: EventsRequests,
}

impl Steering {
    /// Creates the state; requests about events go that way.
    pub(crate) fn new(events: EventsRequests) -> Self {
        Self {
            reading: watch::Sender::new(false),
            orders: AtomicU64::new(0),
            ordered: watch::Sender::default(),
            released: watch::Sender::new(0),
            copies: Mutex::default(),
            copied: Notify::new(),
            events,
        }
    }

    /// Says whether the lease is held, and what waits in the control queue is not obeyed yet.
    pub(crate) fn set_reading(&self, reading: bool) {
        self.reading.send_replace(reading);
    }

    /// Waits while what waits in the control queue is being read.
    pub(crate) async fn until_read(&self) {
        // There is always a sender: this one.
        self.reading.subscribe().wait_for(|reading| !reading).await.ok();
    }

    /// Has the reader release the cancels up to a number, and waits until the broker has
    /// that for certain.
    pub(crate) async fn release(&self, up_to: u64) {
        let id = self.orders.fetch_add(1, Ordering::Relaxed) + 1;
        let mut released = self.released.subscribe();
        self.ordered.send_replace(Release { id, up_to });
        released.wait_for(|released| *released >= id).await.ok();
    }

    /// Has copies of urgent tasks accepted before what is read from the task queue later. Those
    /// that are too many are left out: they come through the queue.
    pub(crate) fn offer(&self, tasks: Vec<Task>) {
        let mut copies = self.lock_copies();
        let room = COPIES_MAX.saturating_sub(copies.len());
        copies.extend(tasks.into_iter().take(room));
        drop(copies);
        self.copied.notify_one();
    }

    /// Waits for copies of urgent tasks. Cancelling the wait loses none.
    pub(crate) async fn copies(&self) -> Vec<Task> {
        loop {
            let copies = std::mem::take(&mut *self.lock_copies());
            if !copies.is_empty() {
                return copies;
            }
            self.copied.notified().await;
        }
    }

    fn lock_copies(&self) -> MutexGuard<'_, Vec<Task>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches for orders to release cancels.
    pub(crate) fn orders(&self) -> Orders {
        Orders(self.ordered.subscribe())
    }

    /// Notes that an order is obeyed.
    pub(crate) fn released(&self, order: Release) {
        self.released.send_replace(order.id);
    }
}

/// The orders to release cancels.
pub(crate) struct Orders(watch::Receiver<Release>);

impl Orders {
    /// Waits for the next order. Cancelling the wait loses nothing.
    pub(crate) async fn next(&mut self) -> Release {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.0.borrow_and_update()
    }
}
