//! Topics as they are shown to people and programs: their members, why some of these are given no
//! work, and what waits. Pure.
//!
//! A *member* of a topic is an endpoint of which the file names the topic; of its instances, the
//! active one counts. A *worker* is a member that is there and takes work, busy or not.

use super::{EndpointStatus, TopicCandidate, Why};
use clutch_common::id::{EndpointId, StateId};
use clutch_common::wire::FunctionOffer;
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

impl WhyNone {
    /// The words for people, after the member's name.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Drains => "drains".to_owned(),
            Self::Clock { behind_ms } => {
                let is = if behind_ms > 0 { "behind" } else { "ahead of" };
                let seconds = behind_ms.unsigned_abs() / 1000;
                format!("has a clock that is {seconds} s {is} the service's")
            }
            Self::Away => "is away".to_owned(),
            Self::Unheard => "was not heard for a while, and is looked at".to_owned(),
            Self::NotTaken => "has a queue that took nothing, and is tried again".to_owned(),
            Self::NoCredit => "holds as much as its credit".to_owned(),
        }
    }

    /// Whether the member takes work all the same, later.
    pub(crate) fn passes(self) -> bool {
        matches!(self, Self::NotTaken | Self::NoCredit | Self::Unheard)
    }
}

/// A member of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicMemberView {
    /// The endpoint's id.
    pub(crate) endpoint: EndpointId,
    /// Its name.
    pub(crate) name: String,
    /// How it is.
    pub(crate) status: EndpointStatus,
    /// The state folder of its instance.
    pub(crate) instance: StateId,
    /// The host of that.
    pub(crate) host: String,
    /// How many tasks it runs at once.
    pub(crate) slots: u64,
    /// How many slots the tasks of topics take that it holds.
    pub(crate) held: u64,
    /// How many they may take.
    pub(crate) credit: u64,
    /// The functions that it names.
    pub(crate) functions: Vec<FunctionOffer>,
    /// Those that it named, and answered it does not offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) withheld: Vec<String>,
    /// When it was heard last, in milliseconds since the Unix epoch.
    pub(crate) last_heard_ms: u64,
    /// Why it is given no work, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why_none: Option<WhyNone>,
}

impl TopicMemberView {
    /// Whether it is there and takes work, busy or not.
    pub(crate) fn is_worker(&self) -> bool {
        self.why_none.is_none_or(WhyNone::passes)
    }

    /// It, as far as a cause is told by it.
    pub(crate) fn candidate(&self) -> TopicCandidate {
        let mut functions = self.functions.clone();
        functions.retain(|offer| !self.withheld.contains(&offer.name));
        TopicCandidate {
            name: self.name.clone(),
            functions,
            held: self.held,
            credit: self.credit,
            why_none: self.why_none,
        }
    }
}

/// The tasks of a topic that wait to be placed and ask for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct WaitingView {
    /// The function; none of processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    /// Its version, if one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// How many wait.
    pub(crate) tasks: u64,
    /// Why.
    pub(crate) why: Why,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicView {
    /// Its name.
    pub(crate) name: String,
    /// How many of its members are there and take work, busy or not.
    pub(crate) workers: u64,
    /// Its members, by name.
    pub(crate) members: Vec<TopicMemberView>,
    /// The tasks that wait to be placed, by kind.
    pub(crate) waiting: Vec<WaitingView>,
    /// How many tasks are placed and have no outcome.
    pub(crate) placed: u64,
}

impl TopicView {
    /// How many tasks wait to be placed.
    pub(crate) fn waiting_tasks(&self) -> u64 {
        self.waiting.iter().map(|kind| kind.tasks).sum()
    }
}

/// Where a task of a topic was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PlacementView {
    /// The function that it asks for; none of a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    /// The version of that, if it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// The member that has it, or that its last attempt was given to; none while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) member: Option<PlacedAt>,
    /// When it was placed, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) placed_at_ms: Option<u64>,
    /// By when it must be claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_by_ms: Option<u64>,
    /// Whether it is recorded as claimed; one that ended at once may not be.
    pub(crate) claimed: bool,
    /// By when it ends as expired, if it is not placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place_by_ms: Option<u64>,
    /// The members that earlier attempts were given to, the first attempt first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) earlier: Vec<PlacedAt>,
}

/// An attempt at a task, and the member that it was given to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PlacedAt {
    /// The attempt.
    pub(crate) attempt: u32,
    /// The endpoint's id.
    pub(crate) endpoint: EndpointId,
    /// Its name; its id where it is not known any more.
    pub(crate) name: String,
}

/// A topic in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicSummary {
    /// Its name.
    pub(crate) name: String,
    /// How many of its members are there and take work, busy or not.
    pub(crate) workers: u64,
    /// How many endpoints are members of it.
    pub(crate) members: u64,
    /// How many slots the tasks of topics take that its members hold.
    pub(crate) held: u64,
    /// How many they may take.
    pub(crate) credit: u64,
    /// How many tasks wait to be placed.
    pub(crate) waiting: u64,
    /// How many are placed and have no outcome.
    pub(crate) placed: u64,
    /// Why those wait of which the most ask for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<Why>,
}

impl From<&TopicView> for TopicSummary {
    fn from(topic: &TopicView) -> Self {
        let sum = |of: fn(&TopicMemberView) -> u64| topic.members.iter().map(of).sum();
        Self {
            name: topic.name.clone(),
            workers: topic.workers,
            members: topic.members.len() as u64,
            held: sum(|member| member.held),
            credit: sum(|member| member.credit),
            waiting: topic.waiting_tasks(),
            placed: topic.placed,
            why: topic.waiting.iter().max_by_key(|kind| kind.tasks).map(|kind| kind.why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_busy_is_a_worker_and_one_that_takes_nothing_is_not() {
        let member = |why_none| TopicMemberView {
            endpoint: EndpointId::new(),
            name: "a".to_owned(),
            status: EndpointStatus::Online,
            instance: StateId::new(),
            host: "h".to_owned(),
            slots: 4,
            held: 4,
            credit: 4,
            functions: ["f", "g"]
                .map(|name| FunctionOffer { name: name.to_owned(), version: None })
                .to_vec(),
            withheld: vec!["g".to_owned()],
            last_heard_ms: 1,
            why_none,
        };
        for (why_none, expected) in [
            (None, true),
            (Some(WhyNone::NoCredit), true),
            (Some(WhyNone::NotTaken), true),
            (Some(WhyNone::Drains), false),
            (Some(WhyNone::Away), false),
            (Some(WhyNone::Clock { behind_ms: 20_000 }), false),
        ] {
            assert_eq!(member(why_none).is_worker(), expected, "{why_none:?}");
        }
        let names: Vec<String> =
            member(None).candidate().functions.into_iter().map(|offer| offer.name).collect();
        assert_eq!(names, ["f"], "what it does not offer is not counted on");
        let text = serde_json::to_value(member(Some(WhyNone::Drains))).unwrap();
        assert_eq!(text["why_none"]["why"], "drains");
    }
}
