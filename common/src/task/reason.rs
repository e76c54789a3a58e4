//! Words of bounded length. Pure.
//!
//! Words about a task quote the task, the system, or a worker, and any of them may be
//! as long as a message. A [`Reason`] keeps the start and the end, however it is made,
//! so that nothing that holds one grows by what it quotes.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::ops::Deref;

/// Why something is as it is, in words, cut in the middle where they are too many.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Reason(String);

impl Reason {
    /// The most bytes of one.
    pub const MAX: usize = 4096;

    /// The most bytes of something that is quoted in one.
    pub const QUOTE: usize = 256;

    /// Cuts a text for a quotation in a longer one, as a reason is cut, to [`Reason::QUOTE`].
    #[must_use]
    pub fn quote(text: &str) -> String {
        cut(text.to_owned(), Self::QUOTE)
    }
}

/// Keeps the start and the end of a text.
fn cut(text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    let mark = format!(" [... {} bytes in all ...] ", text.len());
    let kept = max.saturating_sub(mark.len());
    let head = text.floor_char_boundary(kept * 3 / 4);
    let tail = text.ceil_char_boundary(text.len() - kept / 4);
    let (head, tail) = (text.get(..head).unwrap_or(""), text.get(tail..).unwrap_or(""));
    format!("{head}{mark}{tail}")
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(cut(text, Self::MAX))
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

impl Deref for Reason {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reason_that_quotes_a_message_keeps_both_ends() {
        let reason = Reason::from(format!("'{}' could not be started", "x".repeat(16 << 20)));
        assert!(reason.len() <= Reason::MAX);
        assert!(reason.starts_with("'xxx") && reason.ends_with("xxx' could not be started"));
        assert!(reason.contains(" bytes in all ...]"), "{reason}");
        assert_eq!(Reason::quote("short"), "short");
        assert!(Reason::quote(&reason).len() <= Reason::QUOTE);
    }

    proptest! {
        #[test]
        fn however_it_is_made_it_is_bounded(text in "\\PC{0,6000}") {
            let reason = Reason::from(text.as_str());
            prop_assert!(reason.len() <= Reason::MAX);
            if text.len() <= Reason::MAX {
                prop_assert_eq!(&*reason, text.as_str());
            }
            let read: Reason = serde_json::from_value(text.into()).unwrap();
            prop_assert_eq!(read, reason);
        }
    }
}
