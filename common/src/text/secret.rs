//! Keeps passwords out of what is written for people: messages, logs, `Debug`. Pure.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// The text that stands for a password.
const HIDDEN: &str = "***";

/// A URL that may hold a password. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL, password included.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is a password in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        has_password(&self.0)
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redacted(&self.0), f)
    }
}

/// Whether there is a password in a URL.
#[must_use]
pub fn has_password(url: &str) -> bool {
    matches!(redacted(url), Cow::Owned(shown) if shown != url)
}

/// The text with the passwords of the URLs in it left out. A URL ends at white space
/// or a quote; its password at the last `@`, as one that lacks its escapes may hold
/// further ones.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let ends = |char: char| char.is_whitespace() || matches!(char, '"' | '\'' | '`');
        let url = &after[..after.find(ends).unwrap_or(after.len())];
        let password =
            url.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host)));
        shown.push_str(before);
        shown.push_str("://");
        match password {
            Some((user, host)) => shown.extend([user, ":", HIDDEN, "@", host]),
            None => shown.push_str(url),
        }
        rest = &after[url.len()..];
    }
    if shown.is_empty() {
        return Cow::Borrowed(text);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// Says what is wrong with a configuration, and where, for a parser that would quote the
/// line: that may hold a password.
#[must_use]
pub fn located(text: &str, span: Option<Range<usize>>, message: &str) -> String {
    let message = redacted(message.trim());
    let Some(before) = span.and_then(|span| text.get(..span.start)) else {
        return message.into_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_left_in_a_text() {
        for (text, shown) in [
            ("nothing here", "nothing here"),
            ("amqp://u:sesame@h:1/v is bad", "amqp://u:***@h:1/v is bad"),
            ("'amqp://u:ses@am/e#@h' \"http://a:sesame@b\"", "'amqp://u:***@h' \"http://a:***@b\""),
            ("amqp://host:5672/v", "amqp://host:5672/v"),
            ("amqp://user@host", "amqp://user@host"),
        ] {
            assert_eq!(redacted(text), shown);
        }
        assert!(has_password("amqp://u:sesame@h") && !has_password("file:///a"));
        assert_eq!(format!("{:?}", SecretUrl::from("amqp://u:sesame@h")), r#""amqp://u:***@h""#);
    }

    #[test]
    fn a_place_is_counted_as_people_do() {
        let text = "a = 1\nurl = \"amqp://u:sesame@h\n";
        assert_eq!(located(text, Some(12..20), "no end\n"), "line 2, column 7: no end");
        assert_eq!(located(text, None, "bad amqp://u:sesame@h"), "bad amqp://u:***@h");
    }
}
