//! The catalogue: the members, filed by what they offer and how loaded they are, the kinds of
//! which tasks may wait, and what is placed. Pure.
//!
//! Promises: to find a member for a task, and to note what changes for one, costs a look-up among
//! those that are alike, however many there are. A member that was not heard for a while is set
//! apart until it is seen.

use super::credit::LOOKAHEAD;
use super::member::{Load, Member, MemberFacts, Offer, QueueReader};
use super::view::{BoardView, MemberView};
use crate::model::WhyNone;
use clutch_common::id::EndpointId;
use clutch_common::task::priority::Priority;
use clutch_common::task::topic::CLOCK_MARGIN;
use clutch_common::task::turns::Turns;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A kind of tasks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskKind {
    /// The topic.
    pub(crate) topic: String,
    /// The function; none of processes.
    pub(crate) function: Option<String>,
    /// Its version, if one is asked for.
    pub(crate) version: Option<String>,
}

/// A placed task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskPlacement {
    /// The member that has it.
    pub(crate) member: EndpointId,
    /// Its kind.
    pub(crate) kind: i64,
    /// The attempt.
    pub(crate) attempt: u32,
    /// How many slots it takes.
    pub(crate) cores: u64,
    /// By when it must be claimed.
    pub(crate) start_by_ms: u64,
    /// Whether it is.
    pub(crate) claimed: bool,
}

/// Members that are alike.
#[derive(Debug)]
pub(super) struct Class {
    offer: Offer,
    /// Those that may be given work and may be there.
    ready: BTreeSet<Load>,
    /// Those that may be given work and are to be looked at before.
    pub(super) unseen: BTreeSet<Load>,
    /// How many members there are in all.
    members: usize,
}

/// The members, the kinds and the placed tasks.
#[derive(Debug)]
pub(crate) struct Catalogue {
    pub(super) lookahead: Duration,
    /// How far the clocks of members may be from the service's.
    pub(super) margin: Duration,
    pub(super) kinds: BTreeMap<i64, TaskKind>,
    /// The kinds, with a priority, of which tasks may wait.
    pub(super) open: BTreeSet<(i64, Priority)>,
    pub(super) turns: BTreeMap<String, Turns>,
    /// The topic that was the last one to have its turn.
    pub(super) last_topic: Option<String>,
    pub(super) members: BTreeMap<EndpointId, Member>,
    pub(super) classes: BTreeMap<u64, Class>,
    class_numbers: BTreeMap<Offer, u64>,
    next_class: u64,
    /// The classes that can do a kind, as far as they were looked up.
    able: BTreeMap<i64, Vec<u64>>,
    pub(super) placed: BTreeMap<i64, TaskPlacement>,
    /// The tasks that are not claimed, by when they must be.
    pub(super) unclaimed: BTreeSet<(u64, i64)>,
    /// Placed by a transaction that is not committed.
    uncommitted: Vec<i64>,
    next_expiry_ms: Option<u64>,
    /// The moment that was told last.
    now_ms: u64,
    blocked: BTreeSet<(u64, EndpointId)>,
    /// The members that are known to be away.
    pub(super) away: BTreeSet<EndpointId>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            lookahead: LOOKAHEAD,
            margin: CLOCK_MARGIN,
            kinds: BTreeMap::new(),
            open: BTreeSet::new(),
            turns: BTreeMap::new(),
            last_topic: None,
            members: BTreeMap::new(),
            classes: BTreeMap::new(),
            class_numbers: BTreeMap::new(),
            next_class: 0,
            able: BTreeMap::new(),
            placed: BTreeMap::new(),
            unclaimed: BTreeSet::new(),
            uncommitted: Vec::new(),
            next_expiry_ms: None,
            now_ms: 0,
            blocked: BTreeSet::new(),
            away: BTreeSet::new(),
        }
    }
}

impl Catalogue {
    /// Sets how far ahead members have work, before there are any.
    pub(crate) fn look_ahead(&mut self, lookahead: Duration, margin: Duration) {
        (self.lookahead, self.margin) = (lookahead, margin);
    }

    /// Whether there are members.
    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Notes when a task that waits may expire; with nothing, that none does.
    pub(crate) fn may_expire(&mut self, at_ms: Option<u64>) {
        self.next_expiry_ms = at_ms.map(|at| self.next_expiry_ms.map_or(at, |next| next.min(at)));
    }

    /// When the next task may expire.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.next_expiry_ms
    }

    /// Notes that members are looked at.
    pub(crate) fn looking(&mut self, ids: &[EndpointId], now_ms: u64) {
        for id in ids {
            if let Some(member) = self.members.get_mut(id) {
                member.looked_ms = Some(now_ms);
            }
        }
    }

    /// Whether tasks may wait.
    pub(crate) fn may_place(&self) -> bool {
        !self.open.is_empty()
    }

    /// Adds a kind of tasks.
    pub(crate) fn kind(&mut self, number: i64, kind: TaskKind) {
        self.kinds.insert(number, kind);
    }

    /// Takes in what a member tells; one that names no topic and holds nothing is none.
    pub(crate) fn told(&mut self, id: EndpointId, facts: MemberFacts, now_ms: u64) {
        self.leave(id);
        self.away.remove(&id);
        match self.members.get_mut(&id) {
            Some(member) => member.told(facts),
            None => drop(self.members.insert(id, Member::new(facts))),
        }
        let holds = |member: &Member| !member.facts.topics.is_empty() || member.held > 0;
        if self.members.get(&id).is_some_and(holds) {
            self.join(id, now_ms);
        } else {
            self.members.remove(&id);
        }
    }

    /// Forgets a member that was removed.
    pub(crate) fn removed(&mut self, id: EndpointId) {
        self.leave(id);
        self.away.remove(&id);
        self.members.remove(&id);
    }

    /// Drops a kind from what a member offers, until it tells that anew.
    pub(crate) fn withhold(&mut self, id: EndpointId, kind: i64, now_ms: u64) {
        self.leave(id);
        if let Some(member) = self.members.get_mut(&id) {
            member.withhold(kind);
            self.join(id, now_ms);
        }
    }

    /// Notes that endpoints have sent something; returns whether one of them may be given work
    /// by that.
    pub(crate) fn heard(&mut self, ids: impl IntoIterator<Item = EndpointId>, now_ms: u64) -> bool {
        let mut news = false;
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            let was_there = member.is_fresh(now_ms) && member.away_since_ms.is_none();
            member.heard_ms = member.heard_ms.max(now_ms);
            member.away_since_ms = None;
            self.away.remove(&id);
            if !was_there {
                self.file(id, now_ms);
                news = true;
            }
        }
        news
    }

    /// Notes what the broker says of a member's queue.
    pub(crate) fn seen(&mut self, id: EndpointId, seen: QueueReader, now_ms: u64) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.looked_ms = Some(now_ms);
        match seen {
            QueueReader::There => {
                member.heard_ms = now_ms;
                member.away_since_ms = None;
                self.away.remove(&id);
            }
            QueueReader::Away => {
                member.away_since_ms.get_or_insert(now_ms);
                self.away.insert(id);
            }
            QueueReader::Unknown => (),
        }
        self.file(id, now_ms);
    }

    /// Gives a member no work until a moment: its queue does not take it.
    pub(crate) fn block(&mut self, id: EndpointId, until_ms: u64, now_ms: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.blocked_until_ms = Some(until_ms);
            self.blocked.insert((until_ms, id));
            self.file(id, now_ms);
        }
    }

    /// Files again the members of which the pause is over; says when the next one's is.
    pub(crate) fn unblock(&mut self, now_ms: u64) -> Option<u64> {
        while let Some((until, id)) = self.blocked.first().copied() {
            if until > now_ms {
                return Some(until);
            }
            self.blocked.pop_first();
            self.file(id, now_ms);
        }
        None
    }

    /// Notes that a task is placed.
    pub(crate) fn placed(&mut self, task: i64, placed: TaskPlacement, now_ms: u64) {
        self.released(task);
        let id = placed.member;
        if !placed.claimed {
            self.unclaimed.insert((placed.start_by_ms, task));
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.tasks.insert(task);
            member.held += placed.cores;
        }
        self.placed.insert(task, placed);
        self.file(id, now_ms);
    }

    /// Notes that a task is not placed any more; it ended if `ended`. Returns whether it was.
    pub(crate) fn left(&mut self, task: i64, ended: bool, now_ms: u64) -> bool {
        let Some(placed) = self.released(task) else { return false };
        if ended && let Some(member) = self.members.get_mut(&placed.member) {
            member.rate.ended(placed.cores, now_ms);
        }
        self.file(placed.member, now_ms);
        true
    }

    fn released(&mut self, task: i64) -> Option<TaskPlacement> {
        let placed = self.placed.remove(&task)?;
        self.unclaimed.remove(&(placed.start_by_ms, task));
        if let Some(member) = self.members.get_mut(&placed.member)
            && member.tasks.remove(&task)
        {
            member.held = member.held.saturating_sub(placed.cores);
        }
        Some(placed)
    }

    /// Notes that a task is claimed.
    pub(crate) fn claimed(&mut self, task: i64) {
        if let Some(placed) = self.placed.get_mut(&task) {
            placed.claimed = true;
            self.unclaimed.remove(&(placed.start_by_ms, task));
        }
    }

    /// Notes that a task is placed by a transaction under way.
    pub(super) fn place_uncommitted(&mut self, task: i64, placed: TaskPlacement, now_ms: u64) {
        self.placed(task, placed, now_ms);
        self.uncommitted.push(task);
    }

    /// Takes a transaction for committed, or else undoes what it placed; returns whether there was
    /// such.
    pub(crate) fn ended(&mut self, committed: bool, now_ms: u64) -> bool {
        let placed = std::mem::take(&mut self.uncommitted);
        let undone = !committed && !placed.is_empty();
        for task in placed.into_iter().filter(|_| undone) {
            self.left(task, false, now_ms);
        }
        undone
    }

    /// The present: the latest moment that was told.
    pub(crate) fn at(&mut self, now_ms: Option<u64>) -> u64 {
        self.now_ms = now_ms.unwrap_or(self.now_ms);
        self.now_ms
    }

    /// The classes that can do a kind.
    pub(super) fn able(&mut self, kind: i64) -> Vec<u64> {
        if let Some(known) = self.able.get(&kind) {
            return known.clone();
        }
        let Some(wanted) = self.kinds.get(&kind) else { return Vec::new() };
        let classes = self.classes.iter();
        let able: Vec<u64> = classes
            .filter(|(_, class)| class.offer.has(kind, wanted))
            .map(|(number, _)| *number)
            .collect();
        self.able.insert(kind, able.clone());
        able
    }

    /// The member that a task of a kind and so many cores goes to; nothing if none can take it.
    pub(super) fn find(&mut self, kind: i64, cores: u64, now_ms: u64) -> Option<EndpointId> {
        let able = self.able(kind);
        loop {
            let classes = able.iter().filter_map(|number| self.classes.get(number));
            let firsts = classes.filter_map(|class| {
                let fits = |load: &&Load| self.fits(load.2, cores, now_ms);
                class.ready.iter().find(fits)
            });
            let (load, id) = firsts.min().map(|load| (*load, load.2))?;
            // Its credit may have decayed, or it may not have been heard since.
            self.file(id, now_ms);
            let filed = self.members.get(&id).and_then(|member| member.filed);
            let fresh = self.members.get(&id).is_some_and(|member| member.is_fresh(now_ms));
            if fresh && filed == Some(load) && self.fits(id, cores, now_ms) {
                return Some(id);
            }
        }
    }

    fn fits(&self, id: EndpointId, cores: u64, now_ms: u64) -> bool {
        let member = self.members.get(&id);
        member.is_some_and(|member| member.has_room(cores, self.lookahead, now_ms))
    }

    /// The members for people.
    pub(crate) fn view(&self, now_ms: u64) -> BoardView {
        let members = self.members.iter().map(|(id, member)| MemberView {
            endpoint: *id,
            name: member.facts.name.clone(),
            topics: member.facts.topics.clone(),
            held: member.held,
            credit: member.credit(self.lookahead, now_ms),
            rate: member.rate.per_second(now_ms),
            heard_at_ms: member.heard_ms,
            why_none: self.obstacle(member, now_ms),
            withheld: self.withheld(member),
        });
        BoardView { members: members.collect() }
    }

    fn withheld(&self, member: &Member) -> Vec<String> {
        let kinds = member.offer.withheld().filter_map(|kind| self.kinds.get(kind));
        let name =
            |kind: &TaskKind| kind.function.clone().unwrap_or_else(|| "(processes)".to_owned());
        kinds.map(name).collect()
    }

    /// The members.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Why a member is given no work, if so.
    pub(super) fn obstacle(&self, member: &Member, now_ms: u64) -> Option<WhyNone> {
        let unheard = || (!member.is_fresh(now_ms)).then_some(WhyNone::Unheard);
        member.obstacle(self.lookahead, now_ms).or_else(unheard)
    }

    /// Has a member among those that are alike.
    fn join(&mut self, id: EndpointId, now_ms: u64) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let known = self.class_numbers.get(&member.offer).copied();
        let number = known.unwrap_or(self.next_class);
        if known.is_none() {
            self.next_class += 1;
            self.class_numbers.insert(member.offer.clone(), number);
            let (ready, unseen) = (BTreeSet::new(), BTreeSet::new());
            let class = Class { offer: member.offer.clone(), ready, unseen, members: 0 };
            self.classes.insert(number, class);
            self.able.clear();
        }
        member.class = Some(number);
        if let Some(class) = self.classes.get_mut(&number) {
            class.members += 1;
        }
        self.file(id, now_ms);
    }

    /// Takes a member from among those that are alike.
    fn leave(&mut self, id: EndpointId) {
        self.unfile(id);
        let Some(number) = self.members.get_mut(&id).and_then(|member| member.class.take()) else {
            return;
        };
        let Some(class) = self.classes.get_mut(&number) else { return };
        class.members = class.members.saturating_sub(1);
        if class.members == 0
            && let Some(class) = self.classes.remove(&number)
        {
            self.class_numbers.remove(&class.offer);
            self.able.clear();
        }
    }

    /// Files a member by its load, or nowhere while it is given no work.
    fn file(&mut self, id: EndpointId, now_ms: u64) {
        self.unfile(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        let class = member.class.and_then(|number| self.classes.get_mut(&number));
        let (Some(class), Some(load)) = (class, member.load(id, self.lookahead, now_ms)) else {
            return;
        };
        member.filed = Some(load);
        let place = if member.is_fresh(now_ms) { &mut class.ready } else { &mut class.unseen };
        place.insert(load);
    }

    fn unfile(&mut self, id: EndpointId) {
        if let Some(member) = self.members.get_mut(&id)
            && let Some(load) = member.filed.take()
            && let Some(class) = member.class.and_then(|number| self.classes.get_mut(&number))
        {
            class.ready.remove(&load);
            class.unseen.remove(&load);
        }
    }
}
