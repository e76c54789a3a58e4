//! The engine over several lives of the daemon, with tasks that end it.

use super::*;
use crate::pending::stop::StopReason;
use crate::testing::{ledger, ledger_on, results_on_disk, task};
use async_trait::async_trait;
use clutch_common::task::Task;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tempfile::TempDir;

/// An executor that runs nothing: it panics over some tasks, waits over others, and
/// counts the starts of each.
#[derive(Default)]
struct Fake {
    panics_over: Vec<Attempt>,
    waits_over: Vec<Attempt>,
    starts: Mutex<BTreeMap<Attempt, usize>>,
}

impl Fake {
    fn started(&self) -> usize {
        self.starts.lock().unwrap().values().sum()
    }
}

#[async_trait]
impl Executor for Fake {
    async fn run(&self, task: &Task, context: &RunContext) -> Ended {
        let attempt = task.attempt();
        let _noted = context.notes.begin();
        *self.starts.lock().unwrap().entry(attempt).or_default() += 1;
        assert!(!self.panics_over.contains(&attempt), "as a fault of ours would");
        if self.waits_over.contains(&attempt) {
            context.stop.wait().await;
        }
        Ended::Stopped(StopReason::Shutdown)
    }
}

/// One life of a daemon.
async fn live(disk: &TempDir, executor: Arc<Fake>, stop: bool) -> Result<(), EngineError> {
    let ledger = ledger_on(disk, 10);
    let engine = Engine {
        ledger: Arc::clone(&ledger),
        executor: Arc::clone(&executor) as _,
        live: Arc::default(),
        slots: SlotCount::new(2),
    };
    let (intake, kill) = (CancellationToken::new(), StopSignal::new());
    let mut turning = tokio::task::JoinSet::new();
    let before = executor.started();
    turning.spawn(engine.run(intake.clone(), kill.clone()));
    if stop {
        while executor.started() == before {
            tokio::task::yield_now().await;
        }
        intake.cancel();
        kill.request(StopReason::Shutdown);
    }
    let ended = turning.join_next().await.unwrap().unwrap();
    ledger.close().await;
    ended
}

async fn accepted(tasks: &[Task]) -> TempDir {
    let (disk, ledger) = ledger(10);
    ledger.accept(tasks.to_vec()).await.unwrap().await.unwrap();
    ledger.close().await;
    disk
}

#[tokio::test]
async fn a_task_that_the_daemon_cannot_survive_is_poisoned_and_its_neighbour_is_not() {
    let (guilty, neighbour) = (task(), task());
    let disk = accepted(&[neighbour.clone(), guilty.clone()]).await;
    let fake = Arc::new(Fake {
        panics_over: vec![guilty.attempt()],
        waits_over: vec![neighbour.attempt()],
        ..Fake::default()
    });
    for _ in 0..3 {
        let ended = live(&disk, Arc::clone(&fake), false).await;
        assert!(matches!(ended, Err(EngineError::Panic(_))), "{ended:?}");
    }
    live(&disk, Arc::clone(&fake), true).await.unwrap();
    assert_eq!(fake.starts.lock().unwrap()[&guilty.attempt()], 3);
    let results = results_on_disk(&ledger_on(&disk, 10)).await;
    let ends: Vec<_> = results.iter().map(|result| (result.attempt(), result.outcome)).collect();
    assert_eq!(ends, [(guilty.attempt(), Outcome::Poisoned)]);
}

#[tokio::test]
async fn tasks_that_a_stop_ends_are_not_to_blame() {
    let task = task();
    let disk = accepted(std::slice::from_ref(&task)).await;
    let fake = Arc::new(Fake { waits_over: vec![task.attempt()], ..Fake::default() });
    for _ in 0..5 {
        live(&disk, Arc::clone(&fake), true).await.unwrap();
    }
    assert_eq!(fake.starts.lock().unwrap()[&task.attempt()], 5);
    assert!(results_on_disk(&ledger_on(&disk, 10)).await.is_empty());
}
