//! Progress in the words of a task. Pure.
//!
//! A process tells a line: JSON `{"fraction": 0.5, "message": "…", "data": …}`, or plain text,
//! such as `0.5 words`, `50% words` or `words`. A worker tells the same JSON.

use clutch_common::task::call_error::{bounded, start};
use clutch_common::task::json::Json;
use clutch_common::wire::TaskProgress;
use serde::Deserialize;

/// The most bytes of a line that count, and of data.
pub(crate) const LINE_MAX: usize = 4096;
/// The most characters of a message.
const MESSAGE_MAX: usize = 200;

/// Progress as it is told in JSON.
#[derive(Deserialize)]
pub(crate) struct ProgressLine {
    #[serde(default)]
    fraction: Option<f64>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    data: Option<Json>,
}

impl ProgressLine {
    /// Returns it within the bounds.
    pub(crate) fn at(self, at_ms: u64) -> TaskProgress {
        TaskProgress {
            fraction: self.fraction.and_then(fraction),
            message: self.message.map(|message| start(&message, MESSAGE_MAX)),
            data: self.data.map(|data| bounded(data, LINE_MAX)),
            at_ms,
        }
    }
}

/// Reads the last line of what a process wrote; `None` if there is none. A line that has no
/// end and is JSON that has none is still being written: the one before counts.
pub(crate) fn last_line(written: &[u8], at_ms: u64) -> Option<TaskProgress> {
    let mut lines = written.rsplit(|byte| *byte == b'\n');
    let unfinished = lines.next().unwrap_or_default().trim_ascii();
    let is_half = unfinished.starts_with(b"{") && json(unfinished).is_none();
    let mut told = (!is_half && !unfinished.is_empty()).then_some(unfinished);
    if told.is_none() {
        told = lines.map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
    }
    let line = told.or_else(|| is_half.then_some(unfinished))?;
    Some(match json(line) {
        Some(told) => told.at(at_ms),
        None => plain(&String::from_utf8_lossy(&line[..line.len().min(LINE_MAX)])).at(at_ms),
    })
}

fn json(line: &[u8]) -> Option<ProgressLine> {
    if line.len() > LINE_MAX || !line.starts_with(b"{") {
        return None;
    }
    serde_json::from_slice(line).ok()
}

/// Reads plain text. A number is a fraction where it has a point or a percent sign.
fn plain(line: &str) -> ProgressLine {
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let number = match first.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok().map(|percent| percent / 100.0),
        None if first.contains('.') => first.parse::<f64>().ok(),
        None => None,
    };
    let fraction = number.and_then(fraction);
    let words = if fraction.is_some() { rest.trim() } else { line };
    ProgressLine { fraction, message: (!words.is_empty()).then(|| words.to_owned()), data: None }
}

/// Returns a number from 0 to 1; anything else is no fraction.
fn fraction(number: f64) -> Option<f64> {
    (0.0..=1.0).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(written: &[u8]) -> Option<(Option<f64>, Option<String>, Option<String>)> {
        let told = last_line(written, 7)?;
        assert_eq!(told.at_ms, 7);
        Some((told.fraction, told.message, told.data.map(|data| data.text().to_owned())))
    }

    #[test]
    fn the_last_line_counts_in_json_or_in_words() {
        let words = |fraction, words: &str| {
            Some((fraction, (!words.is_empty()).then(|| words.to_owned()), None))
        };
        for (written, expected) in [
            ("", None),
            ("\n \n", None),
            ("0.5 half way\n", words(Some(0.5), "half way")),
            ("0.1\n0.25", words(Some(0.25), "")),
            ("50% half way\r\n\n", words(Some(0.5), "half way")),
            ("100%", words(Some(1.0), "")),
            ("step 3 of 10", words(None, "step 3 of 10")),
            ("1 of 10 files", words(None, "1 of 10 files")),
            ("1.5 times", words(None, "1.5 times")),
            ("-0.1", words(None, "-0.1")),
            ("NaN. x", words(None, "NaN. x")),
            (r#"{"fraction":0.5,"message":"m","later":1}"#, words(Some(0.5), "m")),
            (r#"{"fraction":7}"#, words(None, "")),
            ("0.3 before\n{\"fraction\":0.", words(Some(0.3), "before")),
            ("{\"fraction\":0.\n", words(None, "{\"fraction\":0.")),
        ] {
            assert_eq!(read(written.as_bytes()), expected, "{written:?}");
        }
        let told = read(br#"{"data":{"a": 1.50}}"#).unwrap();
        assert_eq!(told, (None, None, Some(r#"{"a": 1.50}"#.to_owned())));
        assert_eq!(read(b"\xff\n").unwrap().1.unwrap(), "\u{fffd}");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let told = read("é".repeat(5000).as_bytes()).unwrap();
        assert_eq!(told.1.unwrap().chars().count(), MESSAGE_MAX + 1);
        let told: ProgressLine =
            serde_json::from_value(serde_json::json!({"data": "x".repeat(LINE_MAX)})).unwrap();
        assert_eq!(told.at(0).data.unwrap().text(), r#"{"omitted_bytes":4098}"#);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(written in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(told) = last_line(&written, 0) {
                prop_assert!(told.message.is_none_or(|message| message.chars().count() <= 201));
                prop_assert!(told.fraction.is_none_or(|fraction| (0.0..=1.0).contains(&fraction)));
            }
        }
    }
}
