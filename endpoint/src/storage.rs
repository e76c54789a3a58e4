//! The state folder: pending tasks and results, and results delivered.
//!
//! The *disk queue* ([`disk_queue`]) is the durable queue of tasks and results. It keeps
//! records in a *store* (sled) and large payloads in the *spool*, a folder of files
//! ([`spool`], over the file system of [`files`]). The *journal* ([`journal`]) is its only
//! writer: it groups changes and commits them on a thread. The *sent log* ([`sent`]) has
//! results that were delivered.

pub(crate) mod disk_queue;
pub(crate) mod files;
pub(crate) mod journal;
pub(crate) mod sent;
pub(crate) mod spool;
