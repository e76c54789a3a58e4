//! Publishes tasks of topics that were placed, each to the queue of its member.
//!
//! Touches the records and the link, through the [`Publisher`]. Promises: a member of which the
//! queue does not take its tasks is given none until a growing pause is over; tasks in doubt are
//! published again by the placer of all tasks.

use super::{Outgoing, Placements, PublishError, Publisher};
use crate::store::{Handed, Store};
use clutch_common::id::EndpointId;
use clutch_common::system::clock::now_ms;
use tokio::time::Instant;

/// Publishes a page of placed tasks to their member, and records the broker's answers.
pub(crate) async fn publish_placed(
    store: &Store,
    publisher: &Publisher,
    placements: &Placements,
    member: EndpointId,
    page: &[Handed],
) {
    let tasks: Vec<Outgoing<'_>> = page.iter().map(Outgoing::from).collect();
    let not_taken = match publisher.tasks(member, true, &tasks).await {
        Ok(outcomes) => outcomes
            .into_iter()
            .filter_map(Result::err)
            .find(|error| !matches!(error, PublishError::TooLarge(_))),
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(%member, error, "the broker's answer for placed tasks is not recorded");
            return;
        }
    };
    let Some(reason) = not_taken else {
        tracing::debug!(%member, tasks = page.len(), "placed tasks of topics");
        return;
    };
    let pause = placements.paused_until(member);
    let pause = pause.map_or(0, |until| until.duration_since(Instant::now()).as_millis());
    let now_ms = now_ms();
    let until_ms = now_ms.saturating_add(u64::try_from(pause).unwrap_or(u64::MAX));
    store.topic_board().block(member, until_ms, now_ms);
    tracing::debug!(%member, %reason, "the queue of a member did not take its tasks");
}
