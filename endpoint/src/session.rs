//! The link to the broker: one session from dial to loss, repeated.
//!
//! A session opens one connection to consume and one to publish, and ends with
//! the first fault of either half. All faults reach [`Link::run`], which asks
//! the clutch what to do; nothing of a session outlives it.

use crate::clutch::{Clutch, Decision};
use crate::exit::{Exit, Failure};
use crate::halt::Halt;
use crate::ledger::Ledger;
use crate::publisher::Publisher;
use crate::subscriber::subscribe;
use clutch_common::id::EndpointId;
use clutch_common::link::{Destination, InletOptions, Transport};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The endpoint's link.
pub(crate) struct Link {
    /// How to dial.
    pub(crate) transport: Arc<dyn Transport>,
    /// What is pending.
    pub(crate) ledger: Arc<Ledger>,
    /// How to consume tasks.
    pub(crate) inlet: InletOptions,
    /// Where results go.
    pub(crate) results: Destination,
    /// The connection's name at the broker: `clutch/<ID>/<instance>`.
    pub(crate) name: String,
    /// The broker's heartbeat.
    pub(crate) heartbeat: Duration,
    /// The share of a delay before dialling again that chance may add or take,
    /// 0 to 1.
    pub(crate) jitter: f64,
    /// Cancelled: read no more tasks.
    pub(crate) intake: CancellationToken,
    /// Cancelled: end once nothing is pending.
    pub(crate) drain: CancellationToken,
}

impl Link {
    /// The connection's name for one instance of an endpoint.
    pub(crate) fn connection_name(endpoint: EndpointId, instance: uuid::Uuid) -> String {
        format!("clutch/{endpoint}/{instance}")
    }

    /// Keeps the link up until `drain` is cancelled and all is delivered.
    ///
    /// # Errors
    /// When the clutch gives up, or the disk failed.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut clutch = Clutch::new(self.heartbeat, self.jitter);
        loop {
            let mut engaged = None;
            let fault = match self.session(&mut engaged).await {
                Ok(()) => return Ok(()),
                Err(Halt::Link(fault)) => fault,
                Err(Halt::Disk(error)) => {
                    return Err(Failure::new(Exit::Internal, error.to_string()));
                }
            };
            let address = self.transport.address();
            if self.drain.is_cancelled() && self.ledger.undelivered() == 0 {
                return Ok(());
            }
            match clutch.disengage(&fault, engaged.map(|since: Instant| since.elapsed())) {
                Decision::Wait { delay, advice } => {
                    let delay = whole_ms(delay);
                    let retry_in = humantime::format_duration(delay).to_string();
                    tracing::warn!(%fault, %address, retry_in, advice, "disengaged");
                    self.pause(delay).await;
                }
                Decision::GiveUp { exit, advice } => {
                    let message = format!(
                        "the link to {address} cannot be brought up: {fault}; {advice}. \
                         What is pending stays on disk"
                    );
                    return Err(Failure::new(exit, message));
                }
            }
        }
    }

    /// Waits out a delay, or until shutdown begins: then what is pending
    /// deserves another try at once.
    async fn pause(&self, delay: Duration) {
        let draining = self.drain.is_cancelled();
        tokio::select! {
            biased;
            () = tokio::time::sleep(delay) => (),
            () = self.drain.cancelled(), if !draining => (),
        }
    }

    async fn session(&self, engaged: &mut Option<Instant>) -> Result<(), Halt> {
        let results_name = format!("{}/results", self.name);
        let (tasks, results) = tokio::try_join!(
            self.transport.connect(&self.name),
            self.transport.connect(&results_name)
        )?;
        let outcome = async {
            let mut outlet = results.outlet().await?;
            let publisher = Publisher::new(outlet.as_mut(), &self.ledger, &self.results);
            let subscribing = async {
                if self.intake.is_cancelled() {
                    return Ok(());
                }
                let mut inlet = tasks.inlet(&self.inlet).await?;
                *engaged = Some(Instant::now());
                tracing::info!(address = self.transport.address(), "engaged");
                subscribe(inlet.as_mut(), &self.ledger, &self.intake).await
            };
            tokio::try_join!(subscribing, publisher.publish(&self.drain)).map(|_| ())
        }
        .await;
        tokio::join!(tasks.close(), results.close());
        outcome
    }
}

fn whole_ms(delay: Duration) -> Duration {
    Duration::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}
