//! The part of the ledger that claims attempts of topics, and gives up those that were not
//! claimed in time.

use super::Ledger;
use crate::pending::inbox::unclaimed::{ClaimMoment, GiveUp};
use crate::pending::offer::Offer;
use crate::storage::journal::{Finished, JournalError, Seq};
use clutch_common::id::Attempt;
use clutch_common::task::result::{Loss, Outcome, TaskResult};
use clutch_common::text::counted::counted;
use std::sync::Arc;

/// Tells the time in milliseconds since the Unix epoch.
pub(crate) type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

impl Ledger {
    /// Has attempts of topics claimed by another clock.
    #[cfg(test)]
    pub(crate) fn with_clock(self, clock: WallClock) -> Self {
        Self { clock, ..self }
    }

    /// Has the endpoint judge attempts of topics by this offer.
    pub(crate) fn set_offer(&self, offer: Offer) {
        self.shared.decide(|pending| pending.set_offer(Arc::new(offer)));
    }

    /// Waits until an attempt may be claimed, or is to be given up, since the last call.
    pub(crate) async fn claims_ready(&self) {
        self.shared.claims.notified().await;
    }

    /// The attempts to be claimed at a moment.
    pub(crate) fn ask_claims(&self, moment: ClaimMoment) -> Vec<(Seq, Attempt)> {
        self.shared.lock().ask_claims(moment)
    }

    /// Takes in that the broker has confirmed claims. Attempts of which the moment has not
    /// passed may start.
    pub(crate) fn claims_confirmed(&self, seqs: &[Seq]) {
        let now_ms = (self.clock)();
        self.shared.decide(|pending| pending.claims_confirmed(seqs, now_ms));
    }

    /// Has attempts claimed again of which the claims may not have reached the broker.
    pub(crate) fn claims_failed(&self) {
        self.shared.decide(super::Pending::claims_failed);
    }

    /// In how many milliseconds an attempt may have to be given up.
    pub(crate) fn claims_due_in_ms(&self) -> Option<u64> {
        let due = self.shared.lock().claims_due_ms()?;
        // An attempt may be claimed at its moment, but not after.
        Some((due + u64::from(due > 0)).saturating_sub((self.clock)()))
    }

    /// Gives up the attempts that were not claimed in time, and, where `closed`, all that are not
    /// claimed. Returns once that is on disk: a crash must not take it back.
    pub(crate) async fn give_up_unclaimed(&self, closed: bool) -> Result<(), JournalError> {
        let now_ms = (self.clock)();
        let due = self.shared.lock().claims_due_ms();
        if due.is_none_or(|due| due >= now_ms && !closed) {
            return Ok(());
        }
        let result = |attempt, why| self.not_started(attempt, why);
        let (outs, commit) = self.submit(|pending| pending.give_up(now_ms, closed, result)).await?;
        if !outs.is_empty() {
            let attempts = counted(outs.len() as u64, "attempt");
            tracing::info!(%attempts, "given up without a start: the service places them elsewhere");
        }
        self.stored(outs, commit).await
    }

    /// The result of an attempt of a topic that does not start here.
    fn not_started(&self, attempt: Attempt, why: GiveUp) -> Arc<Finished> {
        let (lost, reason) = match why {
            GiveUp::Late => {
                let late = "it was not claimed by the moment at which it had to be: it does not \
                     start here";
                (Loss::NotStarted, late.to_owned())
            }
            GiveUp::Closed => {
                let closed = "the endpoint stops or is drained: it does not start here";
                (Loss::NotStarted, closed.to_owned())
            }
            GiveUp::NotOffered(why) => (Loss::NotOffered, why),
        };
        let result = self.not_run(attempt, Outcome::Interrupted, reason);
        self.finished(TaskResult { lost: Some(lost), ..result })
    }
}
