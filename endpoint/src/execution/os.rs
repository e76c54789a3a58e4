//! Processes of the operating system: starting, watching and terminating them, with all
//! that they started. Used by both ways of running a task.
//!
//! [`spawn`] is the only place that starts a process, and [`reaper`] the only one that
//! reaps. A [`run_tag`] marks the processes of a run, a [`process_tree`] lists them, and
//! [`terminate`] ends them.

pub(super) mod exit_watch;
pub(crate) mod leaders;
pub(super) mod proc;
pub(super) mod process_tree;
pub(super) mod reaper;
pub(crate) mod run_tag;
mod shortage;
pub(crate) mod spawn;
pub(super) mod spawn_error;
pub(super) mod streams;
pub(super) mod terminate;
