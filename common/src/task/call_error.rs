//! The shape of an error: what a failed call tells besides its words, so that programs can
//! decide on it. Pure.
//!
//! A [`CallError`] is bounded, however it is made: type and message keep their start, with
//! `…` where they are cut, and data that are too long give way to an object that says how
//! long they were.

use crate::task::json::{self, Json};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// The error of a failed call.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(from = "Told")]
pub struct CallError {
    /// Its type, such as the qualified name of an exception's class.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its message.
    pub message: String,
    /// Data of the function's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
}

/// An error as it was told, of any length.
#[derive(Deserialize)]
struct Told {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
    #[serde(default, deserialize_with = "json::present")]
    data: Option<Json>,
}

impl From<Told> for CallError {
    fn from(told: Told) -> Self {
        Self::new(&told.kind, &told.message, told.data)
    }
}

impl CallError {
    /// The most characters of a type.
    pub const KIND_MAX: usize = 256;
    /// The most characters of a message.
    pub const MESSAGE_MAX: usize = 4096;
    /// The most bytes of data.
    pub const DATA_MAX: usize = 64 * 1024;

    /// Creates an error within the bounds.
    #[must_use]
    pub fn new(kind: &str, message: &str, data: Option<Json>) -> Self {
        Self {
            kind: start(kind, Self::KIND_MAX),
            message: start(message, Self::MESSAGE_MAX),
            data: data.map(|data| bounded(data, Self::DATA_MAX)),
        }
    }

    /// Cuts it to what fits any message: the starts of type and message, and a mark in the
    /// place of longer data.
    #[must_use]
    pub fn cut(self) -> Self {
        Self {
            kind: start(&self.kind, 64),
            message: start(&self.message, 128),
            data: self.data.map(|data| bounded(data, 64)),
        }
    }

    /// Returns it as JSON.
    #[must_use]
    pub fn json(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// The most bytes that it takes in JSON.
    #[must_use]
    pub fn longest(&self) -> usize {
        // Every character may take six.
        let data = self.data.as_ref().map_or(0, |data| data.text().len());
        64 + 6 * (self.kind.len() + self.message.len()) + data
    }
}

impl FromStr for CallError {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text).map_err(|error| format!("not the shape of an error: {error}"))
    }
}

/// Returns the start of a text, and `…` in the place of the rest.
#[must_use]
pub fn start(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns data that are no longer than `max` bytes: longer ones give way to
/// `{"omitted_bytes": N}`.
#[must_use]
pub fn bounded(data: Json, max: usize) -> Json {
    let length = data.text().len();
    if length <= max {
        return data;
    }
    Json::of(&serde_json::json!({ "omitted_bytes": length }))
        .unwrap_or_else(|_| Json::empty_array())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_keeps_what_fits_and_takes_nothing_for_what_it_has_not() {
        let text = r#"{"type":"ValueError","message":"no","data":{"a": 1.50}}"#;
        let error: CallError = serde_json::from_str(text).unwrap();
        assert_eq!((error.kind.as_str(), error.message.as_str()), ("ValueError", "no"));
        assert_eq!(serde_json::to_string(&error).unwrap(), text);
        let bare = CallError::new("E", "", None);
        assert_eq!(serde_json::to_string(&bare).unwrap(), r#"{"type":"E","message":""}"#);
        let null: CallError = serde_json::from_str(r#"{"data":null}"#).unwrap();
        assert_eq!(null.data.unwrap().text(), "null");
    }

    #[test]
    fn what_is_too_long_keeps_its_start_and_is_never_dropped() {
        let data: Json = format!("\"{}\"", "x".repeat(CallError::DATA_MAX)).parse().unwrap();
        let told = serde_json::json!({
            "type": "é".repeat(9000), "message": "m".repeat(9000), "data": &data,
        });
        let error: CallError = serde_json::from_value(told).unwrap();
        assert_eq!(error.kind.chars().count(), CallError::KIND_MAX + 1);
        assert!(error.message.starts_with("mmm") && error.message.ends_with("m…"));
        let omitted = format!(r#"{{"omitted_bytes":{}}}"#, data.text().len());
        assert_eq!(error.data.as_ref().unwrap().text(), omitted);
        let cut = error.cut();
        assert_eq!((cut.message.chars().count(), cut.data.unwrap().text()), (129, &*omitted));
    }

    proptest! {
        #[test]
        fn no_error_takes_more_than_it_says(
            kind in "\\PC{0,300}",
            message in any::<String>(),
            data in prop::option::of("[a-z]{0,100}"),
        ) {
            let data = data.map(|text| Json::of(&text).unwrap());
            let error = CallError::new(&kind, &message, data);
            prop_assert!(serde_json::to_string(&error).unwrap().len() <= error.longest());
            prop_assert_eq!(&error.json().unwrap().parse::<CallError>().unwrap(), &error);
            let cut = error.cut();
            prop_assert!(serde_json::to_string(&cut).unwrap().len() <= 1400);
        }
    }
}
