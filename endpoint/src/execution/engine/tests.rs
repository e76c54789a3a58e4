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

/// An executor that counts the slots that are taken at once.
#[derive(Default)]
struct Counting {
    taken: Mutex<(u32, u32)>,
    order: Mutex<Vec<u32>>,
}

#[async_trait]
impl Executor for Counting {
    async fn run(&self, task: &Task, _: &RunContext) -> Ended {
        self.order.lock().unwrap().push(task.cores);
        let now = {
            let mut taken = self.taken.lock().unwrap();
            taken.0 += task.cores;
            taken.1 = taken.1.max(taken.0);
            taken.0
        };
        assert!(task.cores < 4 || now == 4, "a task that takes all slots runs alone");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.taken.lock().unwrap().0 -= task.cores;
        Ended::Finished(Report::blank(Outcome::Succeeded))
    }
}

#[tokio::test]
async fn tasks_take_their_slots_a_wide_one_has_its_turn_and_one_too_wide_is_rejected() {
    let wide = |cores| Task { cores, ..task() };
    let narrow = std::iter::repeat_with(task).take(20);
    let tasks: Vec<Task> =
        narrow.clone().chain([wide(4), wide(5)]).chain(narrow).chain([wide(2), wide(3)]).collect();
    let (_disk, ledger) = ledger(100);
    ledger.accept(tasks.clone()).await.unwrap().await.unwrap();
    let executor = Arc::new(Counting::default());
    let engine = Engine {
        ledger: Arc::clone(&ledger),
        executor: Arc::clone(&executor) as _,
        live: Arc::default(),
        slots: SlotCount::new(4),
    };
    let intake = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(engine.run(intake.clone(), StopSignal::new()));
    while ledger.tasks() > 0 {
        tokio::task::yield_now().await;
    }
    intake.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    let results = results_on_disk(&ledger).await;
    ledger.close().await;
    let order = executor.order.lock().unwrap().clone();
    assert_eq!(order.iter().position(|cores| *cores == 4), Some(20), "{order:?}");
    assert_eq!(order.len(), tasks.len() - 1, "the one that is too wide never runs");
    assert_eq!(executor.taken.lock().unwrap().1, 4, "all slots were used, and no more");
    let rejected: Vec<String> = results
        .into_iter()
        .filter(|result| result.outcome == Outcome::Rejected)
        .map(|result| result.reason.unwrap().to_string())
        .collect();
    assert_eq!(rejected, ["it needs 5 cores, and the endpoint has 4 slots: it did not run"]);
}
