//! The two forms that bytes have in JSON: a string, or `{"base64": "…"}`. Which one is
//! written is the type's to choose; both are read without a copy in between. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// The second form.
#[derive(Serialize)]
struct Base64 {
    base64: String,
}

/// The keys of the second form, and any that are passed by.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Key {
    Base64,
    #[serde(other)]
    Other,
}

/// Writes bytes in the second form.
pub(super) fn write_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    Base64 { base64: STANDARD.encode(bytes) }.serialize(serializer)
}

/// Reads a value of either form.
pub(super) fn read<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<String> + From<Vec<u8>>,
{
    deserializer.deserialize_any(Either(PhantomData))
}

/// Takes either form of a type.
struct Either<T>(PhantomData<T>);

impl<'de, T: From<String> + From<Vec<u8>>> Visitor<'de> for Either<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"base64\": \"…\"}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        Ok(text.to_owned().into())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<T, E> {
        Ok(text.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut bytes = None;
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Base64 => {
                    let text: Cow<'_, str> = map.next_value()?;
                    let decoded = STANDARD.decode(text.as_bytes());
                    let bad = |error| A::Error::custom(format!("bad base64: {error}"));
                    bytes = Some(decoded.map_err(bad)?);
                }
                Key::Other => drop(map.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        bytes.map(T::from).ok_or_else(|| A::Error::missing_field("base64"))
    }
}
