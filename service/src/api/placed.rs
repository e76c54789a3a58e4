//! Where a task of a topic was placed, and why it is not: the records, joined with what is known of
//! the members of its topic.

use super::Api;
use super::error::ApiError;
use super::topics::candidates;
use crate::model::{PlacedAt, PlacementView, TaskDetail, TaskState, TopicFacts, unplaced_why};
use clutch_common::id::EndpointId;

/// The placement of the task in a row, if it is of a topic.
pub(super) async fn placement(
    api: &Api,
    detail: &TaskDetail,
    row: u64,
) -> Result<Option<PlacementView>, ApiError> {
    if detail.summary.topic.is_none() {
        return Ok(None);
    }
    let row = i64::try_from(row).unwrap_or(i64::MAX);
    let Some(record) = api.store.placement_of(row).await? else { return Ok(None) };
    let member = match record.member {
        Some(member) => Some(placed_at(api, record.attempt, member).await?),
        None => None,
    };
    let mut earlier = Vec::with_capacity(record.earlier.len());
    for one in &record.earlier {
        earlier.push(placed_at(api, one.attempt, one.member).await?);
    }
    earlier.sort_unstable_by_key(|one| one.attempt);
    Ok(Some(PlacementView {
        function: record.function,
        version: record.version,
        member,
        placed_at_ms: record.placed_at_ms,
        start_by_ms: record.start_by_ms,
        claimed: record.claimed,
        place_by_ms: record.place_by_ms,
        earlier,
    }))
}

async fn placed_at(api: &Api, attempt: u32, endpoint: EndpointId) -> Result<PlacedAt, ApiError> {
    let known = api.store.endpoint(&endpoint.to_string()).await?;
    let name = known.map_or_else(|| endpoint.to_string(), |known| known.name);
    Ok(PlacedAt { attempt, endpoint, name })
}

/// How far a task without an outcome is in its topic, if it is of one.
pub(super) async fn facts(api: &Api, detail: &TaskDetail) -> Result<Option<TopicFacts>, ApiError> {
    let Some((topic, placement)) = detail.summary.topic.as_ref().zip(detail.placement.as_ref())
    else {
        return Ok(None);
    };
    // An endpoint's name is that of the member that it is placed at.
    let waits =
        detail.summary.endpoint_name.is_none() && detail.summary.state == TaskState::Waiting;
    let unplaced = if waits {
        let members = candidates(api, topic).await?;
        let (function, version) = (placement.function.as_deref(), placement.version.as_deref());
        Some(unplaced_why(topic, function, version, &members))
    } else {
        None
    };
    Ok(Some(TopicFacts {
        unplaced,
        place_by_ms: placement.place_by_ms,
        placed_at_ms: placement.placed_at_ms,
        start_by_ms: placement.start_by_ms,
        claimed: placement.claimed,
    }))
}
