//! Topics: the terms on which a task is placed at one of several endpoints, and the rules that
//! both sides keep. Pure.
//!
//! `design/0021-topics.md` says why. A *claim* is the word of an endpoint, confirmed by the
//! broker, that it will start an attempt.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest name of a topic, in bytes.
pub const MAX_TOPIC: usize = 128;
/// The longest version of a function, in characters.
pub const MAX_VERSION: usize = 64;
/// The most topics of an endpoint.
pub const TOPICS_MAX: usize = 100;
/// How long a placed attempt may take to start where the task does not say.
pub const DEFAULT_START_WITHIN: Duration = Duration::from_secs(60);
/// How far the clocks of an endpoint and of the service may be apart: the service waits for as
/// long, after the moment by which an attempt had to be claimed, before it takes it for unclaimed.
pub const CLOCK_MARGIN: Duration = Duration::from_secs(30);
/// How far an endpoint's clock may be off when it tells its details, to be given topic tasks.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(15);

/// The terms on which an attempt at a task of a topic is given to an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TopicTerms {
    /// The topic's name.
    pub name: String,
    /// By when the attempt must be claimed, in milliseconds since the Unix epoch.
    pub start_by_ms: u64,
    /// The version of the function that is asked for, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl TopicTerms {
    /// Whether an attempt of which the claim was confirmed at `now_ms` may start.
    #[must_use]
    pub fn may_start(&self, now_ms: u64) -> bool {
        now_ms <= self.start_by_ms
    }
}

/// Whether an attempt that had to be claimed by `start_by_ms` certainly never starts, if the
/// service has read all that was sent to it until `read_ms` and found no claim.
#[must_use]
pub fn is_fenced(start_by_ms: u64, read_ms: u64, margin: Duration) -> bool {
    let margin = u64::try_from(margin.as_millis()).unwrap_or(u64::MAX);
    read_ms > start_by_ms.saturating_add(margin)
}

/// Checks that a topic can have this name.
///
/// # Errors
/// It is empty, longer than [`MAX_TOPIC`] or has other characters than `A-Z a-z 0-9 . _ -`.
pub fn check_topic(name: &str) -> Result<(), Invalid> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_good = (1..=MAX_TOPIC).contains(&name.len()) && name.bytes().all(good);
    if is_good { Ok(()) } else { Err(Invalid::TopicName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_fenced_only_when_no_clock_in_the_margin_could_still_start_it() {
        let terms = TopicTerms { name: "cloud".to_owned(), start_by_ms: 60_000, version: None };
        let margin = 30_000;
        for behind in [0, 1, 15_000, margin] {
            // The last moment at which an endpoint starts it, by the service's clock.
            let last = terms.start_by_ms + behind;
            assert!(terms.may_start(last - behind));
            assert!(!is_fenced(terms.start_by_ms, last, CLOCK_MARGIN), "{behind}");
        }
        assert!(is_fenced(terms.start_by_ms, terms.start_by_ms + margin + 1, CLOCK_MARGIN));
        assert!(!is_fenced(u64::MAX, u64::MAX, CLOCK_MARGIN));
    }

    #[test]
    fn names_of_topics_are_plain() {
        let longest = "a".repeat(MAX_TOPIC);
        for good in ["cloud", "gpu-80.G_1", longest.as_str()] {
            check_topic(good).unwrap();
        }
        let too_long = "a".repeat(MAX_TOPIC + 1);
        for bad in ["", "a b", "é", "a/b", too_long.as_str()] {
            let error = check_topic(bad).unwrap_err().to_string();
            assert!(error.contains("cannot be the name of a topic"), "{error}");
        }
    }
}
