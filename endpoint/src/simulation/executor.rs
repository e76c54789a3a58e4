//! Runs tasks in a run: nothing but time passes, and the oracle knows.

use super::oracle::name;
use super::plan::Mishap;
use super::process::Life;
use super::world::World;
use crate::execution::capture::Captured;
use crate::execution::executor::{Ended, Executor, Report, RunContext};
use crate::pending::stop::StopReason;
use async_trait::async_trait;
use clutch_common::task::Task;
use clutch_common::task::result::Outcome;
use std::sync::Arc;
use std::time::Duration;

/// The executor of one process.
pub(super) struct Sleeper {
    pub(super) world: Arc<World>,
    pub(super) life: Arc<Life>,
}

impl Sleeper {
    /// The process may die here; then nothing more happens in it. Nothing does
    /// while it is frozen, either.
    async fn may_die(&self, when: &str) {
        self.life.gate.awake().await;
        if self.world.mishap(Mishap::CrashAtTask) {
            self.life.crash(when);
        }
        if self.life.is_over() {
            std::future::pending::<()>().await;
        }
    }

    fn stopped(&self, task: &Task, reason: StopReason) -> Ended {
        let (attempt, instance) = (task.attempt(), self.life.instance);
        let (life, what) = (&self.life.name, name(attempt));
        self.world.note(format_args!("{life}: {what} is stopped: {reason:?}"));
        self.world.tell(|oracle| match reason {
            StopReason::Drained if !task.rerun => oracle.may_be_interrupted(attempt),
            StopReason::Cancelled => oracle.cut_off(attempt),
            StopReason::Shutdown | StopReason::Walltime | StopReason::Drained => {
                oracle.stopped(instance, attempt);
            }
        });
        Ended::Stopped(reason)
    }

    fn duration(&self) -> Duration {
        match self.world.within(0..20) {
            0..6 => Duration::ZERO,
            6..16 => self.world.millis(1..200),
            16..19 => self.world.millis(200..5_000),
            _ => self.world.millis(5_000..90_000),
        }
    }
}

#[async_trait]
impl Executor for Sleeper {
    async fn run(&self, task: &Task, context: &RunContext) -> Ended {
        let (attempt, instance) = (task.attempt(), self.life.instance);
        self.may_die("before a task starts").await;
        if let Some(reason) = context.stop.requested() {
            return self.stopped(task, reason);
        }
        self.world.note(format_args!("{}: {} starts", self.life.name, name(attempt)));
        self.world.judge(|oracle| oracle.starts(instance, task));
        self.world.judge(|oracle| oracle.claimed.starts(instance, task));
        let _noted = context.notes.begin();
        self.may_die("after a task has started").await;
        tokio::select! {
            biased;
            () = tokio::time::sleep(self.duration()) => (),
            reason = context.stop.wait() => {
                return self.stopped(task, reason);
            }
        }
        let failed = self.world.within(0..5) == 0;
        let outcome = if failed { Outcome::Failed } else { Outcome::Succeeded };
        self.world.note(format_args!("{}: {} {outcome}", self.life.name, name(attempt)));
        self.world.judge(|oracle| oracle.ends(instance, attempt, outcome));
        self.may_die("after a task has ended").await;
        let size = self.world.within(0..4_000) as usize;
        Ended::Finished(Report {
            outcome,
            value: None,
            exit_code: Some(i32::from(failed)),
            signal: None,
            reason: None,
            error: None,
            stdout: Captured { bytes: vec![b'x'; size], omitted: 0 },
            stderr: Captured::default(),
            started_at_ms: Some(0),
            ended_at_ms: 0,
            cpu_ms: None,
            peak_memory_bytes: None,
            removed_files: None,
        })
    }
}
