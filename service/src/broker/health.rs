//! The state of the service that the API reports besides the link: the session updates it, the
//! API reads it.

use crate::broker::anomalies::AnomalyCounters;
use crate::broker::observer::Observer;
use crate::broker::policy_monitor::PolicyMonitor;
use crate::failover::LastHeard;
use crate::overlay::Overlay;
use std::sync::Arc;

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HealthState {
    /// Counts of messages that are not outcomes of tasks.
    pub(crate) counts: Arc<AnomalyCounters>,
    /// Policies at the broker that take messages from the queues.
    pub(crate) policies: Arc<PolicyMonitor>,
    /// When states were heard last.
    pub(crate) last_heard: Arc<LastHeard>,
    /// Looks at the endpoints' queues.
    pub(crate) observer: Observer,
    /// How far tasks are at their endpoints.
    pub(crate) overlay: Overlay,
}
