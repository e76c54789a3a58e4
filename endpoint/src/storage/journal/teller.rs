//! Tells those who wait for a group that it is durable. The writer is a thread of its
//! own, and each of hundreds told from there would wake the runtime anew, with a system
//! call; so a task of the runtime tells them, woken once.

use super::JournalError;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// How many groups may be on their way to the task; the next is told of at once.
const GROUPS: usize = 16;

/// Somebody who waits for a change.
pub(super) type Waiting = oneshot::Sender<Result<(), JournalError>>;

/// Tells who waits; used by the writer.
pub(super) struct Teller(Option<mpsc::Sender<Vec<Waiting>>>);

impl Teller {
    /// One that tells from the runtime that this is called in; without a runtime, from
    /// wherever it is asked to.
    pub(super) fn start() -> Self {
        let start = |runtime: Handle| {
            let (groups, mut durable) = mpsc::channel(GROUPS);
            runtime.spawn(async move {
                while let Some(group) = durable.recv().await {
                    tell(group);
                }
            });
            groups
        };
        Self(Handle::try_current().ok().map(start))
    }

    /// Tells everybody in a group. Never waits.
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
        // Whoever has dropped its Commit does not want to know.
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
    fn everybody_is_told_with_and_without_a_runtime_and_after_its_end() {
        let told = |mut durable: Vec<oneshot::Receiver<_>>| {
            durable.iter_mut().all(|durable| matches!(durable.try_recv(), Ok(Ok(()))))
        };
        let (waiting, durable) = group(3);
        Teller::start().tell(waiting);
        assert!(told(durable));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let teller = runtime.block_on(async { Teller::start() });
        let (waiting, durable) = group(1);
        teller.tell(waiting);
        assert!(told(durable), "one alone is told at once");
        // More groups than have room, while the runtime does not run.
        let (groups, durable): (Vec<_>, Vec<_>) = (0..GROUPS + 1).map(|_| group(2)).unzip();
        std::thread::scope(|scope| {
            scope.spawn(|| groups.into_iter().for_each(|group| teller.tell(group)));
        });
        runtime.block_on(async {
            for one in durable.into_iter().flatten() {
                one.await.unwrap().unwrap();
            }
        });
        drop(runtime);
        let (waiting, durable) = group(2);
        teller.tell(waiting);
        assert!(told(durable));
    }
}
