//! The error that ends a session of the link. Pure.

use crate::storage::journal::JournalError;
use clutch_common::link::Fault;

/// The reason why a session ended without a stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The link failed; the next session may do better.
    #[error(transparent)]
    Link(#[from] Fault),
    /// The disk failed; no session will do better.
    #[error(transparent)]
    Disk(#[from] JournalError),
}
