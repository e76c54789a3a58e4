//! The daemon's sockets. Its own is for the commands `status`, `tasks`, `drain` and `resume`, and
//! for `curl`. It works without the broker. The other one answers its tasks ([`server`]).
//!
//! [`Local`] answers from what the daemon's parts have: nothing is kept for it, and it costs
//! nothing until it is asked. A drain that it begins is kept in the state folder until it is
//! resumed.

mod client;
pub(crate) mod commands;
mod drain_file;
pub(crate) mod server;
mod show;
pub(crate) mod socket;
pub(crate) mod task_commands;
mod task_log;
mod task_requests;
mod types;

use crate::execution::dispatcher::Dispatcher;
use crate::execution::engine::SlotCount;
use crate::execution::os::leaders;
use crate::execution::task_side::TaskSide;
use crate::link::instance::Instance;
use crate::link::status::{LinkPhase, LinkStatus};
use crate::pending::drain::{Drained, DrainedBy};
use crate::pending::inbox::listing::Listed;
use crate::pending::ledger::Ledger;
use crate::pending::poison;
use crate::system::disk_space;
use crate::system::troubles::Troubles;
use clutch_common::id::Attempt;
use clutch_common::system::clock::now_ms;
use clutch_common::task::Work;
use drain_file::Kept;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use types::{
    DrainRequest, DrainView, DrainsView, Function, LinkState, LinkView, Phase, Status, TaskView,
    Tasks,
};

/// The parts of the daemon that answers are made from.
pub(crate) struct Local {
    /// The endpoint's name at the service.
    pub(crate) name: String,
    /// The state folder.
    pub(crate) state: PathBuf,
    /// The broker's address, without the password.
    pub(crate) address: String,
    /// When the daemon was started, in milliseconds since the Unix epoch.
    pub(crate) started_at_ms: u64,
    /// The pending work.
    pub(crate) ledger: Arc<Ledger>,
    /// The instance, and its link.
    pub(crate) instance: Arc<Instance>,
    /// The executor of tasks.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// How many tasks run at once.
    pub(crate) slots: SlotCount,
    /// The troubles that keep tasks from starting.
    pub(crate) troubles: Troubles,
    /// Held while a drain is begun or ended: the disk and the ledger agree.
    pub(crate) changing: Mutex<()>,
}

impl Local {
    /// Begins the drain that an earlier life of the daemon left in the state folder. To be
    /// called before the first task starts.
    pub(crate) fn restore_drain(&self) {
        if let Some(kept) = drain_file::read(&self.state) {
            tracing::warn!(
                "the endpoint is drained since an earlier start: no task is started or read until \
                 `clutch-endpoint resume`"
            );
            self.ledger.drain(DrainedBy::Person, Some(Drained { deadline_ms: kept.deadline_ms }));
        }
    }

    /// Drains the endpoint, or changes the deadline of a drain.
    async fn drain(&self, request: DrainRequest) -> io::Result<()> {
        let deadline_ms = request.within_ms.map(|within| now_ms().saturating_add(within));
        self.change(Some(Kept { deadline_ms })).await
    }

    /// Ends the drain that [`Local::drain`] began.
    async fn resume(&self) -> io::Result<()> {
        self.change(None).await
    }

    async fn change(&self, kept: Option<Kept>) -> io::Result<()> {
        let _changing = self.changing.lock().await;
        let state = self.state.clone();
        let written = spawn_blocking(move || drain_file::write(&state, kept)).await;
        written.map_err(io::Error::other)??;
        let drained = kept.map(|kept| Drained { deadline_ms: kept.deadline_ms });
        self.ledger.drain(DrainedBy::Person, drained);
        self.instance.request_presence();
        Ok(())
    }

    fn status(&self) -> Status {
        let (running, slots_used, accepted) = self.ledger.running_and_accepted();
        let drains = self.ledger.drains();
        let drain = |drained: Drained| DrainView { deadline_ms: drained.deadline_ms };
        let functions = self.dispatcher.workers().into_iter();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            endpoint_id: self.ledger.endpoint_id,
            name: self.name.clone(),
            state: self.state.clone(),
            state_id: self.ledger.state_id,
            started_at_ms: self.started_at_ms,
            now_ms: now_ms(),
            link: link(self.instance.link.now(), self.address.clone()),
            role: self.instance.role(),
            slots: self.slots.get(),
            slots_used,
            running,
            accepted,
            undelivered: self.ledger.undelivered(),
            disk_free_bytes: disk_space::available(&self.state).ok(),
            drains: DrainsView {
                service: drains.service.map(drain),
                local: drains.person.map(drain),
            },
            functions: functions
                .map(|(name, at_most, idle, busy)| Function { name, at_most, idle, busy })
                .collect(),
            troubles: self.troubles.words(),
            passed_by: self.instance.passed_by(),
        }
    }

    /// The first process of a run, or the worker that has its call.
    async fn process_of(&self, attempt: Attempt) -> Option<u32> {
        let call = self.dispatcher.calls().into_iter().find(|(call, _)| *call == attempt);
        if let Some((_, worker)) = call {
            return Some(worker);
        }
        let state_id = self.ledger.state_id;
        let leaders = spawn_blocking(move || leaders::of_runs(state_id)).await;
        leaders.unwrap_or_default().get(&attempt).copied()
    }

    async fn tasks(&self, limit: usize) -> Tasks {
        let (listed, total) = self.ledger.list(limit);
        let noted = self.ledger.noted_runs();
        let calls: HashMap<Attempt, u32> = self.dispatcher.calls().into_iter().collect();
        let has_process = |listed: &Listed| {
            listed.waits.is_none() && matches!(listed.task.work, Work::Process(_))
        };
        let leaders = if listed.iter().any(has_process) {
            let state_id = self.ledger.state_id;
            spawn_blocking(move || leaders::of_runs(state_id)).await.unwrap_or_default()
        } else {
            HashMap::new()
        };
        let now = now_ms();
        let more = total - listed.len();
        let view = |listed: Listed| {
            let attempt = listed.task.attempt();
            let since_ms = noted.get(&attempt).copied();
            let left = |walltime: std::time::Duration| {
                let walltime = u64::try_from(walltime.as_millis()).unwrap_or(u64::MAX);
                since_ms.map(|since| walltime.saturating_sub(now.saturating_sub(since)))
            };
            TaskView {
                task_id: attempt.task_id,
                attempt: attempt.attempt,
                name: listed.task.name.clone(),
                work: poison::command(&listed.task),
                phase: match (&listed.waits, since_ms) {
                    (Some(_), _) => Phase::Waiting,
                    (None, None) if !listed.task.is_built_in() => Phase::Starting,
                    (None, _) => Phase::Running,
                },
                since_ms: since_ms.filter(|_| listed.waits.is_none()),
                walltime_left_ms: listed.task.walltime().and_then(left),
                pid: leaders.get(&attempt).or_else(|| calls.get(&attempt)).copied(),
                why: listed.waits.map(|waits| waits.to_string()),
            }
        };
        Tasks { tasks: listed.into_iter().map(view).collect(), more }
    }
}

fn link(status: LinkStatus, address: String) -> LinkView {
    let LinkStatus { phase, since_ms, fault, advice, next_try_ms } = status;
    let state = match phase {
        LinkPhase::Connecting => LinkState::Connecting,
        LinkPhase::Engaged => LinkState::Engaged,
        LinkPhase::StandingBy => LinkState::StandingBy,
        LinkPhase::Disengaged => LinkState::Disengaged,
    };
    LinkView { state, since_ms, address, fault, advice: advice.map(str::to_owned), next_try_ms }
}

/// Removes the sockets of a daemon that stops.
pub(crate) fn close(state: &std::path::Path, tasks: Option<&TaskSide>) {
    socket::remove(state);
    if let Some(tasks) = tasks {
        socket::remove_at(&tasks.socket);
    }
}
