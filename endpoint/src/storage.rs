//! What the endpoint keeps on disk: pending tasks and results, and results delivered.
//!
//! [`journal`] is the only writer of [`disk_queue`], which keeps small records in sled
//! and large ones in [`spool`] files; [`sent`] logs results that were delivered.

pub(crate) mod disk_queue;
pub(crate) mod files;
pub(crate) mod journal;
pub(crate) mod sent;
pub(crate) mod spool;
