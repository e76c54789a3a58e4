//! Tells endpoints to drain or to start tasks again, until the broker has it
//! (`design/0017`). Each step can be repeated: an endpoint obeys the highest number.

use crate::publishing::{PublishOutcome, Publisher, control_message};
use crate::store::{Error, PendingDrain, Store};
use clutch_common::topology;

/// Publishes a drain or a resume, and records that the broker has it if it does; returns the
/// broker's answer.
pub(crate) async fn send_drain(
    store: &Store,
    publisher: &Publisher,
    PendingDrain { endpoint, number, steering }: PendingDrain,
) -> Result<PublishOutcome, Error> {
    let message = control_message(steering.kind(), steering.encode());
    let outcome = publisher.message(topology::control_queue(endpoint), message).await;
    if outcome.is_ok() {
        tracing::info!(%endpoint, number, kind = steering.kind(), "sent to the endpoint");
        store.drain_confirmed(endpoint, number).await?;
    }
    Ok(outcome)
}
