//! A string that the system takes as bytes: an argument, a variable's value, a path. In
//! JSON it is a string where it is UTF-8, and `{"base64": "…"}` otherwise. Pure.

use crate::task::text_or_base64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// Text nearly always, any bytes at all otherwise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteString(Form);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Text(String),
    /// Never UTF-8.
    Bytes(Vec<u8>),
}

impl ByteString {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Text(text) => text.as_bytes(),
            Form::Bytes(bytes) => bytes,
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// For people: bytes that are no text are written as `\xff`.
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Text(text) => Cow::Borrowed(text),
            Form::Bytes(bytes) => {
                let mut shown = String::with_capacity(bytes.len());
                for chunk in bytes.utf8_chunks() {
                    shown.push_str(chunk.valid());
                    shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
                }
                Cow::Owned(shown)
            }
        }
    }
}

impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Text(text) => fmt::Debug::fmt(text, f),
            Form::Bytes(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
        }
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> Self {
        Self(Form::Text(text))
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        Self(
            String::from_utf8(bytes)
                .map_or_else(|error| Form::Bytes(error.into_bytes()), Form::Text),
        )
    }
}

impl From<OsString> for ByteString {
    fn from(string: OsString) -> Self {
        string.into_vec().into()
    }
}

impl AsRef<OsStr> for ByteString {
    fn as_ref(&self) -> &OsStr {
        OsStr::from_bytes(self.as_bytes())
    }
}

impl AsRef<Path> for ByteString {
    fn as_ref(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.as_bytes()))
    }
}

impl PartialEq<str> for ByteString {
    fn eq(&self, text: &str) -> bool {
        self.as_bytes() == text.as_bytes()
    }
}

impl PartialEq<&str> for ByteString {
    fn eq(&self, text: &&str) -> bool {
        self == *text
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Text(text) => serializer.serialize_str(text),
            Form::Bytes(bytes) => text_or_base64::write_base64(bytes, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ByteString {
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
            let string = ByteString::from(bytes.clone());
            let json = serde_json::to_string(&string).unwrap();
            let again: ByteString = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(again.as_bytes(), &bytes);
            prop_assert_eq!(again, string);
        }
    }

    #[test]
    fn text_is_a_plain_string_and_either_form_is_taken() {
        let json = |bytes: &[u8]| serde_json::to_string(&ByteString::from(bytes.to_vec())).unwrap();
        assert_eq!(json("grüß\n".as_bytes()), r#""grüß\n""#);
        assert_eq!(json(b"a\xff"), r#"{"base64":"Yf8="}"#);
        let read = |json: &str| serde_json::from_str::<ByteString>(json);
        assert_eq!(read(r#"{"x":[1],"base64":"YQ=="}"#).unwrap(), "a");
        for bad in ["1", "null", "[]", "{}", r#"{"base64":"*"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn people_see_which_bytes_are_no_text() {
        let string = ByteString::from(b"a\xffb".to_vec());
        assert_eq!(
            (string.to_string(), format!("{string:?}")),
            ("a\\xffb".into(), r#""a\xffb""#.into())
        );
        assert_eq!(format!("{:?}", ByteString::from("a\"b")), r#""a\"b""#);
    }
}
