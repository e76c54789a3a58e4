//! How a command fails: a message for people and an exit code for scripts.
//! Pure.

use clutch_common::link::Fault;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// Wrong usage: arguments that cannot be acted upon.
pub(crate) const USAGE: u8 = 64;
/// The service or the broker cannot be reached.
pub(crate) const UNAVAILABLE: u8 = 69;
/// Something here went wrong that should not have.
pub(crate) const INTERNAL: u8 = 70;
/// The state folder cannot be used.
pub(crate) const CANNOT_CREATE: u8 = 73;
/// The time given for waiting is over.
pub(crate) const TIMEOUT: u8 = 75;
/// The broker refused the credentials or a permission.
pub(crate) const REFUSED: u8 = 77;
/// The configuration cannot be used.
pub(crate) const CONFIG: u8 = 78;
/// Everything else.
pub(crate) const GENERAL: u8 = 1;

/// An error that carries its exit code. Wrapped in [`anyhow::Error`], so that
/// context can be put around it.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
    help: Option<String>,
    kind: Cow<'static, str>,
    in_doubt: bool,
}

impl Failure {
    /// A failure with an exit code and everything to be said about it.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, kind: kind(code).into(), in_doubt: false }
    }

    /// The same failure, of a kind that programs tell from others with its exit code.
    #[must_use]
    pub(crate) fn of_kind(self, kind: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: kind.into(), ..self }
    }

    /// The same failure, and what to do about it.
    #[must_use]
    pub(crate) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same failure, of something that may have been done, or done in part.
    #[must_use]
    pub(crate) fn in_doubt(self) -> Self {
        Self { in_doubt: true, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

impl std::error::Error for Failure {}

/// The kind of a failure with this exit code, unless it has one of its own.
fn kind(code: u8) -> &'static str {
    match code {
        USAGE => "usage",
        UNAVAILABLE => "unavailable",
        INTERNAL => "internal",
        CANNOT_CREATE => "state_folder",
        TIMEOUT => "timeout",
        REFUSED => "refused",
        CONFIG => "configuration",
        _ => "failed",
    }
}

/// An error as `--json` writes it to stderr.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct ErrorReport {
    error: ErrorWords,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
struct ErrorWords {
    /// A word for programs.
    kind: String,
    /// Sentences for people.
    message: String,
    /// The remedy, where it is known apart from the message.
    help: Option<String>,
}

impl ErrorReport {
    /// Of wrong usage, in these words.
    pub(crate) fn usage(message: &str) -> Self {
        Self::new(kind(USAGE), message.to_owned(), None)
    }

    /// Of the error that ended a command.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let failure = failure(error);
        let words = error.chain().map(|cause| match cause.downcast_ref::<Failure>() {
            Some(failure) => failure.message.clone(),
            None => cause.to_string(),
        });
        let message = words.collect::<Vec<_>>().join(": ");
        let kind = failure.map_or(kind(GENERAL), |failure| &failure.kind);
        Self::new(kind, message, failure.and_then(|failure| failure.help.clone()))
    }

    fn new(kind: &str, message: String, help: Option<String>) -> Self {
        Self { error: ErrorWords { kind: kind.to_owned(), message, help } }
    }
}

fn failure(error: &anyhow::Error) -> Option<&Failure> {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>())
}

/// The kind of an error, as [`ErrorReport`] has it.
#[must_use]
pub(crate) fn kind_of(error: &anyhow::Error) -> &str {
    failure(error).map_or(kind(GENERAL), |failure| &failure.kind)
}

/// The exit code for an error: that of the [`Failure`] within, or 1.
#[must_use]
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    failure(error).map_or(GENERAL, |failure| failure.code)
}

/// Whether what failed may have been done, or done in part.
#[must_use]
pub(crate) fn is_in_doubt(error: &anyhow::Error) -> bool {
    failure(error).is_some_and(|failure| failure.in_doubt)
}

/// A wrong argument.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure::new(USAGE, message).into()
}

/// The exit code for a fault of the link that keeps a command from its work.
#[must_use]
pub(crate) fn code(fault: &Fault) -> u8 {
    match fault {
        Fault::Mismatch(_) => CONFIG,
        Fault::Credentials(_) | Fault::Forbidden(_) => REFUSED,
        Fault::Refused(_)
        | Fault::Unreachable(_)
        | Fault::Tls(_)
        | Fault::Closed(_)
        | Fault::Blocked { .. }
        | Fault::ConfirmTimeout(_)
        | Fault::Limited(_)
        | Fault::Rejected(_) => UNAVAILABLE,
        Fault::Missing(_) | Fault::Locked(_) | Fault::Protocol(_) => GENERAL,
    }
}

/// Advice for people about a fault of the link.
#[must_use]
pub(crate) fn advice(fault: &Fault) -> &'static str {
    match fault {
        Fault::Credentials(_) => "check user, password and vhost in --broker",
        Fault::Forbidden(_) => "the user in the URL needs to configure, write and read there",
        Fault::Refused(_) | Fault::Unreachable(_) | Fault::Tls(_) => {
            "is it there, and is --broker right?"
        }
        Fault::Closed(_) | Fault::ConfirmTimeout(_) => {
            "look at the broker's log and at what lies between"
        }
        Fault::Blocked { .. } => "memory or disk is short there: its operator has to make room",
        Fault::Limited(_) => {
            "close what is not needed there, or have the limit on connections or channels raised"
        }
        Fault::Rejected(_) => "the queue there takes no more",
        Fault::Missing(_) => "`clutch-service provision` declares what is missing",
        Fault::Locked(_) => "only one at a time may use it: is another one running?",
        Fault::Mismatch(_) | Fault::Protocol(_) => {
            "compare the versions of service, endpoint and broker, and what was declared there"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn the_exit_code_survives_context() {
        let error = Err::<(), _>(usage("no")).context("while trying").unwrap_err();
        assert_eq!(exit_code(&error), USAGE);
        assert_eq!(exit_code(&anyhow::anyhow!("plain")), GENERAL);
    }

    #[test]
    fn an_error_is_one_object_with_its_kind_its_message_and_its_help() {
        let failure = Failure::new(UNAVAILABLE, "nothing is there").with_help("start it");
        let error = Err::<(), _>(anyhow::Error::from(failure.of_kind("no_service")));
        let error = error.context("while asking").unwrap_err();
        assert_eq!(format!("{error:#}"), "while asking: nothing is there; start it");
        let json = |report: &ErrorReport| serde_json::to_string(report).unwrap();
        let expected = r#"{"error":{"kind":"no_service","message":"while asking: nothing is there","help":"start it"}}"#;
        assert_eq!(json(&ErrorReport::of(&error)), expected);
        let plain = json(&ErrorReport::of(&anyhow::anyhow!("plain")));
        assert_eq!(plain, r#"{"error":{"kind":"failed","message":"plain","help":null}}"#);
        assert!(json(&ErrorReport::usage("no")).contains(r#""kind":"usage""#));
    }
}
