//! Programs of the system: starting them, watching them, and ending all that they started.
//!
//! Used by both ways of running a task. [`spawn`] is the only place that starts a
//! process; [`orphans`] is the only one that reaps.

pub(super) mod exit_watch;
pub(super) mod proc;
pub(super) mod process_tree;
pub(super) mod reaper;
pub(super) mod run_tag;
pub(super) mod shortage;
pub(crate) mod spawn;
pub(super) mod spawn_error;
pub(super) mod streams;
pub(super) mod terminate;
