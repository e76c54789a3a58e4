//! The ways a link fails, told apart by what can be done about them. Pure.

use std::time::Duration;

/// A fault of a connection, or of an attempt to open one. The text in a variant
/// is the broker's or the system's own and never repeats the variant's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody listens at the address.
    #[error("the broker refused the TCP connection: {0}")]
    Refused(String),
    /// The address cannot be resolved or reached, or did not answer in time.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// TLS did not come about.
    #[error("TLS with the broker failed: {0}")]
    Tls(String),
    /// The broker does not accept the user, the password or the vhost.
    #[error("the broker refused the credentials: {0}")]
    Credentials(String),
    /// The user may not do this.
    #[error("the broker's permissions forbid it: {0}")]
    Forbidden(String),
    /// A queue or exchange does not exist.
    #[error("the broker has no such queue or exchange: {0}")]
    Missing(String),
    /// Another connection holds the lease or the exclusive consumer.
    #[error("another instance is connected: {0}")]
    Locked(String),
    /// What exists differs from what was declared.
    #[error("what exists at the broker differs: {0}")]
    Mismatch(String),
    /// The connection or channel was closed, by the broker or underneath.
    #[error("the connection was closed: {0}")]
    Closed(String),
    /// The broker blocked the connection for too long (its memory or disk
    /// alarm).
    #[error("the broker has blocked publishing for {}: {reason}", humantime::format_duration(*after))]
    Blocked {
        /// The broker's reason.
        reason: String,
        /// For how long.
        after: Duration,
    },
    /// The broker refused a message (a full queue that rejects publishing).
    #[error("the broker refused a message: {0}")]
    Rejected(String),
    /// The broker did not confirm or answer in time.
    #[error("the broker did not answer within {}", humantime::format_duration(*.0))]
    ConfirmTimeout(Duration),
    /// The peer broke the protocol, or we did.
    #[error("the broker reported a protocol error: {0}")]
    Protocol(String),
}
