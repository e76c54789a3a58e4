//! Programs of the system: starting them, watching them, and ending all that they started.
//!
//! Used by both ways of running a task. [`spawn`] is the only place that starts a
//! process; [`orphans`] is the only one that reaps.

pub(super) mod family;
pub(super) mod mark;
pub(super) mod orphans;
pub(super) mod patience;
pub(super) mod proc;
pub(super) mod refusal;
pub(crate) mod spawn;
pub(super) mod streams;
pub(super) mod tree;
pub(super) mod watch;
