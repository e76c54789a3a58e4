//! A member: what it can do, what it holds, and whether it is given work. Pure.

use super::credit::{self, Rate};
use crate::model::WhyNone;
use clutch_common::id::EndpointId;
use clutch_common::task::BUILT_IN;
use clutch_common::task::topic::CLOCK_TOLERANCE;
use clutch_common::wire::FunctionOffer;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a member that was heard counts as there.
pub(super) const HEARD_LASTS_MS: u64 = 30_000;

/// The facts that a member told of itself, and that are recorded of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberFacts {
    /// Its name.
    pub(crate) name: String,
    /// How many tasks it runs at once.
    pub(crate) slots: u64,
    /// Its topics.
    pub(crate) topics: Vec<String>,
    /// Its functions.
    pub(crate) functions: Vec<FunctionOffer>,
    /// Whether it drains.
    pub(crate) draining: bool,
    /// How far its clock is behind the service's.
    pub(crate) clock_offset_ms: Option<i64>,
    /// How long it may be silent and away until what it claimed is lost.
    pub(crate) lost_after: Duration,
    /// When it told this.
    pub(crate) told_at_ms: u64,
}

/// The answer of the broker about a member's task queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueReader {
    /// It is read.
    There,
    /// Nothing reads it.
    Away,
    /// It could not be told.
    Unknown,
}

/// The offer of members that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Offer {
    topics: Vec<String>,
    functions: Vec<FunctionOffer>,
    /// The kinds, by number, that the member answered it does not offer.
    withheld: BTreeSet<i64>,
}

impl Offer {
    /// The kinds that it is known not to have, though the member names them.
    pub(super) fn withheld(&self) -> impl Iterator<Item = &i64> {
        self.withheld.iter()
    }

    /// Whether the member answered that it does not offer a kind, by its number.
    pub(super) fn withholds(&self, kind: i64) -> bool {
        self.withheld.contains(&kind)
    }

    /// Whether it has a kind of tasks. Each endpoint has the functions that are built in.
    pub(super) fn has(&self, number: i64, kind: &super::TaskKind) -> bool {
        self.topics.contains(&kind.topic)
            && !self.withheld.contains(&number)
            && kind.function.as_ref().filter(|name| !name.starts_with(BUILT_IN)).is_none_or(
                |name| {
                    let wanted = kind.version.as_ref();
                    self.functions.iter().any(|offer| {
                        offer.name == *name
                            && (wanted.is_none() || offer.version.as_ref() == wanted)
                    })
                },
            )
    }
}

/// Where a member stands among those that are alike: the least loaded first, of these the largest.
pub(super) type Load = (u64, Reverse<u64>, EndpointId);

/// A member of topics.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) facts: MemberFacts,
    pub(super) offer: Offer,
    /// The number of those that are alike.
    pub(super) class: Option<u64>,
    /// The tasks that it holds, by row.
    pub(super) tasks: BTreeSet<i64>,
    /// How many slots these take.
    pub(super) held: u64,
    pub(super) rate: Rate,
    pub(super) heard_ms: u64,
    /// Since when its queue is known to have no reader.
    pub(super) away_since_ms: Option<u64>,
    /// When it was looked at last.
    pub(super) looked_ms: Option<u64>,
    /// Until when its queue is not tried.
    pub(super) blocked_until_ms: Option<u64>,
    /// Where it is filed, if it may be given work.
    pub(super) filed: Option<Load>,
}

impl Member {
    pub(super) fn new(facts: MemberFacts) -> Self {
        let offer = offer(&facts);
        Self {
            heard_ms: facts.told_at_ms,
            facts,
            offer,
            class: None,
            tasks: BTreeSet::new(),
            held: 0,
            rate: Rate::default(),
            away_since_ms: None,
            looked_ms: None,
            blocked_until_ms: None,
            filed: None,
        }
    }

    /// Takes in what it tells anew: it may offer again what it did not.
    pub(super) fn told(&mut self, facts: MemberFacts) {
        self.heard_ms = self.heard_ms.max(facts.told_at_ms);
        self.away_since_ms = None;
        self.offer = offer(&facts);
        self.facts = facts;
    }

    /// Drops a kind from what it offers.
    pub(super) fn withhold(&mut self, kind: i64) {
        self.offer.withheld.insert(kind);
    }

    pub(super) fn credit(&self, lookahead: Duration, now_ms: u64) -> u64 {
        credit::credit(self.facts.slots, self.rate, lookahead, now_ms)
    }

    /// Whether a task of so many cores goes beside what it holds.
    pub(super) fn has_room(&self, cores: u64, lookahead: Duration, now_ms: u64) -> bool {
        cores <= self.facts.slots && self.held + cores <= self.credit(lookahead, now_ms)
    }

    /// Whether it was heard, or its queue seen to be read, a moment ago.
    pub(super) fn is_fresh(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.heard_ms) <= HEARD_LASTS_MS
    }

    /// When what it claimed is lost, if it is away and holds anything.
    pub(super) fn lost_at_ms(&self) -> Option<u64> {
        let since = self.away_since_ms.filter(|_| !self.tasks.is_empty())?.max(self.heard_ms);
        let after = u64::try_from(self.facts.lost_after.as_millis()).unwrap_or(u64::MAX);
        Some(since.saturating_add(after))
    }

    /// Its place among those that are alike; none while it is given no work.
    pub(super) fn load(&self, id: EndpointId, lookahead: Duration, now_ms: u64) -> Option<Load> {
        if self.obstacle(lookahead, now_ms).is_some() {
            return None;
        }
        let credit = self.credit(lookahead, now_ms).max(1);
        Some(((self.held << 20) / credit, Reverse(credit), id))
    }

    /// Why it is given no work, if so.
    pub(super) fn obstacle(&self, lookahead: Duration, now_ms: u64) -> Option<WhyNone> {
        let tolerance = i64::try_from(CLOCK_TOLERANCE.as_millis()).unwrap_or(i64::MAX);
        let offset = self.facts.clock_offset_ms.unwrap_or(0);
        if self.facts.draining {
            Some(WhyNone::Drains)
        } else if offset.abs() > tolerance {
            Some(WhyNone::Clock { behind_ms: offset })
        } else if self.away_since_ms.is_some() {
            Some(WhyNone::Away)
        } else if self.blocked_until_ms.is_some_and(|until| now_ms < until) {
            Some(WhyNone::NotTaken)
        } else if self.held >= self.credit(lookahead, now_ms) {
            Some(WhyNone::NoCredit)
        } else {
            None
        }
    }
}

fn offer(facts: &MemberFacts) -> Offer {
    let withheld = BTreeSet::new();
    Offer { topics: facts.topics.clone(), functions: facts.functions.clone(), withheld }
}
