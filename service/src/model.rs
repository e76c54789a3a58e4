//! The domain types of the service: tasks, their states, and what is recorded of them.
//! Records, publishing, failover and API are made from them; they know none of these. Pure.

mod due_time;
mod endpoints;
mod family;
mod feed_event;
mod health;
mod kept_message;
mod live;
mod name_pattern;
mod progress;
mod progress_rate;
mod records;
mod retry_policy;
mod rings;
mod schedule_fields;
mod schedules;
mod shell_word;
mod task_spec;
mod task_state;
mod timeline;
mod topic_views;
mod topics;
mod why;

pub(crate) use due_time::DueTime;
pub(crate) use endpoints::{
    CancelsView, DrainView, EndpointDetail, EndpointStatus, EndpointSummary, InstanceView,
    QueueState, Removed, StateRecord, Told, active, status,
};
pub(crate) use family::{Family, Relative};
pub(crate) use feed_event::{FeedEvent, FeedKind, FeedTask};
pub(crate) use health::{Anomalies, QueueHazard};
pub(crate) use kept_message::{MessageState, MessageView};
pub(crate) use live::{LiveLoad, LiveTask, progress_words};
pub(crate) use name_pattern::NamePattern;
pub(crate) use progress::Progress;
pub(crate) use progress_rate::ProgressRate;
pub(crate) use records::{Asked, Missing, Recorded, TaskDetail, TaskOutcome, TaskSummary};
pub(crate) use retry_policy::RetryPolicy;
pub(crate) use rings::{ring_of, rings};
pub(crate) use schedule_fields::{differences, fields};
pub(crate) use schedules::{
    ChangedSchedule, NamedSchedule, Occurrence, RemovedSchedule, ScheduleChange, ScheduleDetail,
    ScheduleSpec, ScheduleSummary,
};
pub(crate) use shell_word::quoted;
pub(crate) use task_spec::TaskSpec;
pub(crate) use task_state::TaskState;
pub(crate) use timeline::{TimelineStep, timeline};
pub(crate) use topic_views::{
    PlacedAt, PlacementView, TopicMemberView, TopicSummary, TopicView, WaitingView, WhyNone,
};
pub(crate) use topics::{
    Destination, EarlierPlacement, PlacementRecord, TopicMember, TopicOrder, TopicRecord,
    WaitingKind, topic_id,
};
#[cfg(test)]
pub(crate) use why::WaitCause;
pub(crate) use why::{Placement, TopicCandidate, TopicFacts, WaitFacts, Why, unplaced_why, why};

/// A moment as people read it.
pub(crate) fn moment(ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Page<T> {
    /// The listed items.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; nothing after the last.
    pub(crate) next: Option<u64>,
}
