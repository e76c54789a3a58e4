//! Turns the errors of lapin and the broker into a [`Fault`]. Pure: the decision rests
//! on the reply code, and on the broker's words where one code means several
//! things.

#![expect(clippy::wildcard_enum_match_arm, reason = "lapin keeps its errors open to additions")]

use crate::link::Fault;
use lapin::ErrorKind;
use std::io;

/// How far an attempt to connect has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// Resolving the name and opening the TCP connection.
    #[default]
    Tcp,
    /// Agreeing on TLS.
    Tls,
    /// Speaking AMQP: the handshake and the login.
    Handshake,
}

/// A fault of an attempt to connect.
pub(super) fn connecting(error: &lapin::Error, stage: Stage) -> Fault {
    match error.kind() {
        ErrorKind::IOError(io) => connecting_io(io, stage),
        ErrorKind::AuthProviderError(text) => Fault::Credentials(text.clone()),
        ErrorKind::ProtocolError(reason) => {
            login_reply(reason.get_id(), reason.get_message().as_str())
        }
        _ => established(error),
    }
}

/// A fault of a connection that was open.
pub(super) fn established(error: &lapin::Error) -> Fault {
    match error.kind() {
        ErrorKind::ProtocolError(reason) => reply(reason.get_id(), reason.get_message().as_str()),
        ErrorKind::MissingHeartbeatError => {
            Fault::Closed("nothing came from the broker for two heartbeats".to_owned())
        }
        ErrorKind::IOError(io) | ErrorKind::RuntimeShutdownError(io) => {
            Fault::Closed(io.to_string())
        }
        ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidConnectionState(_) => Fault::Closed(error.to_string()),
        ErrorKind::ChannelsLimitReached => Fault::Limited(error.to_string()),
        _ => Fault::Protocol(error.to_string()),
    }
}

/// Whether the error only says that the channel or connection is gone, and not
/// why.
pub(super) fn is_aftermath(error: &lapin::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidChannel(_)
            | ErrorKind::InvalidChannelState(..)
            | ErrorKind::InvalidConnectionState(_)
    )
}

/// The limit that the broker named when it refused a message for its size, or nothing
/// in its place; nothing at all if that is not why.
pub(super) fn too_large(error: &lapin::Error) -> Option<Option<usize>> {
    let ErrorKind::ProtocolError(reason) = error.kind() else { return None };
    is_too_large(reason.get_id(), reason.get_message().as_str())
        .then(|| limit(reason.get_message().as_str()))
}

fn is_too_large(code: u16, text: &str) -> bool {
    code == 311 || (code == 406 && text.contains("message size"))
}

/// The number at the end of the broker's words: "message size 9 is larger than
/// configured max size 8".
fn limit(text: &str) -> Option<usize> {
    let end = text.get(text.find("max")?..)?;
    let digits = end.get(end.find(|letter: char| letter.is_ascii_digit())?..)?;
    let count = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..count)?.parse().ok()
}

fn connecting_io(error: &io::Error, stage: Stage) -> Fault {
    match stage {
        Stage::Tcp if error.kind() == io::ErrorKind::ConnectionRefused => {
            Fault::Refused(error.to_string())
        }
        Stage::Tcp => Fault::Unreachable(error.to_string()),
        Stage::Tls => Fault::Tls(error.to_string()),
        Stage::Handshake => Fault::Unreachable(format!(
            "the peer broke off the AMQP handshake ({error}); is it a broker, and does its port \
             want amqp or amqps?"
        )),
    }
}

/// A broker's reply that ended an attempt to log in. A refused login is 403; a
/// vhost that does not exist or is closed to the user is 530.
fn login_reply(code: u16, text: &str) -> Fault {
    match code {
        530 if text.contains("limit") => Fault::Limited(text.to_owned()),
        403 | 530 => Fault::Credentials(text.to_owned()),
        _ => reply(code, text),
    }
}

/// A broker's reply that closed a channel or a connection.
fn reply(code: u16, text: &str) -> Fault {
    let fault = match code {
        320 | 506 | 541 => Fault::Closed,
        403 if text.contains("exclusive use") => Fault::Locked,
        403 => Fault::Forbidden,
        404 if text.contains("down or inaccessible") => Fault::Unreachable,
        404 => Fault::Missing,
        405 => Fault::Locked,
        530 if text.contains("limit") => Fault::Limited,
        406 if text.contains("inequivalent") => Fault::Mismatch,
        406 if text.contains("timed out") => Fault::Closed,
        // What is too large is not sent again; the link can be had again.
        _ if is_too_large(code, text) => Fault::Closed,
        _ => Fault::Protocol,
    };
    fault(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::protocol::AMQPError;
    use std::sync::Arc;

    fn replied(code: u16, text: &str) -> lapin::Error {
        ErrorKind::ProtocolError(AMQPError::from_id(code, text.into()).unwrap()).into()
    }

    fn io(kind: io::ErrorKind) -> lapin::Error {
        ErrorKind::IOError(Arc::new(kind.into())).into()
    }

    #[test]
    fn a_brokers_reply_on_an_open_connection() {
        use Fault::{Closed, Forbidden, Limited, Locked, Mismatch, Missing, Protocol, Unreachable};
        type Make = fn(String) -> Fault;
        let table: [(u16, &str, Make); 18] = [
            (311, "CONTENT_TOO_LARGE", Closed),
            (320, "CONNECTION_FORCED - broker forced connection closure", Closed),
            (320, "CONNECTION_FORCED - Closed via management plugin", Closed),
            (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", Locked),
            (403, "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user", Forbidden),
            (404, "NOT_FOUND - no queue 'q' in vhost '/'", Missing),
            (404, "NOT_FOUND - no exchange 'x' in vhost '/'", Missing),
            (404, "NOT_FOUND - home node 'a' of queue 'q' is down or inaccessible", Unreachable),
            (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q'", Locked),
            (406, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q'", Mismatch),
            (406, "PRECONDITION_FAILED - unknown delivery tag 7", Protocol),
            (406, "PRECONDITION_FAILED - message size 9 is larger than max size 8", Closed),
            (406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out", Closed),
            (503, "COMMAND_INVALID", Protocol),
            (506, "RESOURCE_ERROR", Closed),
            (
                530,
                "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed limit of (1)",
                Limited,
            ),
            (530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'", Protocol),
            (541, "INTERNAL_ERROR", Closed),
        ];
        for (code, text, fault) in table {
            assert_eq!(established(&replied(code, text)), fault(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_message_refused_for_its_size_names_the_limit() {
        for (code, text, limit) in [
            (406, "PRECONDITION_FAILED - message size 9 is larger than max size 8", Some(Some(8))),
            (
                406,
                "PRECONDITION_FAILED - message size 200185 is larger than configured max size 131072",
                Some(Some(131_072)),
            ),
            (311, "CONTENT_TOO_LARGE", Some(None)),
            (406, "PRECONDITION_FAILED - unknown delivery tag 7", None),
            (404, "NOT_FOUND", None),
        ] {
            assert_eq!(too_large(&replied(code, text)), limit, "{text}");
        }
        assert_eq!(too_large(&io(io::ErrorKind::ConnectionReset)), None);
    }

    #[test]
    fn a_brokers_reply_to_a_login() {
        for text in [
            "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.",
            "ACCESS_REFUSED - user 'guest' can only connect via localhost",
        ] {
            let fault = connecting(&replied(403, text), Stage::Handshake);
            assert_eq!(fault, Fault::Credentials(text.to_owned()));
        }
        for text in [
            "NOT_ALLOWED - vhost nowhere not found",
            "NOT_ALLOWED - access to vhost '/' refused for user 'u'",
        ] {
            let fault = connecting(&replied(530, text), Stage::Handshake);
            assert_eq!(fault, Fault::Credentials(text.to_owned()));
        }
        let full = "NOT_ALLOWED - access to vhost '/' refused for user 'u': connection limit (1)";
        assert!(matches!(connecting(&replied(530, full), Stage::Handshake), Fault::Limited(_)));
        let down = "INTERNAL_ERROR - vhost '/' is down";
        assert!(matches!(connecting(&replied(541, down), Stage::Handshake), Fault::Closed(_)));
    }

    #[test]
    fn an_io_error_means_what_was_being_done() {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, InvalidData, TimedOut};
        let at = |kind, stage| connecting(&io(kind), stage);
        assert!(matches!(at(ConnectionRefused, Stage::Tcp), Fault::Refused(_)));
        assert!(matches!(at(TimedOut, Stage::Tcp), Fault::Unreachable(_)));
        assert!(matches!(at(InvalidData, Stage::Tls), Fault::Tls(_)));
        assert!(matches!(at(ConnectionReset, Stage::Tls), Fault::Tls(_)));
        assert!(matches!(at(ConnectionReset, Stage::Handshake), Fault::Unreachable(_)));
        assert!(matches!(established(&io(ConnectionReset)), Fault::Closed(_)));
    }

    #[test]
    fn a_silent_broker_is_a_closed_connection() {
        assert!(matches!(established(&ErrorKind::MissingHeartbeatError.into()), Fault::Closed(_)));
    }

    #[test]
    fn an_aftermath_is_told_from_a_cause() {
        let aftermath = ErrorKind::InvalidConnectionState(lapin::ConnectionState::Error).into();
        assert!(is_aftermath(&aftermath));
        assert!(!is_aftermath(&replied(404, "NOT_FOUND")));
        assert!(!is_aftermath(&io(io::ErrorKind::ConnectionReset)));
    }
}
