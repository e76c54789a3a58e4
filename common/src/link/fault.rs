//! The ways a link fails, told apart by what can be done about them. Pure.

use std::time::Duration;

/// A fault of a connection, or of an attempt to open one. The text in a variant
/// is the broker's or the system's own and never repeats the variant's words, which
/// hold for a broker as for a folder: a caller that shows them names the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No broker answers at the address.
    #[error("nobody listens there: {0}")]
    Refused(String),
    /// The address cannot be resolved or reached, or did not answer in time.
    #[error("out of reach: {0}")]
    Unreachable(String),
    /// TLS did not come about.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The broker does not accept the user, the password or the vhost.
    #[error("the credentials were refused: {0}")]
    Credentials(String),
    /// The user may not do this.
    #[error("permission is missing: {0}")]
    Forbidden(String),
    /// A queue or exchange does not exist.
    #[error("there is no such queue or exchange: {0}")]
    Missing(String),
    /// Another connection holds the lease or the exclusive consumer.
    #[error("another instance is connected: {0}")]
    Locked(String),
    /// The broker allows no more connections or channels.
    #[error("a limit there is reached: {0}")]
    Limited(String),
    /// Something exists that differs from its declaration.
    #[error("what is there differs: {0}")]
    Mismatch(String),
    /// The connection or channel was closed, by the broker or underneath.
    #[error("the connection was closed: {0}")]
    Closed(String),
    /// The broker blocked the connection for too long (its memory or disk
    /// alarm).
    #[error("publishing has been blocked for {}: {reason}", humantime::format_duration(*after))]
    Blocked {
        /// The broker's reason.
        reason: String,
        /// For how long.
        after: Duration,
    },
    /// The broker refused a message (a full queue that rejects publishing).
    #[error("a message was refused: {0}")]
    Rejected(String),
    /// The broker did not confirm or answer in time.
    #[error("no answer came within {}", humantime::format_duration(*.0))]
    ConfirmTimeout(Duration),
    /// The peer broke the protocol, or we did.
    #[error("the protocol was broken: {0}")]
    Protocol(String),
}
