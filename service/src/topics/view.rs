//! The members of topics as people see them. Pure.

use crate::model::WhyNone;
use clutch_common::id::EndpointId;

/// A member, and how much work it has.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BoardView {
    /// The members.
    pub(crate) members: Vec<MemberView>,
}
