//! Bytes as they appear in JSON: a plain string where they are UTF-8 and that
//! is not the longer form, `{"base64": "…"}` otherwise. Pure.

use crate::task::text_or_base64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a process's input or output; any value, UTF-8 or not.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Blob(pub Vec<u8>);

impl Blob {
    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes bytes as a [`Blob`] of them is written.
    pub(crate) fn write<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match text(bytes) {
            Some(text) => serializer.serialize_str(text),
            None => text_or_base64::write_base64(bytes, serializer),
        }
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<String> for Blob {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::write(&self.0, serializer)
    }
}

/// How many bytes these take in JSON, as a [`Blob`].
#[must_use]
pub fn encoded_len(bytes: &[u8]) -> usize {
    match text(bytes) {
        Some(text) => escaped_len(text) + r#""""#.len(),
        None => bytes.len().div_ceil(3) * 4 + r#"{"base64":""}"#.len(),
    }
}

/// Bytes as a string, where that is their form.
fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (escaped_len(text) <= bytes.len() / 3 * 4 + 16).then_some(text)
}

/// How many bytes a JSON string takes for this text: most control characters
/// take six.
fn escaped_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_base64::read(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            let blob = Blob(bytes);
            let json = serde_json::to_string(&blob).unwrap();
            prop_assert_eq!(serde_json::from_str::<Blob>(&json).unwrap(), blob);
        }
    }

    #[test]
    fn utf8_is_a_plain_string_and_the_rest_is_base64() {
        assert_eq!(serde_json::to_string(&Blob::from("grüß")).unwrap(), "\"grüß\"");
        assert_eq!(serde_json::to_string(&Blob(vec![0xff])).unwrap(), r#"{"base64":"/w=="}"#);
    }

    #[test]
    fn no_bytes_take_much_more_than_base64() {
        for byte in [0, b'"', b'\n', 0xff] {
            let json = serde_json::to_string(&Blob(vec![byte; 30_000])).unwrap();
            assert!(json.len() <= 40_020, "{byte}: {}", json.len());
        }
        assert_eq!(serde_json::to_string(&Blob::from("a\n\"b\"\n")).unwrap(), r#""a\n\"b\"\n""#);
    }
}
