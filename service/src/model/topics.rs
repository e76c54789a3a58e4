//! Topics as they are asked for and shown: where a submission goes, what waits in a topic, and
//! where a task of a topic was placed. Pure.
//!
//! A *topic task* is submitted to a topic instead of an endpoint. A *member* is an endpoint of
//! which the file names the topic. A task is *placed* when it is given to a member.

use clutch_common::id::EndpointId;
use clutch_common::wire::FunctionOffer;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The space of the ids that stand for topics.
const NAMESPACE: Uuid = Uuid::from_u128(0x3c8f_a1d2_54be_4b0e_8d2f_7be0_9a61_5f04);

/// The recipient of a submission's tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// An endpoint, by name or id.
    Endpoint(String),
    /// A topic.
    Topic(TopicOrder),
}

/// The terms on which tasks are submitted to a topic; the function is that of each task's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicOrder {
    /// The topic's name.
    pub(crate) topic: String,
    /// The version of the function that is asked for, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// How long a placed attempt may take to start, in milliseconds.
    pub(crate) start_within_ms: u64,
    /// How long a task may wait to be placed; for any time if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place_within_ms: Option<u64>,
}

/// The id that stands for a topic where an endpoint's is looked for: in the rows of tasks that
/// are not placed, and of submissions. No endpoint has it.
pub(crate) fn topic_id(name: &str) -> EndpointId {
    EndpointId(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
}

/// A topic, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicRecord {
    /// Its name.
    pub(crate) name: String,
    /// The tasks that wait to be placed, by function and version.
    pub(crate) waiting: Vec<WaitingKind>,
    /// How many tasks are placed and have no outcome.
    pub(crate) placed: u64,
    /// The endpoints that name it.
    pub(crate) members: Vec<TopicMember>,
}

/// The tasks of a topic that wait to be placed and ask for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct WaitingKind {
    /// The function; none of processes.
    pub(crate) function: Option<String>,
    /// Its version, if one is asked for.
    pub(crate) version: Option<String>,
    /// How many wait.
    pub(crate) tasks: u64,
}

/// A member of a topic, as its active instance told last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicMember {
    /// The endpoint's id.
    pub(crate) endpoint: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// How many tasks it runs at once.
    pub(crate) slots: u64,
    /// The functions that it names.
    pub(crate) functions: Vec<FunctionOffer>,
    /// Whether it drains.
    pub(crate) draining: bool,
    /// How far its clock is behind the service's, in milliseconds.
    pub(crate) clock_offset_ms: Option<i64>,
}

/// The placement of a topic task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PlacementRecord {
    /// The topic.
    pub(crate) topic: String,
    /// The function that it asks for; none of a process.
    pub(crate) function: Option<String>,
    /// The version of it.
    pub(crate) version: Option<String>,
    /// The member that has it, or had its last attempt; none while it waits.
    pub(crate) member: Option<EndpointId>,
    /// The attempt.
    pub(crate) attempt: u32,
    /// When it was placed.
    pub(crate) placed_at_ms: Option<u64>,
    /// By when it must be claimed.
    pub(crate) start_by_ms: Option<u64>,
    /// Whether it is recorded as claimed; one that ended at once may not be.
    pub(crate) claimed: bool,
    /// By when it ends as expired, if it is not placed.
    pub(crate) place_by_ms: Option<u64>,
    /// Its earlier placements, the first one first.
    pub(crate) earlier: Vec<EarlierPlacement>,
}

/// An attempt at a topic task that was placed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct EarlierPlacement {
    /// The attempt.
    pub(crate) attempt: u32,
    /// The member that it was given to.
    pub(crate) member: EndpointId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_one_id_and_no_other_topic_has_it() {
        assert_eq!(topic_id("cloud"), topic_id("cloud"));
        assert_ne!(topic_id("cloud"), topic_id("Cloud"));
    }
}
