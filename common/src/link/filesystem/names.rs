//! The names of files and folders below the root. Pure.

use std::path::{Path, PathBuf};

/// The longest name of a queue, exchange or lease, in bytes: AMQP's.
pub(super) const LONGEST_NAME: usize = 255;
/// The longest component of a path we make, in bytes; file systems take 255.
const LONGEST_COMPONENT: usize = 200;

/// A broker's name as a relative path. Letters, digits, `.`, `_` and `-` stand
/// for themselves, any other byte is `%XX`, and so is a leading dot. What is
/// too long for one component goes on below a folder that ends in `+`. No two
/// names share a path, and none is a folder on another's path.
pub(super) fn encoded(name: &str) -> PathBuf {
    let mut path = PathBuf::new();
    let mut component = String::new();
    for byte in name.bytes() {
        if component.len() >= LONGEST_COMPONENT {
            path.push(format!("{component}+"));
            component.clear();
        }
        let plain = byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if plain && !(component.is_empty() && byte == b'.') {
            component.push(char::from(byte));
        } else {
            component.push_str(&format!("%{byte:02X}"));
        }
    }
    if component.is_empty() {
        component.push('%');
    }
    path.join(component)
}

/// A group of messages in a queue, or a part of one: its producer's number for
/// it, and what became of it so far.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FileName {
    /// The producer's number for the group, from 1 on without gaps.
    pub(super) number: u64,
    /// The place of its first message that is not settled.
    pub(super) from: usize,
    /// The place after its last message, where that is not the group's end.
    pub(super) to: Option<usize>,
    /// How often it was claimed by a consumer that may have delivered some.
    pub(super) deliveries: u64,
}

impl FileName {
    /// A group that no consumer has claimed yet.
    pub(super) fn fresh(number: u64) -> Self {
        Self { number, from: 0, to: None, deliveries: 0 }
    }

    /// Its file's name in the producer's folder: `number`, or
    /// `number.deliveries.from-to` where there is more to say. What is fresh has
    /// a name that can be guessed.
    pub(super) fn name(self) -> String {
        let Self { number, from, to, deliveries } = self;
        if self == Self::fresh(number) {
            return format!("{number:016}");
        }
        let to = to.map_or_else(String::new, |to| to.to_string());
        format!("{number:016}.{deliveries}.{from}-{to}")
    }

    /// Reads a file's name in the producer's folder.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (number, rest) = match name.split_once('.') {
            Some((number, rest)) => (number, Some(rest)),
            None => (name, None),
        };
        let mut entry = Self::fresh(digits(number)?);
        if let Some(rest) = rest {
            let (deliveries, places) = rest.split_once('.')?;
            let (from, to) = places.split_once('-')?;
            entry.deliveries = digits(deliveries)?;
            entry.from = usize::try_from(digits(from)?).ok()?;
            if !to.is_empty() {
                entry.to = Some(usize::try_from(digits(to)?).ok()?);
            }
        }
        (entry.name() == name).then_some(entry)
    }

    /// Its file's name among a consumer's claims.
    pub(super) fn claim_name(self, producer: &str) -> String {
        format!("{producer}~{}", self.name())
    }

    /// Reads a file's name among a consumer's claims.
    pub(super) fn parse_claim(name: &str) -> Option<(&str, Self)> {
        let (producer, entry) = name.split_once('~')?;
        Some((producer, Self::parse(entry)?))
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Whether a name is that of a producer or consumer: a session's and a number.
/// Whatever else is in a folder of ours is not ours.
pub(super) fn is_member(name: &str) -> bool {
    name.split_once('.').is_some_and(|(session, number)| {
        is_session(session) && digits(number).is_some_and(|number| number > 0)
    })
}

/// Whether a name is that of a session.
pub(super) fn is_session(name: &str) -> bool {
    uuid::Uuid::try_parse(name).is_ok_and(|id| id.hyphenated().to_string() == name)
}

/// The session that a producer's or consumer's folder belongs to.
pub(super) fn session_of(member: &str) -> &str {
    member.split_once('.').map_or(member, |(session, _)| session)
}

/// Whether a file is being written, or was when its writer died.
pub(super) fn is_temporary(name: &Path) -> bool {
    name.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_names_stand_for_themselves() {
        for (name, path) in [
            ("0189-a.tasks", "0189-a.tasks"),
            (".hidden", "%2Ehidden"),
            ("..", "%2E."),
            ("a/b c%", "a%2Fb%20c%25"),
            ("ü", "%C3%BC"),
            ("", "%"),
        ] {
            assert_eq!(encoded(name), Path::new(path));
        }
    }

    #[test]
    fn an_entrys_name_says_what_became_of_it() {
        for (entry, name) in [
            (FileName::fresh(7), "0000000000000007"),
            (FileName { number: 7, from: 31, to: None, deliveries: 2 }, "0000000000000007.2.31-"),
            (FileName { number: 7, from: 0, to: Some(3), deliveries: 0 }, "0000000000000007.0.0-3"),
        ] {
            assert_eq!(entry.name(), name);
            assert_eq!(FileName::parse(name), Some(entry));
            assert_eq!(FileName::parse_claim(&entry.claim_name("s.1")), Some(("s.1", entry)));
        }
    }

    #[test]
    fn foreign_names_are_no_entries() {
        for name in [
            "",
            "7",
            ".tmp",
            "0000000000000007.1",
            "0000000000000007.1.2",
            "0000000000000007.1.2-3-4",
            "0000000000000007.0.0-",
            "000000000000000x",
            "+000000000000007",
            "0000000000000007.01.0-",
            "notes.txt",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_two_names_share_or_cross_a_path(a in ".{0,255}", b in ".{0,255}") {
            let (left, right) = (encoded(&a), encoded(&b));
            prop_assert_eq!(a == b, left == right);
            prop_assert!(a == b || !(left.starts_with(&right) || right.starts_with(&left)));
            for part in left.components() {
                let part = part.as_os_str();
                prop_assert!(part.len() <= 255 && !part.as_encoded_bytes().starts_with(b"."));
            }
        }
    }
}
