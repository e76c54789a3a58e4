//! The protocol between daemon and worker, line by line, as `design/0009-workers.md`
//! describes it. Pure.

use clutch_common::id::Attempt;
use clutch_common::task::Call;
use clutch_common::task::json::Json;
use serde::{Deserialize, Deserializer};

/// The version of the protocol that this build speaks.
const VERSION: u64 = 1;
/// The longest line of a worker, in bytes, without its end.
pub(super) const MAX_LINE: usize = 8 * 1024 * 1024;
/// How much of an error a result tells, in characters.
const ERROR_SHOWN: usize = 4096;
/// How much of a line that is not in the protocol is shown, in characters.
const LINE_SHOWN: usize = 80;

/// The answer to a call.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum CallAnswer {
    /// The function returned.
    Value(Json),
    /// The function failed.
    Error(String),
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

/// Reads a worker's hello.
///
/// # Errors
/// It is no hello of this version: why, in words.
pub(super) fn hello(line: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Hello {
        clutch: u64,
    }
    match serde_json::from_slice::<Hello>(line) {
        Ok(Hello { clutch: VERSION }) => Ok(()),
        Ok(Hello { clutch }) => {
            Err(format!("it speaks version {clutch} of the protocol, this endpoint {VERSION}"))
        }
        Err(_) => {
            Err(format!("its first line is {} instead of {{\"clutch\": {VERSION}}}", quoted(line)))
        }
    }
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
        error: Option<String>,
    }
    match serde_json::from_slice::<Said>(line) {
        Ok(Said { call, .. }) if call != Some(number) => {
            let named = call.map_or_else(|| "no call".to_owned(), |call| format!("call {call}"));
            Err(format!("its answer {} names {named}, and not call {number}", quoted(line)))
        }
        Ok(Said { value: Some(value), error: None, .. }) => Ok(CallAnswer::Value(value)),
        Ok(Said { value: None, error: Some(error), .. }) => Ok(CallAnswer::Error(shown(&error))),
        Ok(_) => Err(format!("its answer {} has not one of value and error", quoted(line))),
        Err(error) => Err(format!("its answer {} cannot be read: {error}", quoted(line))),
    }
}

/// Reads a field so that `null` counts as present.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

fn shown(error: &str) -> String {
    match error.char_indices().nth(ERROR_SHOWN) {
        Some((end, _)) => format!("{}…", &error[..end]),
        None => error.to_owned(),
    }
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
        assert_eq!(hello(br#"{"clutch": 1}"#), Ok(()));
        assert_eq!(hello(br#" {"clutch":1,"language":"sh"}"#), Ok(()));
        assert_eq!(find_hello(br#"Loading... {"clutch": 1}"#), Some(&br#"{"clutch": 1}"#[..]));
        assert_eq!(find_hello(b"Loading..."), None);
        let table: [(&[u8], &str); 4] = [
            (br#"{"clutch": 2}"#, "version 2"),
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
            Ok(CallAnswer::Error("ValueError: no".into()))
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
        let Ok(CallAnswer::Error(long)) =
            seven(&format!(r#"{{"call":7,"error":"{}"}}"#, "é".repeat(9000)))
        else {
            panic!("no error")
        };
        assert_eq!(long.chars().count(), ERROR_SHOWN + 1);
    }

    #[test]
    fn noise_is_shown_as_far_as_a_person_wants_to_read_it() {
        assert_eq!(quoted(b"a\tb"), "'a\\tb'");
        assert!(quoted(&[b'x'; 1000]).len() < 100);
        assert!(quoted(b"\xff\x00").starts_with("'\u{fffd}"));
    }
}
