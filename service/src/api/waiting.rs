//! Why a task waits: no link to the broker, or a queue that takes none of its endpoint's tasks.

use super::Api;
use crate::broker::session::LinkState;
use crate::model::{TaskState, TaskSummary, Waits};
use crate::publishing::Publisher;

/// The publisher of the link to the broker, or why there is none.
pub(super) fn link(api: &Api) -> Result<Publisher, String> {
    match &*api.link.borrow() {
        LinkState::Engaged(publisher) => Ok(publisher.clone()),
        LinkState::Disengaged(fault) => {
            Err(format!("the service has no link to the broker: {fault}"))
        }
    }
}

/// Why a task waits; nothing for one that does not, or is just being published.
pub(super) fn waits(api: &Api, task: &TaskSummary) -> Option<Waits> {
    if task.state != TaskState::Waiting {
        return None;
    }
    if let Err(reason) = link(api) {
        return Some(Waits { reason, since_ms: None, retry_at_ms: None });
    }
    let held = api.placements.held(task.endpoint)?;
    Some(Waits {
        reason: held.why.words().to_owned(),
        since_ms: Some(held.since_ms),
        retry_at_ms: Some(held.retry_at_ms()),
    })
}
