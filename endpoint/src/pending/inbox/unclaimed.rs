//! The attempts of topics that are not claimed. Pure.
//!
//! An attempt is *claimed* once the service can read, in what the broker has confirmed, that
//! it will start here; it waits for a slot only then, in its proper place. So what is not
//! claimed at its moment never starts, and can be placed elsewhere.
//!
//! As much is claimed as will start within a moment: what free slots take, and as much as
//! started within the time ahead. Calls of a function of which no more may run are counted for
//! that function alone, so that they keep no slot from others. Those of higher priority are
//! claimed first, of one priority those that came first. One message of claims is under way at
//! a time: what comes meanwhile goes into the next.

use super::{FreeSlots, Held, Inbox, cores, function, level};
use crate::pending::offer::Offer;
use crate::storage::journal::Seq;
use clutch_common::id::Attempt;
use clutch_common::task::Task;
use clutch_common::task::priority::Priority;
use clutch_common::wire::CLAIMS_MAX;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The time between two samples of what has started, at least.
const SAMPLE: Duration = Duration::from_millis(5);

/// The order in which attempts are claimed.
type Rank = (Reverse<Priority>, Seq);

/// The attempts that are not claimed.
#[derive(Debug, Default)]
pub(super) struct Unclaimed {
    waiting: BTreeMap<Rank, Held>,
    /// Those in a message of claims that is under way.
    asked: BTreeMap<Seq, Held>,
    /// Those that the endpoint does not offer, each with why.
    refused: Vec<(Held, String)>,
    /// A moment not after that of the first that waits.
    due_ms: Option<u64>,
    /// The topics and functions; nothing before they are known.
    offer: Option<Arc<Offer>>,
    /// The slots of all attempts of topics that have started.
    started: u64,
    /// Samples of `started`, each with its moment.
    samples: VecDeque<(Duration, u64)>,
}

/// Why an attempt does not start here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum GiveUp {
    /// It was not claimed in time.
    Late,
    /// The endpoint starts nothing more, or nothing for a while.
    Closed,
    /// The endpoint does not offer its topic or function, for this reason.
    NotOffered(String),
}

/// A moment at which attempts are claimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimMoment {
    /// A clock that is never set.
    pub(crate) uptime: Duration,
    /// For how long it is claimed ahead.
    pub(crate) ahead: Duration,
}

impl Unclaimed {
    fn put(&mut self, held: Held) {
        let lacks = self.offer.as_ref().and_then(|offer| offer.lacks(&held.task));
        match lacks {
            Some(why) => self.refused.push((held, why)),
            None => {
                self.due_ms = self.due_ms.into_iter().chain(start_by_ms(&held.task)).min();
                self.waiting.insert(rank(&held), held);
            }
        }
    }

    /// Those in all states.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        let refused = self.refused.iter().map(|(held, _)| held);
        self.waiting.values().chain(self.asked.values()).chain(refused)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty() && self.refused.is_empty()
    }

    /// Removes all.
    pub(super) fn take_all(&mut self) -> Vec<Held> {
        self.due_ms = None;
        let waiting = std::mem::take(&mut self.waiting).into_values();
        let asked = std::mem::take(&mut self.asked).into_values();
        let refused = std::mem::take(&mut self.refused).into_iter().map(|(held, _)| held);
        waiting.chain(asked).chain(refused).collect()
    }

    /// Removes those of a kind.
    pub(super) fn remove(&mut self, is_gone: impl Fn(&Held) -> bool) -> Vec<Held> {
        let mut gone: Vec<Held> =
            self.waiting.extract_if(.., |_, held| is_gone(held)).map(|(_, held)| held).collect();
        gone.extend(self.asked.extract_if(.., |_, held| is_gone(held)).map(|(_, held)| held));
        gone.extend(self.refused.extract_if(.., |(held, _)| is_gone(held)).map(|(held, _)| held));
        gone
    }

    /// Notes that a task has started.
    pub(super) fn starts(&mut self, task: &Task) {
        if task.topic.is_some() {
            self.started += cores(task) as u64;
        }
    }

    /// How many slots the attempts took that started within the time ahead.
    fn recent(&mut self, moment: ClaimMoment) -> usize {
        let ClaimMoment { uptime, ahead } = moment;
        let age = |sample: &(Duration, u64)| uptime.saturating_sub(sample.0);
        self.samples.retain(|sample| age(sample) <= ahead * 2);
        while self.samples.get(1).is_some_and(|second| age(second) >= ahead) {
            self.samples.pop_front();
        }
        if self.samples.back().is_none_or(|last| age(last) >= SAMPLE) {
            self.samples.push_back((uptime, self.started));
        }
        let before = self.samples.front().map_or(self.started, |(_, started)| *started);
        usize::try_from(self.started - before).unwrap_or(usize::MAX)
    }
}

impl Inbox {
    /// Has the endpoint judge by this offer, also what is here.
    pub(crate) fn set_offer(&mut self, offer: Arc<Offer>) {
        self.unclaimed.offer = Some(offer);
        let refused = std::mem::take(&mut self.unclaimed.refused).into_iter().map(|(held, _)| held);
        let all: Vec<Held> =
            std::mem::take(&mut self.unclaimed.waiting).into_values().chain(refused).collect();
        self.unclaimed.due_ms = None;
        all.into_iter().for_each(|held| self.unclaimed.put(held));
    }

    /// Lets a task wait for a slot, or for its claim if it is of a topic. One that has run
    /// before had been claimed.
    pub(super) fn enter(&mut self, held: Held) {
        if held.task.topic.is_some() && !held.started && held.deaths.count == 0 {
            self.unclaimed.put(held);
        } else {
            self.queue(held);
        }
    }

    /// Whether attempts wait to be claimed, or to be given up.
    pub(crate) fn has_unclaimed(&self) -> bool {
        !self.unclaimed.waiting.is_empty() || !self.unclaimed.refused.is_empty()
    }

    /// The attempts to be claimed at a moment, of those that have slots enough; none while a
    /// message of claims is under way, or while nothing may start.
    pub(crate) fn ask_claims(
        &mut self,
        slots: FreeSlots,
        moment: ClaimMoment,
    ) -> Vec<(Seq, Attempt)> {
        if self.shut || self.unclaimed.waiting.is_empty() || !self.unclaimed.asked.is_empty() {
            return Vec::new();
        }
        let recent = self.unclaimed.recent(moment);
        let mut room = slots.free.saturating_add(recent).saturating_sub(self.claimed());
        let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
        let mut chosen = Vec::new();
        for (rank, held) in &self.unclaimed.waiting {
            if room == 0 || chosen.len() == CLAIMS_MAX {
                break;
            }
            let name = function(&held.task);
            if let Some(limited) = self.limited.get(name) {
                let calls = calls.entry(name).or_default();
                let there = limited.running + limited.waiting.claimed() + *calls;
                if there >= limited.max.saturating_add(recent) {
                    continue;
                }
                *calls += 1;
            }
            let cores = cores(&held.task);
            let takes = if cores > slots.all { 1 } else { cores };
            if takes > room {
                break;
            }
            room -= takes;
            chosen.push(*rank);
        }
        let mut asked = Vec::with_capacity(chosen.len());
        for rank in chosen {
            if let Some(held) = self.unclaimed.waiting.remove(&rank) {
                asked.push((held.seq, held.task.attempt()));
                self.unclaimed.asked.insert(held.seq, held);
            }
        }
        asked
    }

    /// Takes in that the broker has confirmed claims: those that are in time wait for a slot,
    /// in their place; the others can only be given up. True if one waits for a slot.
    pub(crate) fn claims_confirmed(&mut self, seqs: &[Seq], now_ms: u64) -> bool {
        let mut any = false;
        for seq in seqs {
            let Some(held) = self.unclaimed.asked.remove(seq) else { continue };
            if held.task.topic.as_ref().is_none_or(|terms| terms.may_start(now_ms)) {
                self.queue_of(&held).put_back(held);
                any = true;
            } else {
                self.unclaimed.put(held);
            }
        }
        any
    }

    /// Has attempts claimed again of which the claims may not have reached the broker.
    pub(crate) fn claims_failed(&mut self) {
        let asked = std::mem::take(&mut self.unclaimed.asked);
        asked.into_values().for_each(|held| self.unclaimed.put(held));
    }

    /// When the first attempt may have to be given up.
    pub(crate) fn claims_due_ms(&self) -> Option<u64> {
        let refused = (!self.unclaimed.refused.is_empty()).then_some(0);
        refused.or(self.unclaimed.due_ms).filter(|_| !self.shut)
    }

    /// Removes the attempts that were not claimed in time and those that are not offered, and
    /// frees their room; `closed` says that nothing more is claimed. While nothing may start, what
    /// is here may have run, and stays.
    pub(crate) fn give_up(&mut self, now_ms: u64, closed: bool) -> Vec<(Held, GiveUp)> {
        if self.shut {
            return Vec::new();
        }
        let late =
            |held: &Held| !held.task.topic.as_ref().is_some_and(|terms| terms.may_start(now_ms));
        let unclaimed = &mut self.unclaimed;
        let refused = std::mem::take(&mut unclaimed.refused).into_iter();
        let mut all: Vec<(Held, GiveUp)> =
            refused.map(|(held, why)| (held, GiveUp::NotOffered(why))).collect();
        let gone = unclaimed.waiting.extract_if(.., |_, held| closed || late(held));
        all.extend(gone.map(|(_, held)| {
            let why = if late(&held) { GiveUp::Late } else { GiveUp::Closed };
            (held, why)
        }));
        unclaimed.due_ms =
            unclaimed.waiting.values().filter_map(|held| start_by_ms(&held.task)).min();
        all.iter().for_each(|(held, _)| self.dismiss(&held.task));
        all
    }

    /// How many slots the claimed attempts take that wait for one, and will have it in turn.
    fn claimed(&self) -> usize {
        let calls = self.limited.values().filter(|function| !function.is_busy());
        let calls: usize = calls.map(|function| function.waiting.claimed()).sum();
        self.waiting.claimed() + self.suspected.claimed() + calls
    }
}

/// How many slots a task takes of those that are claimed.
pub(super) fn claimed_cores(task: &Task) -> usize {
    if task.topic.is_some() { cores(task) } else { 0 }
}

fn rank(held: &Held) -> Rank {
    (Reverse(level(held)), held.seq)
}

/// The last moment at which an attempt may be claimed; just after it, it is to be given up.
fn start_by_ms(task: &Task) -> Option<u64> {
    task.topic.as_ref().map(|terms| terms.start_by_ms)
}

#[cfg(test)]
mod tests;
