//! JSON that is carried and never looked into: kept as the text it came as. Pure.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::fmt;
use std::str::FromStr;

/// One JSON value, as text; sound, without space around it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// `[]`.
    #[must_use]
    pub fn empty_array() -> Self {
        Self(RawValue::from_string("[]".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// An array of these values.
    ///
    /// # Errors
    /// When there is too much for the memory's address space, in words.
    pub fn array<'a>(values: impl IntoIterator<Item = &'a Self>) -> Result<Self, String> {
        let values: Vec<&Self> = values.into_iter().collect();
        Self::of(&values)
    }

    /// A value as JSON.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, String> {
        serde_json::value::to_raw_value(value).map(Self).map_err(|error| error.to_string())
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.text().starts_with('[')
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.text().starts_with('{')
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl FromStr for Json {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text).map(Self).map_err(|error| format!("not JSON: {error}"))
    }
}

/// Reads a field that may be missing, and that is there if it is `null`.
pub(crate) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_as_it_came() {
        let text = "[1.50, {\"b\" :1,\n\"a\":1e400}]";
        let json: Json = format!("  {text} ").parse().unwrap();
        assert_eq!((json.text(), json.is_array(), json.is_object()), (text, true, false));
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
        assert!("[1,".parse::<Json>().unwrap_err().contains("not JSON"));
        assert!("1 2".parse::<Json>().is_err());
    }

    #[test]
    fn values_make_an_array() {
        let [one, two]: [Json; 2] = ["1", "\"a b\""].map(|text| text.parse().unwrap());
        assert_eq!(Json::array([&one, &two]).unwrap().text(), r#"[1,"a b"]"#);
        assert_eq!(Json::array([]).unwrap().text(), "[]");
    }
}
