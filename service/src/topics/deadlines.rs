//! Which members are to be looked at, and which placements may end, and when. Pure.

use super::catalogue::Catalogue;
use super::member::Member;
use clutch_common::id::EndpointId;
use clutch_common::task::topic::is_fenced;
use std::collections::BTreeSet;

/// How often the queue of a member is looked at, at most.
const LOOK_EVERY_MS: u64 = 10_000;
/// How many queues are looked at at once.
const LOOKS_AT_ONCE: usize = 8;

impl Catalogue {
    /// The members to look at, as tasks of these kinds might go to them, were they there; and when
    /// to look again.
    pub(crate) fn sought(
        &mut self,
        kinds: impl IntoIterator<Item = i64>,
        now_ms: u64,
    ) -> (Vec<EndpointId>, Option<u64>) {
        let mut looks = BTreeSet::new();
        let mut next: Option<u64> = None;
        let able: BTreeSet<u64> = kinds.into_iter().flat_map(|kind| self.able(kind)).collect();
        for class in able.iter().filter_map(|number| self.classes.get(number)) {
            for (_, _, id) in &class.unseen {
                let Some(member) = self.members.get(id) else { continue };
                match member.looked_ms.map(|looked| looked.saturating_add(LOOK_EVERY_MS)) {
                    Some(again) if again > now_ms => {
                        next = Some(next.map_or(again, |next| next.min(again)));
                    }
                    Some(_) | None => drop(looks.insert(*id)),
                }
                if looks.len() >= LOOKS_AT_ONCE {
                    return (looks.into_iter().collect(), Some(now_ms));
                }
            }
        }
        (looks.into_iter().collect(), next)
    }

    /// The members that hold claimed tasks and were not heard for a while: they are looked at, and
    /// lost after their time. Goes through all members, and is not for every task.
    pub(crate) fn suspects(&self, now_ms: u64) -> Vec<EndpointId> {
        let claimed = |task: &i64| self.placed.get(task).is_some_and(|placed| placed.claimed);
        let silent = self
            .members
            .iter()
            .filter(|(_, member)| !member.is_fresh(now_ms) && member.tasks.iter().any(claimed));
        silent.map(|(id, _)| *id).collect()
    }

    /// The members that were silent and away for as long as they may be, if the service has read
    /// all that was sent to it until a moment.
    pub(crate) fn lost(&self, read_ms: u64) -> Vec<EndpointId> {
        let over = |id: &&EndpointId| {
            let at = self.members.get(*id).and_then(Member::lost_at_ms);
            at.is_some_and(|at| at <= read_ms)
        };
        self.away.iter().filter(over).copied().collect()
    }

    /// Whether anything is placed.
    pub(crate) fn holds_any(&self) -> bool {
        !self.placed.is_empty()
    }

    /// When placements may have to end next: the first that is not claimed, or those of a member
    /// that is away.
    pub(crate) fn next_end(&self) -> Option<u64> {
        let margin = u64::try_from(self.margin.as_millis()).unwrap_or(u64::MAX);
        let first = self.unclaimed.first();
        let fence = first.map(|(start_by_ms, _)| start_by_ms.saturating_add(margin + 1));
        let away = self.away.iter().filter_map(|id| self.members.get(id)?.lost_at_ms());
        away.chain(fence).min()
    }

    /// Notes that a member is taken for lost: it is not again until as much time has passed.
    pub(crate) fn given_up(&mut self, id: EndpointId, now_ms: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.away_since_ms = member.away_since_ms.map(|_| now_ms);
        }
    }

    /// Up to `limit` tasks that are certainly not claimed, if the service has read all that was
    /// sent to it until a moment.
    pub(crate) fn fenced(&self, read_ms: u64, limit: usize) -> Vec<(i64, u32)> {
        let fenced = |start_by_ms: u64| is_fenced(start_by_ms, read_ms, self.margin);
        let rows = self.unclaimed.iter().take_while(|(start_by_ms, _)| fenced(*start_by_ms));
        let tasks = rows.filter_map(|(_, task)| Some((*task, self.placed.get(task)?.attempt)));
        tasks.take(limit).collect()
    }
}
