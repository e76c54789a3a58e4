//! Reads the list of an envelope part by part, and keeps none of them: a body may have
//! millions. Pure.

use crate::task::reason::Reason;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// How many of the reasons why parts of one message cannot be read are kept.
pub(super) const REASONS: usize = 10;

/// Hands over each part of the list that an envelope has in a field, and counts them.
///
/// # Errors
/// When the envelope cannot be read as far as its end, or has no such list.
pub(super) fn each<'a>(
    body: &'a [u8],
    field: &'static str,
    part: impl FnMut(&'a RawValue),
) -> serde_json::Result<usize> {
    let mut from = serde_json::Deserializer::from_slice(body);
    let count = EnvelopeList { field, part }.deserialize(&mut from)?;
    from.end()?;
    Ok(count)
}

/// The reason that stands for parts that are not told one by one.
pub(super) fn and_more(count: usize) -> Reason {
    format!("and {count} more").into()
}

struct EnvelopeList<F> {
    field: &'static str,
    part: F,
}

struct List<'f, F>(&'f mut F);

impl<'de, F: FnMut(&'de RawValue)> DeserializeSeed<'de> for EnvelopeList<F> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for EnvelopeList<F> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<usize, A::Error> {
        let mut count = None;
        while let Some(key) = fields.next_key::<Cow<'_, str>>()? {
            if *key != *self.field {
                fields.next_value::<IgnoredAny>()?;
            } else if count.replace(fields.next_value_seed(List(&mut self.part))?).is_some() {
                return Err(A::Error::duplicate_field(self.field));
            }
        }
        count.ok_or_else(|| A::Error::missing_field(self.field))
    }
}

impl<'de, F: FnMut(&'de RawValue)> DeserializeSeed<'de> for List<'_, F> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for List<'_, F> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while let Some(part) = list.next_element()? {
            (self.0)(part);
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(body: &str) -> Result<Vec<String>, String> {
        let mut parts = Vec::new();
        each(body.as_bytes(), "p", |part| parts.push(part.get().to_owned()))
            .map(|count| assert_eq!(count, parts.len()))
            .map_err(|error| error.to_string())?;
        Ok(parts)
    }

    #[test]
    fn each_part_is_handed_over_wherever_the_list_is() {
        assert_eq!(
            parts(r#"{"a":[1],"p":[1,{"x":[2]}],"b":null}"#).unwrap(),
            ["1", r#"{"x":[2]}"#]
        );
        assert_eq!(parts(r#"{"p":[]}"#).unwrap(), [""; 0]);
    }

    #[test]
    fn a_list_that_is_missing_doubled_or_cut_off_is_an_error() {
        for (body, why) in [
            ("{}", "missing field `p`"),
            (r#"{"p":[1],"p":[2]}"#, "duplicate field `p`"),
            (r#"{"p":[1,2"#, "EOF"),
            (r#"{"p":7}"#, "a list"),
            (r#"{"p":[1]} x"#, "trailing"),
            ("[]", "an envelope"),
        ] {
            let error = parts(body).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
        }
    }
}
