//! What the session notices and `/v1/health` tells, besides the link: shared by both.

use crate::broker::counts::Counts;
use crate::broker::policies::Policies;
use std::sync::Arc;

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What came and is no outcome of a task.
    pub(crate) counts: Arc<Counts>,
    /// What policies at the broker do to the queues.
    pub(crate) policies: Arc<Policies>,
}
