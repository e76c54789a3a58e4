//! The protocol between daemon and worker, line by line, as `design/0009-workers.md`
//! describes it. Pure.

use crate::execution::live::progress::ProgressLine;
use clutch_common::id::Attempt;
use clutch_common::task::Call;
use clutch_common::task::call_error::{CallError, start};
use clutch_common::task::json::Json;
use serde::{Deserialize, Deserializer};

/// The versions of the protocol that this build speaks.
const VERSIONS: std::ops::RangeInclusive<u64> = 1..=2;
/// The first version in which a worker may tell progress before it answers.
const WITH_PROGRESS: u64 = 2;
/// The longest line of a worker, in bytes, without its end.
pub(super) const MAX_LINE: usize = 8 * 1024 * 1024;
/// How much of an error a result tells, in characters.
const ERROR_SHOWN: usize = 4096;
/// The field that tells progress, and within how many bytes it begins.
const PROGRESS: &[u8] = b"\"progress\"";
const BEGINNING: usize = 64;
/// How much of a line that is not in the protocol is shown, in characters.
const LINE_SHOWN: usize = 80;

/// The answer to a call.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum CallAnswer {
    /// The function returned.
    Value(Json),
    /// The function failed: why, in words, and the shape of that where the worker tells it.
    Error(String, Option<Box<CallError>>),
}

/// Encodes the request for a call, under a number that the answer repeats.
pub(super) fn request(number: u64, attempt: Attempt, call: &Call) -> Vec<u8> {
    let mut line = Vec::with_capacity(call.size() + 144);
    line.extend_from_slice(
        format!(
            r#"{{"call":{number},"task":"{}","attempt":{},"function":"{}","args":"#,
            attempt.task_id, attempt.attempt, call.function
        )
        .as_bytes(),
    );
    push(&mut line, &call.args);
    if let Some(kwargs) = &call.kwargs {
        line.extend_from_slice(br#","kwargs":"#);
        push(&mut line, kwargs);
    }
    line.extend_from_slice(b"}\n");
    line
}

/// Appends JSON on one line: its line ends are all between its parts, where a
/// space is as good.
fn push(line: &mut Vec<u8>, json: &Json) {
    let from = line.len();
    line.extend_from_slice(json.text().as_bytes());
    for byte in &mut line[from..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// Finds the hello at the end of a line, which something else may have begun; `None` in
/// a line without one.
pub(super) fn find_hello(line: &[u8]) -> Option<&[u8]> {
    const BEGINNING: &[u8] = b"{\"clutch\"";
    let at = line.windows(BEGINNING.len()).rposition(|window| window == BEGINNING)?;
    Some(&line[at..])
}

/// Reads a worker's hello. Returns whether it may tell progress.
///
/// # Errors
/// It is no hello of a version that this build speaks: why, in words.
pub(super) fn hello(line: &[u8]) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Hello {
        clutch: u64,
    }
    match serde_json::from_slice::<Hello>(line) {
        Ok(Hello { clutch }) if VERSIONS.contains(&clutch) => Ok(clutch >= WITH_PROGRESS),
        Ok(Hello { clutch }) => Err(format!(
            "it speaks version {clutch} of the protocol, this endpoint {} to {}",
            VERSIONS.start(),
            VERSIONS.end()
        )),
        Err(_) => Err(format!(
            "its first line is {} instead of {{\"clutch\": {}}}",
            quoted(line),
            VERSIONS.end()
        )),
    }
}

/// Reads a line in which a worker tells its progress with the call that has this number;
/// `None` if the line is something else.
pub(super) fn progress(line: &[u8], number: u64) -> Option<ProgressLine> {
    #[derive(Deserialize)]
    struct Line {
        call: u64,
        progress: ProgressLine,
    }
    // An answer may be long, and is not to be read twice.
    let beginning = &line[..line.len().min(BEGINNING)];
    if !beginning.windows(PROGRESS.len()).any(|window| window == PROGRESS) {
        return None;
    }
    let Line { call, progress } = serde_json::from_slice(line).ok()?;
    (call == number).then_some(progress)
}

/// Reads a worker's answer to the call with this number.
///
/// # Errors
/// It is no answer to that call: why, in words.
pub(super) fn answer(line: &[u8], number: u64) -> Result<CallAnswer, String> {
    #[derive(Deserialize)]
    struct Said {
        call: Option<u64>,
        #[serde(default, deserialize_with = "present")]
        value: Option<Json>,
        #[serde(default)]
        error: Option<Json>,
    }
    match serde_json::from_slice::<Said>(line) {
        Ok(Said { call, .. }) if call != Some(number) => {
            let named = call.map_or_else(|| "no call".to_owned(), |call| format!("call {call}"));
            Err(format!("its answer {} names {named}, and not call {number}", quoted(line)))
        }
        Ok(Said { value: Some(value), error: None, .. }) => Ok(CallAnswer::Value(value)),
        Ok(Said { value: None, error: Some(error), .. }) => failure(&error)
            .map_err(|error| format!("its answer {} cannot be read: {error}", quoted(line))),
        Ok(_) => Err(format!("its answer {} has not one of value and error", quoted(line))),
        Err(error) => Err(format!("its answer {} cannot be read: {error}", quoted(line))),
    }
}

/// Reads an error: its words, or its shape and maybe its words.
fn failure(error: &Json) -> Result<CallAnswer, serde_json::Error> {
    #[derive(Deserialize)]
    struct WithWords {
        #[serde(default)]
        text: Option<String>,
    }
    if !error.is_object() {
        let words: String = serde_json::from_str(error.text())?;
        return Ok(CallAnswer::Error(start(&words, ERROR_SHOWN), None));
    }
    let shape: CallError = serde_json::from_str(error.text())?;
    let WithWords { text } = serde_json::from_str(error.text())?;
    let words = text.unwrap_or_else(|| format!("{}: {}", shape.kind, shape.message));
    Ok(CallAnswer::Error(start(&words, ERROR_SHOWN), Some(Box::new(shape))))
}

/// Reads a field so that `null` counts as present.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// Quotes the beginning of a line.
pub(super) fn quoted(line: &[u8]) -> String {
    let beginning = &line[..line.len().min(4 * LINE_SHOWN)];
    let text = String::from_utf8_lossy(beginning);
    let kept: String = text.chars().take(LINE_SHOWN).collect();
    let more = if kept.len() < line.len() { "…" } else { "" };
    format!("'{}{more}'", kept.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn line(call: &Call) -> String {
        let task_id: TaskId = ID.parse().unwrap();
        String::from_utf8(request(7, Attempt { task_id, attempt: 2 }, call)).unwrap()
    }

    #[test]
    fn a_request_is_one_line_whatever_its_arguments_look_like() {
        let args = "[1.0,\n {\"a\":\r\n\"x\\ny\"}]".parse().unwrap();
        let mut call = Call::new("add", args);
        let head = format!(r#"{{"call":7,"task":"{ID}","attempt":2,"function":"add","args":"#);
        assert_eq!(line(&call), format!("{head}[1.0,  {{\"a\":  \"x\\ny\"}}]}}\n"));
        call.kwargs = Some("{\"b\":\n1}".parse().unwrap());
        let asked = line(&call);
        assert!(asked.ends_with(",\"kwargs\":{\"b\": 1}}\n"), "{asked}");
        assert_eq!(asked.matches('\n').count(), 1);
        assert!(serde_json::from_str::<serde_json::Value>(&asked).is_ok());
    }

    #[test]
    fn only_a_hello_is_a_hello() {
        assert_eq!(hello(br#"{"clutch": 1}"#), Ok(false));
        assert_eq!(hello(br#" {"clutch":2,"language":"sh"}"#), Ok(true));
        assert_eq!(find_hello(br#"Loading... {"clutch": 1}"#), Some(&br#"{"clutch": 1}"#[..]));
        assert_eq!(find_hello(b"Loading..."), None);
        let table: [(&[u8], &str); 4] = [
            (br#"{"clutch": 3}"#, "version 3"),
            (b"hello", "'hello' instead of"),
            (b"", "'' instead of"),
            (br#"{"value":1}"#, "instead of"),
        ];
        for (said, words) in table {
            let why = hello(said).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn an_answer_names_its_call_and_is_a_value_or_an_error_and_nothing_else() {
        let seven = |line: &str| answer(line.as_bytes(), 7);
        let value = |text: &str| Ok(CallAnswer::Value(text.parse().unwrap()));
        assert_eq!(seven(r#"{"call":7,"value": [1.50, "x"]}"#), value("[1.50, \"x\"]"));
        assert_eq!(seven(r#"{"value":null, "call": 7}"#), value("null"));
        assert_eq!(
            seven(r#"{"call":7,"error":"ValueError: no"}"#),
            Ok(CallAnswer::Error("ValueError: no".into(), None))
        );
        assert_eq!(seven(r#"{"call":7,"value":1,"error":null,"x":2}"#), value("1"));
        let table: [(&[u8], &str); 11] = [
            (b"{}", "names no call"),
            (br#"{"value":1}"#, "names no call, and not call 7"),
            (br#"{"call":6,"value":1}"#, "names call 6, and not call 7"),
            (br#"{"call":"7","value":1}"#, "cannot be read"),
            (br#"{"call":7}"#, "not one of"),
            (br#"{"call":7,"error":null}"#, "not one of"),
            (br#"{"call":7,"value":1,"error":"x"}"#, "not one of"),
            (br#"{"call":7,"error":7}"#, "cannot be read"),
            (b"Traceback (most recent call last)", "'Traceback"),
            (br#"{"call":7,"value":NaN}"#, "cannot be read"),
            (b"{\"call\":7,\"value\":\"\xff\"}", "cannot be read"),
        ];
        for (said, words) in table {
            let why = answer(said, 7).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        let Ok(CallAnswer::Error(long, None)) =
            seven(&format!(r#"{{"call":7,"error":"{}"}}"#, "é".repeat(9000)))
        else {
            panic!("no error")
        };
        assert_eq!(long.chars().count(), ERROR_SHOWN + 1);
    }

    #[test]
    fn an_error_with_a_shape_has_words_too() {
        let shape = |data: Option<&str>| {
            let data = data.map(|data| data.parse().unwrap());
            Some(Box::new(CallError::new("app.Bad", "no", data)))
        };
        for (said, expected) in [
            (
                r#"{"call":7,"error":{"type":"app.Bad","message":"no"}}"#,
                CallAnswer::Error("app.Bad: no".into(), shape(None)),
            ),
            (
                r#"{"call":7,"error":{"text":"Bad!","type":"app.Bad","message":"no","data":[1.5]}}"#,
                CallAnswer::Error("Bad!".into(), shape(Some("[1.5]"))),
            ),
        ] {
            assert_eq!(answer(said.as_bytes(), 7), Ok(expected));
        }
    }

    #[test]
    fn progress_names_its_call_and_is_no_answer() {
        let told = |line: &str| progress(line.as_bytes(), 7).map(|told| told.at(1));
        let half = told(r#"{"call":7,"progress":{"fraction":0.5,"message":"m","data":[1.50]}}"#);
        let half = half.unwrap();
        assert_eq!((half.fraction, half.message.as_deref()), (Some(0.5), Some("m")));
        assert_eq!(half.data.unwrap().text(), "[1.50]");
        for other in [
            r#"{"call":6,"progress":{"fraction":0.5}}"#,
            r#"{"call":7,"value":"progress"}"#,
            r#"{"call":7,"progress":5}"#,
            r#"{"call":7,"progress""#,
        ] {
            assert!(told(other).is_none(), "{other}");
        }
    }

    #[test]
    fn noise_is_shown_as_far_as_a_person_wants_to_read_it() {
        assert_eq!(quoted(b"a\tb"), "'a\\tb'");
        assert!(quoted(&[b'x'; 1000]).len() < 100);
        assert!(quoted(b"\xff\x00").starts_with("'\u{fffd}"));
    }
}
