//! Threads that each own a tool, such as a connection, and run jobs with it: a job goes
//! to the first thread that is free, and its answer comes back.
//!
//! Touches: threads. Promises that a job which was taken is done even if its caller is
//! gone, and that a job which panics ends nothing but itself.

use super::{Error, Result};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::{mpsc, oneshot};

/// How many jobs may wait; a caller with one more waits until there is room.
const WAITING: usize = 64;

/// A job, with the thread's tool and whether no other job waits.
type Job<T> = Box<dyn FnOnce(&mut T, bool) + Send>;

/// The threads; clones share them. They end when they are closed, or the last clone is
/// dropped.
pub(super) struct Threads<T>(Arc<Shared<T>>);

struct Shared<T> {
    jobs: Mutex<Option<mpsc::Sender<Job<T>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<T: Send + 'static> Threads<T> {
    /// Starts a thread for each tool.
    pub(super) fn start(name: &str, tools: Vec<T>) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let start = |tool| {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name(name.to_owned()).spawn(move || work(tool, &queue))
        };
        let threads = tools.into_iter().map(start).collect::<std::io::Result<_>>()?;
        Ok(Self(Arc::new(Shared { jobs: Mutex::new(Some(jobs)), threads: Mutex::new(threads) })))
    }

    /// Runs a job, with a tool and whether no other job waits. [`Error::Silent`] when the
    /// threads are closed, or the job panicked.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T, bool) -> R + Send + 'static,
    ) -> Result<R> {
        let jobs = lock(&self.0.jobs).clone().ok_or(Error::Silent)?;
        let (tell, told) = oneshot::channel();
        let job = move |tool: &mut T, alone: bool| {
            // The caller may be gone.
            drop(tell.send(job(tool, alone)));
        };
        jobs.send(Box::new(job)).await.map_err(|_| Error::Silent)?;
        told.await.map_err(|_| Error::Silent)
    }

    /// Ends the threads, once the jobs that wait are done.
    pub(super) async fn close(&self) {
        drop(lock(&self.0.jobs).take());
        let threads = std::mem::take(&mut *lock(&self.0.threads));
        let ended = tokio::task::spawn_blocking(move || {
            threads.into_iter().filter_map(|thread| thread.join().err()).count()
        });
        if ended.await.is_ok_and(|panicked| panicked > 0) {
            tracing::error!("a thread of the database panicked");
        }
    }
}

fn work<T>(mut tool: T, queue: &Mutex<mpsc::Receiver<Job<T>>>) {
    loop {
        let mut jobs = lock(queue);
        let Some(job) = jobs.blocking_recv() else { return };
        let alone = jobs.is_empty();
        drop(jobs);
        // Its transaction is rolled back as it unwinds; the panic has been reported.
        drop(catch_unwind(AssertUnwindSafe(|| job(&mut tool, alone))));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Clone for Threads<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Threads<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Threads")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_ends_nothing_but_itself() {
        let threads = Threads::start("test", vec![1]).unwrap();
        let panicked = threads.run(|number: &mut i32, _| {
            *number += 1;
            assert!(*number == 0, "as meant");
        });
        assert!(matches!(panicked.await, Err(Error::Silent)));
        assert_eq!(threads.run(|number, _| *number).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn jobs_that_were_taken_are_done_without_their_callers_and_the_threads_close() {
        let threads = Threads::start("test", vec![0]).unwrap();
        let (enter, entered) = std::sync::mpsc::sync_channel::<()>(1);
        let mut slow = Box::pin(threads.run(move |_: &mut i32, _| entered.recv()));
        assert!(futures_util::poll!(&mut slow).is_pending());
        let mut second = Box::pin(threads.run(|number, alone| {
            *number = 7;
            assert!(alone);
        }));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop((slow, second));
        enter.send(()).unwrap();
        assert_eq!(threads.run(|number, _| *number).await.unwrap(), 7);
        threads.close().await;
        assert!(matches!(threads.run(|number, _| *number).await, Err(Error::Silent)));
    }
}
