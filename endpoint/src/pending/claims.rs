//! The claims of attempts of topics: which are asked for, what their confirm lets start, and
//! what is given up. Pure. `inbox/unclaimed` has the rules.

use super::Pending;
use super::inbox::FreeSlots;
use super::inbox::unclaimed::{ClaimMoment, GiveUp};
use super::offer::Offer;
use crate::storage::disk_queue::Change;
use crate::storage::journal::{Finished, OutSeq, Seq};
use clutch_common::id::Attempt;
use std::sync::Arc;

impl Pending {
    /// Has the endpoint judge by this offer.
    pub(crate) fn set_offer(&mut self, offer: Arc<Offer>) {
        self.inbox.set_offer(offer);
        self.wakes.claims |= self.inbox.has_unclaimed();
    }

    /// Whether something may be claimed, or given up, since the last call.
    pub(crate) fn take_claims_wake(&mut self) -> bool {
        std::mem::take(&mut self.wakes.claims)
    }

    /// The attempts to be claimed at a moment; none while the endpoint is drained.
    pub(crate) fn ask_claims(&mut self, moment: ClaimMoment) -> Vec<(Seq, Attempt)> {
        if self.drains.is_draining() || !self.inbox.has_unclaimed() {
            return Vec::new();
        }
        let all = self.all_slots;
        let free = all.saturating_sub(self.slots.used());
        self.inbox.ask_claims(FreeSlots { free, all }, moment)
    }

    /// Takes in that the broker has confirmed claims.
    pub(crate) fn claims_confirmed(&mut self, seqs: &[Seq], now_ms: u64) {
        self.wakes.engine |= self.inbox.claims_confirmed(seqs, now_ms);
        self.wakes.claims = true;
    }

    /// Has attempts claimed again of which the claims may not have reached the broker.
    pub(crate) fn claims_failed(&mut self) {
        self.inbox.claims_failed();
        self.wakes.claims = true;
    }

    /// When the first attempt may have to be given up: at once where nothing is claimed any more.
    pub(crate) fn claims_due_ms(&self) -> Option<u64> {
        let due = self.inbox.claims_due_ms()?;
        Some(if self.drains.is_draining() { 0 } else { due })
    }

    /// Gives up the attempts that were not claimed in time, those that are not offered, and,
    /// where the endpoint is drained or `closed`, all that are not claimed. Each has a result
    /// that `result` makes, sent once it is on disk.
    pub(crate) fn give_up(
        &mut self,
        now_ms: u64,
        closed: bool,
        result: impl Fn(Attempt, GiveUp) -> Arc<Finished>,
    ) -> (Vec<OutSeq>, Vec<Change>) {
        let given_up = self.inbox.give_up(now_ms, closed || self.drains.is_draining());
        self.wakes.subscriber |= !given_up.is_empty();
        let ended = given_up.into_iter().map(|(held, why)| {
            let result = result(held.task.attempt(), why);
            let out = self.put_out(Arc::clone(&result));
            self.hold_back(out);
            (out, Change::Finish { inbox: Some(held.seq), out, result })
        });
        ended.unzip()
    }
}
