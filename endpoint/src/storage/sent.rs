//! The sent log: results that the broker has confirmed, kept for a while so that they
//! can be sent again if the service lost them. A thread of its own writes it to
//! `STATE/sent/`; no caller waits for that, and nothing is synced.
//!
//! Promises: an append never blocks and never fails its caller. Results that cannot be kept,
//! as the disk is slow or full, are counted and reported in the daemon's log. A recall sees
//! every append that was made before it and was kept.

mod segments;

use crate::storage::journal::Finished;
use clutch_common::id::Attempt;
use clutch_common::system::clock::now_ms;
use segments::Segments;
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// The most appends and recalls that wait for the thread.
const WAITING_MAX: usize = 256;
/// The most bytes of results that wait for the thread.
const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of results that one recall returns, one result more or less.
const RECALL_BYTES: usize = 8 * 1024 * 1024;

/// How much is kept, and where.
#[derive(Clone, Debug)]
pub(crate) struct SentConfig {
    /// The folder, which is made if it is missing.
    pub(crate) path: PathBuf,
    /// How long a result is kept, at the most.
    pub(crate) keep: Duration,
    /// How many bytes are kept, about; with 0, none.
    pub(crate) keep_bytes: u64,
}

/// The results of a recall.
#[derive(Debug, Default)]
pub(crate) struct Recalled {
    /// Results that are kept, some if there are any.
    pub(crate) found: Vec<Finished>,
    /// Attempts that have results in the log which did not fit this recall.
    pub(crate) more: HashSet<Attempt>,
}

enum LogRequest {
    Append(Vec<Arc<Finished>>),
    Recall(HashSet<Attempt>, oneshot::Sender<Recalled>),
}

/// The log, and the thread that writes it.
pub(crate) struct SentLog {
    commands: Option<SyncSender<LogRequest>>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    last: Mutex<Option<Attempt>>,
    thread: Option<JoinHandle<()>>,
}

impl SentLog {
    /// Opens the log, or begins one, and starts its thread.
    ///
    /// # Errors
    /// When the folder cannot be made or read, or no thread can be started.
    pub(crate) fn open(config: SentConfig) -> io::Result<Self> {
        let segments = Segments::open(config, now_ms())?;
        let last = Mutex::new(segments.last()?);
        let (commands, received) = sync_channel(WAITING_MAX);
        let (waiting, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let writer = LogWriter {
            segments,
            waiting: Arc::clone(&waiting),
            dropped: Arc::clone(&dropped),
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("sent-log".to_owned())
            .spawn(move || writer.run(&received))?;
        Ok(Self { commands: Some(commands), waiting, dropped, last, thread: Some(thread) })
    }

    /// Keeps results that the broker has confirmed, in their order.
    pub(crate) fn append(&self, results: Vec<Arc<Finished>>) {
        let Some(newest) = results.last() else { return };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(newest.attempt);
        let (count, bytes) = (results.len() as u64, size(&results));
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before + bytes <= WAITING_BYTES;
        let sent = fits
            && self
                .commands
                .as_ref()
                .is_some_and(|commands| commands.try_send(LogRequest::Append(results)).is_ok());
        if !sent {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The attempt of the result that the broker confirmed last, as far as is known: a
    /// crash may hide the very last ones.
    pub(crate) fn last(&self) -> Option<Attempt> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for the results of these attempts.
    pub(crate) async fn recall(&self, attempts: HashSet<Attempt>) -> Recalled {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.as_ref().map(|commands| {
            // The thread takes its commands within milliseconds; a full channel means a
            // disk that does not answer, and the service asks again.
            commands.try_send(LogRequest::Recall(attempts.clone(), reply)).is_ok()
        });
        match sent {
            Some(true) => answer.await.unwrap_or_default(),
            Some(false) | None => Recalled { found: Vec::new(), more: attempts },
        }
    }
}

impl Drop for SentLog {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the sent log ended in a panic");
        }
    }
}

struct LogWriter {
    segments: Segments,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    failing: bool,
}

impl LogWriter {
    fn run(mut self, commands: &Receiver<LogRequest>) {
        while let Ok(command) = commands.recv() {
            match command {
                LogRequest::Append(results) => {
                    self.append(&results);
                    self.waiting.fetch_sub(size(&results), Ordering::Relaxed);
                }
                LogRequest::Recall(attempts, reply) => {
                    let recalled = self.segments.recall(attempts, RECALL_BYTES);
                    let recalled = recalled.unwrap_or_else(|error| {
                        tracing::error!(%error, "results that were sent cannot be read again");
                        Recalled::default()
                    });
                    // The session that asked may be gone.
                    drop(reply.send(recalled));
                }
            }
        }
    }

    fn append(&mut self, results: &[Arc<Finished>]) {
        match self.segments.append(now_ms(), results) {
            Ok(()) => {
                let dropped = self.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::warn!(
                        dropped,
                        "results that were delivered were not kept: the disk did not take them \
                         in time. They cannot be sent again if the service loses them"
                    );
                }
                self.failing = false;
            }
            Err(error) => {
                self.dropped.fetch_add(results.len() as u64, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %error,
                        "results that were delivered cannot be kept, to be sent again if the \
                         service loses them: is the disk full? Nothing else depends on it"
                    );
                }
            }
        }
    }
}

fn size(results: &[Arc<Finished>]) -> usize {
    results.iter().map(|result| result.bytes.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;

    fn config(path: &std::path::Path) -> SentConfig {
        let keep = Duration::from_secs(3600);
        SentConfig { path: path.join("sent"), keep, keep_bytes: 1 << 20 }
    }

    fn result(bytes: usize) -> Arc<Finished> {
        let attempt = Attempt { task_id: TaskId::new(), attempt: 1 };
        Arc::new(Finished { attempt, bytes: vec![b'x'; bytes] })
    }

    #[tokio::test]
    async fn what_was_sent_is_recalled_also_by_another_life_of_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (result(10), result(20));
        let log = SentLog::open(config(folder.path())).unwrap();
        assert_eq!(log.last(), None);
        log.append(vec![Arc::clone(&one), Arc::clone(&two)]);
        assert_eq!(log.last(), Some(two.attempt));
        drop(log);
        let log = SentLog::open(config(folder.path())).unwrap();
        assert_eq!(log.last(), Some(two.attempt));
        let unknown = result(1).attempt;
        let recalled = log.recall(HashSet::from([one.attempt, unknown])).await;
        assert!(recalled.more.is_empty());
        let found: Vec<_> = recalled.found.iter().map(|found| found.attempt).collect();
        assert_eq!(found, [one.attempt]);
        assert_eq!(recalled.found[0].bytes, one.bytes);
    }

    #[tokio::test]
    async fn a_recall_is_bounded_and_says_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let large = SentConfig { keep_bytes: 1 << 30, ..config(folder.path()) };
        let log = SentLog::open(large).unwrap();
        let results: Vec<_> = (0..4).map(|_| result(4 * 1024 * 1024)).collect();
        let wanted: HashSet<_> = results.iter().map(|result| result.attempt).collect();
        for result in results {
            log.append(vec![result]);
            // Until the thread has taken it, which the bound on what waits asks for.
            log.recall(HashSet::new()).await;
        }
        let recalled = log.recall(wanted).await;
        assert_eq!((recalled.found.len(), recalled.more.len()), (2, 2));
    }
}
