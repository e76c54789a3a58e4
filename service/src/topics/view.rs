//! What the board shows of topics to people. Pure.

use clutch_common::id::EndpointId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a member is given no work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "why")]
pub(crate) enum WhyNone {
    /// It drains.
    Drains,
    /// Its clock is too far from the service's.
    Clock {
        /// How far it is behind; ahead if this is negative.
        behind_ms: i64,
    },
    /// Nothing reads its task queue.
    Away,
    /// It was not heard for a while, and its queue was not looked at yet.
    Unheard,
    /// The broker did not take what was published to its queue, and it is tried again.
    NotTaken,
    /// It holds as much as its credit.
    NoCredit,
}

/// A member, and how much work it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MemberView {
    /// The endpoint's id.
    pub(crate) endpoint: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// Its topics.
    pub(crate) topics: Vec<String>,
    /// How many slots the tasks of topics take that it holds.
    pub(crate) held: u64,
    /// How many they may take.
    pub(crate) credit: u64,
    /// How many slots' worth of them end in a second.
    pub(crate) rate: f64,
    /// When it was heard, or its queue seen to be read, last.
    pub(crate) heard_at_ms: u64,
    /// Why it is given none, if so.
    pub(crate) why_none: Option<WhyNone>,
    /// Functions that it named and answered it does not offer.
    pub(crate) withheld: Vec<String>,
}

/// The members of all topics, by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicView {
    /// The members.
    pub(crate) members: Vec<MemberView>,
}
