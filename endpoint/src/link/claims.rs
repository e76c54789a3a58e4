//! The publisher of claims: tells the service which attempts of topics will start here, and
//! gives up those that were not claimed in time.
//!
//! It has an outlet of its own on the connection that results go by, opened with the first
//! claim. Promises: an attempt starts only after the broker has confirmed its claim; one message of
//! claims is under way at a time, sent without a pause; while there is nothing of a topic it
//! waits for that alone; and none of the faults of its outlet ends a session.

use super::optional::{settled, until};
use crate::pending::inbox::unclaimed::ClaimMoment;
use crate::pending::ledger::Ledger;
use crate::storage::journal::{JournalError, Seq};
use clutch_common::id::Attempt;
use clutch_common::link::{Connection, Destination, Fault, Message, Outlet, Settlement, Ticket};
use clutch_common::system::clock::now_ms;
use clutch_common::wire::{CLAIMS_TYPE, Claims, encode_claims};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// For how long it is claimed ahead, at least.
const AHEAD: Duration = Duration::from_millis(100);
/// For how long at most, where confirms take long.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// The pause after a fault of the outlet, or after the broker did not take a message.
const PAUSE: Duration = Duration::from_secs(1);

/// Claims on a connection for as long as it is polled. Once `intake` is cancelled nothing more
/// is claimed, and what is not claimed is given up.
///
/// # Errors
/// The disk failed.
pub(super) async fn publish(
    connection: &dyn Connection,
    destination: &Destination,
    ledger: &Ledger,
    intake: &CancellationToken,
) -> Result<Infallible, JournalError> {
    let claiming = Claiming {
        connection,
        destination,
        ledger,
        began: Instant::now(),
        outlet: None,
        open: None,
        took: Duration::ZERO,
        paused_until: None,
    };
    claiming.work(intake).await
}

/// A message of claims that is under way.
struct OpenClaims {
    ticket: Ticket,
    seqs: Vec<Seq>,
    sent: Instant,
}

/// The publisher in one session.
struct Claiming<'a> {
    connection: &'a dyn Connection,
    destination: &'a Destination,
    ledger: &'a Ledger,
    began: Instant,
    /// Opened when there is something to claim.
    outlet: Option<Box<dyn Outlet>>,
    open: Option<OpenClaims>,
    /// How long the last confirm took.
    took: Duration,
    paused_until: Option<Instant>,
}

/// A claim that is not confirmed is not known to have arrived, also one that was about to be sent.
impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.ledger.claims_failed();
    }
}

impl Claiming<'_> {
    async fn work(mut self, intake: &CancellationToken) -> Result<Infallible, JournalError> {
        loop {
            let stopped = intake.is_cancelled();
            self.ledger.give_up_unclaimed(stopped).await?;
            self.paused_until = self.paused_until.filter(|until| Instant::now() < *until);
            if self.open.is_none() && self.paused_until.is_none() && !stopped {
                self.claim().await;
            }
            let due = self.ledger.claims_due_in_ms();
            let due = due.and_then(|due| Instant::now().checked_add(Duration::from_millis(due)));
            let is_open = self.open.is_some();
            tokio::select! {
                biased;
                settled = settled(self.outlet.as_deref_mut()), if is_open => self.settle(settled),
                () = intake.cancelled(), if !stopped => (),
                () = until(self.paused_until), if self.paused_until.is_some() => (),
                () = until(due), if due.is_some() => (),
                () = self.ledger.claims_ready() => (),
            }
        }
    }

    /// Claims what may start within a moment.
    async fn claim(&mut self) {
        let ahead = (self.took * 2).clamp(AHEAD, AHEAD_MAX);
        let claims = self.ledger.ask_claims(ClaimMoment { uptime: self.began.elapsed(), ahead });
        if claims.is_empty() {
            return;
        }
        let (seqs, attempts) = claims.into_iter().unzip();
        match self.send(attempts).await {
            Ok(ticket) => {
                self.open = Some(OpenClaims { ticket, seqs, sent: Instant::now() });
            }
            Err(fault) => {
                self.ledger.claims_failed();
                self.failed(&fault);
            }
        }
    }

    async fn send(&mut self, attempts: Vec<Attempt>) -> Result<Ticket, Fault> {
        let Ledger { endpoint_id, state_id, .. } = *self.ledger;
        let claims = Claims { endpoint_id, state_id, attempts };
        let message = Message {
            message_id: Some(Uuid::new_v4().to_string()),
            kind: Some(CLAIMS_TYPE.to_owned()),
            timestamp_ms: Some(now_ms()),
            body: encode_claims(&claims),
            ..Message::default()
        };
        let outlet = match &mut self.outlet {
            Some(outlet) => outlet,
            None => self.outlet.insert(self.connection.outlet().await?),
        };
        outlet.publish(self.destination, message).await
    }

    fn settle(&mut self, settled: Result<Vec<(Ticket, Settlement)>, Fault>) {
        let settled = match settled {
            Ok(settled) => settled,
            Err(fault) => return self.failed(&fault),
        };
        for (ticket, settlement) in settled {
            let Some(open) = self.open.take_if(|open| open.ticket == ticket) else { continue };
            if settlement == Settlement::Confirmed {
                self.took = open.sent.elapsed();
                self.ledger.claims_confirmed(&open.seqs);
            } else {
                tracing::debug!(?settlement, "the broker does not take claims of tasks of topics");
                self.ledger.claims_failed();
                self.paused_until = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Pauses after a fault of the outlet. If the connection is lost, the session ends by it.
    fn failed(&mut self, fault: &Fault) {
        tracing::debug!(%fault, "tasks of topics are claimed a little later");
        if self.open.take().is_some() {
            self.ledger.claims_failed();
        }
        self.outlet = None;
        self.paused_until = Some(Instant::now() + PAUSE);
    }
}

#[cfg(test)]
mod tests;
