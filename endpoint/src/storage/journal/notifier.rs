//! Tells the callers that wait for a group that it is durable. The writer is a thread of its
//! own, and each of hundreds told from there would wake the runtime anew, with a system
//! call; so a task of the runtime tells them, woken once.

use super::JournalError;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How many groups may be on their way to the task; the next is told of at once.
const GROUPS: usize = 16;

/// A caller that waits for a change.
pub(super) type Waiting = oneshot::Sender<Result<(), JournalError>>;

/// The writer's end of the task that tells callers.
pub(super) struct Notifier(Option<mpsc::Sender<Vec<Waiting>>>);

impl Notifier {
    /// Starts the task on the runtime that this is called in; it ends when the notifier is
    /// dropped. Without a runtime the notifier tells callers itself.
    pub(super) fn start() -> (Self, Option<JoinHandle<()>>) {
        let Ok(runtime) = Handle::try_current() else { return (Self(None), None) };
        let (groups, mut durable) = mpsc::channel(GROUPS);
        let task = runtime.spawn(async move {
            while let Some(group) = durable.recv().await {
                tell(group);
            }
        });
        (Self(Some(groups)), Some(task))
    }

    /// Tells all callers of a group. Never waits.
    pub(super) fn tell(&self, group: Vec<Waiting>) {
        let Some(groups) = &self.0 else { return tell(group) };
        let alone = group.len() == 1 && groups.capacity() == groups.max_capacity();
        if alone {
            return tell(group);
        }
        if let Err(untold) = groups.try_send(group) {
            tell(untold.into_inner());
        }
    }
}

fn tell(group: Vec<Waiting>) {
    for waiting in group {
        // A caller that has dropped its Commit does not want to know.
        drop(waiting.send(Ok(())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(of: usize) -> (Vec<Waiting>, Vec<oneshot::Receiver<Result<(), JournalError>>>) {
        (0..of).map(|_| oneshot::channel()).unzip()
    }

    #[test]
    fn all_are_told_with_and_without_a_runtime_and_after_its_end() {
        let told = |mut durable: Vec<oneshot::Receiver<_>>| {
            durable.iter_mut().all(|durable| matches!(durable.try_recv(), Ok(Ok(()))))
        };
        let (waiting, durable) = group(3);
        Notifier::start().0.tell(waiting);
        assert!(told(durable));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (notifier, task) = runtime.block_on(async { Notifier::start() });
        let (waiting, durable) = group(1);
        notifier.tell(waiting);
        assert!(told(durable), "one alone is told at once");
        // More groups than have room, while the runtime does not run.
        let (groups, durable): (Vec<_>, Vec<_>) = (0..GROUPS + 1).map(|_| group(2)).unzip();
        std::thread::scope(|scope| {
            scope.spawn(|| groups.into_iter().for_each(|group| notifier.tell(group)));
        });
        runtime.block_on(async {
            for one in durable.into_iter().flatten() {
                one.await.unwrap().unwrap();
            }
        });
        assert!(!task.unwrap().is_finished(), "as long as the writer lives");
        drop(runtime);
        let (waiting, durable) = group(2);
        notifier.tell(waiting);
        assert!(told(durable));
    }
}
