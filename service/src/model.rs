//! The domain types of the service: tasks, their states, and what is recorded of them.
//! Records, publishing, failover and API are made from them; they know none of these. Pure.

mod endpoints;
mod health;
mod name_pattern;
mod progress;
mod progress_rate;
mod records;
mod retry_policy;
mod task_spec;
mod task_state;

pub(crate) use endpoints::{
    DrainView, EndpointDetail, EndpointStatus, EndpointSummary, InstanceView, QueueState, Removed,
    StateRecord, Told, active, status,
};
pub(crate) use health::{Anomalies, QueueHazard};
pub(crate) use name_pattern::NamePattern;
pub(crate) use progress::Progress;
pub(crate) use progress_rate::ProgressRate;
pub(crate) use records::{Asked, Missing, Recorded, TaskDetail, TaskOutcome, TaskSummary, Waits};
pub(crate) use retry_policy::RetryPolicy;
pub(crate) use task_spec::TaskSpec;
pub(crate) use task_state::TaskState;

/// A part of a listing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Page<T> {
    /// The listed items.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; nothing after the last.
    pub(crate) next: Option<u64>,
}
