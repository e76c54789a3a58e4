//! Why a session of the link, or a half of it, ended other than by being asked
//! to. Pure.

use crate::storage::journal::JournalError;
use clutch_common::link::Fault;

/// Why a session ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The link failed; the next session may do better.
    #[error(transparent)]
    Link(#[from] Fault),
    /// The disk failed; no session will do better.
    #[error(transparent)]
    Disk(#[from] JournalError),
}
