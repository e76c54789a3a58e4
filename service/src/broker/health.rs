//! What the session notices and `/v1/health` tells, besides the link: shared by both.

use crate::broker::anomalies::AnomalyCounters;
use crate::broker::policy_monitor::PolicyMonitor;
use std::sync::Arc;

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HealthState {
    /// What came and is no outcome of a task.
    pub(crate) counts: Arc<AnomalyCounters>,
    /// What policies at the broker do to the queues.
    pub(crate) policies: Arc<PolicyMonitor>,
}
