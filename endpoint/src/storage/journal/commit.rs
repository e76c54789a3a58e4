//! Waiting for the writer, and noticing that it has stalled or ended.

use super::JournalError;
use futures_util::FutureExt as _;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

/// How many looks in a row have to find the writer at the same group before it counts as
/// stalled. Looks count and not the clock: while a process was stopped, or a machine slept,
/// no caller waited.
const LOOKS: u32 = 8;

/// The state of the writer that callers can see: the group it is at work on, and why it
/// ended.
#[derive(Debug)]
pub(crate) struct Pulse {
    path: PathBuf,
    limit: Duration,
    work: Mutex<Work>,
    failure: OnceLock<JournalError>,
}

/// The writer's progress.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// How many groups it has begun.
    begun: u64,
    /// Whether it is at work on the last of them.
    busy: bool,
}

impl Pulse {
    pub(crate) fn new(path: PathBuf, limit: Duration) -> Self {
        Self { path, limit, work: Mutex::default(), failure: OnceLock::new() }
    }

    /// The writer begins a group, or is done with it.
    pub(crate) fn busy(&self, busy: bool) {
        let mut work = self.lock();
        work.begun += u64::from(busy);
        work.busy = busy;
    }

    /// The journal has failed for good; the first reason stays.
    pub(crate) fn fail(&self, error: JournalError) {
        self.failure.get_or_init(|| error);
    }

    pub(super) fn failure(&self) -> Option<JournalError> {
        self.failure.get().cloned()
    }

    /// The reason why the writer has ended. A writer that ended at work without giving a
    /// reason has panicked.
    pub(super) fn end(&self) -> JournalError {
        let at_work = self.lock().busy;
        let unsaid = || if at_work { self.broken() } else { JournalError::Closed };
        self.failure().unwrap_or_else(unsaid)
    }

    pub(crate) fn broken(&self) -> JournalError {
        JournalError::Broken { path: self.path.clone() }
    }

    /// The group under way, by its number.
    fn group(&self) -> Option<u64> {
        let work = *self.lock();
        work.busy.then_some(work.begun)
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stalled(&self) -> JournalError {
        self.fail(JournalError::Stalled { path: self.path.clone(), limit: self.limit });
        self.end()
    }
}

/// An answer of the writer, or the error that it has stalled. The timer exists only while
/// the answer is polled.
pub(super) struct Answer<T> {
    answer: oneshot::Receiver<Result<T, JournalError>>,
    pulse: Arc<Pulse>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The group that the last looks have found under way, and how many did.
    found: (Option<u64>, u32),
}

impl<T> Answer<T> {
    pub(super) fn new(
        answer: oneshot::Receiver<Result<T, JournalError>>,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self { answer, pulse, timer: None, found: (None, 0) }
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, JournalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = self.answer.poll_unpin(context) {
            return Poll::Ready(answer.unwrap_or_else(|_| Err(self.pulse.end())));
        }
        let Self { pulse, timer, found, .. } = &mut *self;
        let pause = pulse.limit / LOOKS;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep(pause)));
        loop {
            ready!(timer.poll_unpin(context));
            let group = pulse.group();
            *found = if group == found.0 { (group, found.1 + 1) } else { (group, 1) };
            if group.is_some() && found.1 >= LOOKS {
                return Poll::Ready(Err(pulse.stalled()));
            }
            timer.as_mut().reset(Instant::now() + pause);
        }
    }
}

/// Resolves when a change is durable. Dropping it changes nothing: the change
/// is made all the same.
///
/// Ends with [`JournalError::Stalled`] when the disk does not finish a group
/// in a minute. Waiting for room on a full disk does not count.
#[must_use = "nothing is durable before this resolves"]
pub(crate) struct Commit(Answer<()>);

impl Commit {
    pub(super) fn new(answer: Answer<()>) -> Self {
        Self(answer)
    }
}

impl Future for Commit {
    type Output = Result<(), JournalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn waiting(limit: Duration) -> (oneshot::Sender<Result<(), JournalError>>, Arc<Pulse>, Commit) {
        let pulse = Arc::new(Pulse::new("/state".into(), limit));
        let (sender, receiver) = oneshot::channel();
        (sender, pulse.clone(), Commit::new(Answer::new(receiver, pulse)))
    }

    #[tokio::test]
    async fn a_group_that_takes_too_long_fails_loudly_and_for_good() {
        let (_sender, pulse, commit) = waiting(SHORT);
        pulse.busy(true);
        assert!(matches!(commit.await, Err(JournalError::Stalled { .. })));
        assert!(matches!(pulse.failure(), Some(JournalError::Stalled { .. })));
    }

    #[tokio::test]
    async fn waiting_for_a_group_to_begin_is_not_a_stall() {
        let (sender, pulse, commit) = waiting(SHORT);
        let answer = async {
            sleep(4 * SHORT).await;
            sender.send(Ok(())).unwrap();
        };
        let (committed, ()) = tokio::join!(commit, answer);
        committed.unwrap();
        assert!(pulse.failure().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_has_kept_nobody_waiting() {
        let (sender, pulse, mut commit) = waiting(SHORT);
        pulse.busy(true);
        assert!(futures_util::poll!(&mut commit).is_pending());
        tokio::time::advance(20 * SHORT).await;
        assert!(futures_util::poll!(&mut commit).is_pending(), "that was one look");
        sender.send(Ok(())).unwrap();
        commit.await.unwrap();
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_says_why() {
        let (sender, pulse, commit) = waiting(Duration::from_secs(60));
        pulse.busy(true);
        drop(sender);
        assert!(matches!(commit.await, Err(JournalError::Broken { .. })));
        let (sender, _pulse, commit) = waiting(Duration::from_secs(60));
        drop(sender);
        assert!(matches!(commit.await, Err(JournalError::Closed)));
    }
}
