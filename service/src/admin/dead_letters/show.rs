//! Prints dead letters, and what became of them. What strangers wrote is shown
//! without its control characters.

use super::letter::Letter;
use super::settle::Done;
use crate::cli::output;
use clutch_common::id::Attempt;
use clutch_common::link::{Death, HeldMessage};
use clutch_common::task::blob::Blob;
use serde::Serialize;
use serde_json::{Map, Value};

/// How many bytes of a payload are shown to people.
const PREVIEW: usize = 4096;
/// How many tasks are named to people.
const NAMED: usize = 20;

/// A letter in a list.
#[derive(Serialize)]
struct LetterRow<'a> {
    #[serde(flatten)]
    letter: &'a Letter,
    /// How many tasks in it can be read.
    tasks: usize,
    /// How many results in it can be read.
    results: usize,
}

/// A letter with all that is known of it.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    letter: &'a Letter,
    tasks: &'a [Attempt],
    unreadable: &'a [Attempt],
    results: &'a [Attempt],
    deaths: &'a [Death],
    extra: &'a Map<String, Value>,
    body: &'a Blob,
}

/// The end of an action on a letter, for programs.
#[derive(Serialize)]
struct Settled<'a> {
    handle: &'a str,
    queue: Option<&'a str>,
    #[serde(flatten)]
    done: &'a Done,
}

/// A moment as people read it; a stranger may have written any number.
fn moment(ms: u64) -> String {
    /// The end of the year 9999.
    const LAST: u64 = 253_402_300_799_999;
    if ms <= LAST { crate::client::moment(ms) } else { format!("{ms} ms after 1970") }
}

/// Prints the head of a list.
pub(super) fn heading() -> std::io::Result<()> {
    output::line(&columns("HANDLE", "SINCE", "REASON", "QUEUE", "BYTES", "WHAT"))
}

/// Prints a letter in a list.
pub(super) fn row(letter: &Letter, json: bool) -> anyhow::Result<()> {
    if json {
        let (tasks, results) = (letter.content.tasks.len(), letter.content.results.len());
        return output::json(&LetterRow { letter, tasks, results });
    }
    Ok(output::line(&columns(
        &letter.handle,
        &letter.died_at_ms.map(moment).unwrap_or_default(),
        &output::one_line(letter.reason.as_deref().unwrap_or("unknown")),
        &output::one_line(letter.queue.as_deref().unwrap_or("unknown")),
        &letter.bytes.to_string(),
        &output::one_line(&letter.words()),
    ))?)
}

fn columns(
    handle: &str,
    since: &str,
    reason: &str,
    queue: &str,
    bytes: &str,
    what: &str,
) -> String {
    format!("{handle:<16}  {since:<20}  {reason:<14}  {queue:<42}  {bytes:>8}  {what}")
        .trim_end()
        .to_owned()
}

/// Prints a letter with all that is known of it.
pub(super) fn whole(
    held: HeldMessage,
    letter: &Letter,
    raw: bool,
    json: bool,
) -> anyhow::Result<()> {
    let body = Blob(held.message.body);
    if raw {
        return Ok(output::raw(&body.0)?);
    }
    let content = &letter.content;
    if json {
        return output::json(&Whole {
            letter,
            tasks: &content.tasks,
            unreadable: &content.unreadable,
            results: &content.results,
            deaths: &held.message.deaths,
            extra: &held.extra,
            body: &body,
        });
    }
    for (name, value) in lines(letter, &held.message.deaths, &held.extra) {
        output::line(&format!("{name:<14} {}", output::one_line(&value)))?;
    }
    output::line(&format!("--- payload ({} bytes)", body.0.len()))?;
    output::line(&preview(&body.0))?;
    Ok(())
}

fn lines(letter: &Letter, deaths: &[Death], extra: &Map<String, Value>) -> Vec<(String, String)> {
    let content = &letter.content;
    let mut lines = vec![
        ("handle", Some(letter.handle.clone())),
        ("message id", letter.message_id.clone()),
        ("correlation id", letter.correlation_id.clone()),
        ("type", letter.kind.clone()),
        ("made", letter.made_at_ms.map(moment)),
        ("holds", Some(letter.words())),
    ];
    let attempts = [
        ("task", &content.tasks),
        ("unreadable", &content.unreadable),
        ("result of", &content.results),
    ];
    for (name, attempts) in attempts {
        lines.extend(attempts.iter().take(NAMED).map(|one| (name, Some(one.to_string()))));
        let more = attempts.len().saturating_sub(NAMED);
        lines.push((name, (more > 0).then(|| format!("and {more} more"))));
    }
    for Death { queue, reason, at_ms, count } in deaths {
        let since = at_ms.map(|at| format!(", since {}", moment(at))).unwrap_or_default();
        let times = if *count == 1 { String::new() } else { format!(", {count} times") };
        lines.push(("dead", Some(format!("{reason} in {queue}{since}{times}"))));
    }
    let known = lines.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let extra = extra.iter().map(|(name, value)| {
        (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    });
    known.chain(extra).collect()
}

/// The beginning of a payload: as text where it is one, else with its bytes escaped.
fn preview(body: &[u8]) -> String {
    let shown = body.get(..PREVIEW).unwrap_or(body);
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        // A character that is cut in two is no reason to call it no text.
        Err(error) if error.error_len().is_none() && body.len() > shown.len() => {
            shown.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok())
        }
        Err(_) => None,
    };
    let mut preview = match text {
        Some(text) => text.split('\n').map(output::one_line).collect::<Vec<_>>().join("\n"),
        None => shown.escape_ascii().to_string(),
    };
    if body.len() > shown.len() {
        let more = body.len() - shown.len();
        preview.push_str(&format!("\n--- {more} bytes more: --raw writes all"));
    }
    preview
}

/// Prints what became of a letter.
pub(super) fn done(letter: &Letter, done: &Done, json: bool) -> anyhow::Result<()> {
    let (handle, queue) = (letter.handle.as_str(), letter.queue.as_deref());
    if json {
        return output::json(&Settled { handle, queue, done });
    }
    let text = match done {
        Done::Requeued => {
            let again = letter.problem.as_ref().map(|problem| {
                format!("; it cannot be read ({problem}) and comes back unless its reader is newer")
            });
            let queue = queue.unwrap_or_default();
            format!("requeued {handle} to {queue}{}", again.unwrap_or_default())
        }
        Done::Dropped { cancelled } => {
            let mut text = format!("dropped {handle}");
            if !cancelled.is_empty() {
                let named = cancelled.iter().take(NAMED).map(ToString::to_string);
                let more = cancelled.len().saturating_sub(NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let named = named.collect::<Vec<_>>().join(" ");
                text.push_str(&format!("; these end as cancelled: {named}{more}"));
            }
            text
        }
        Done::Kept { why } => format!("kept {handle}: {why}"),
    };
    Ok(output::line(&output::one_line(&text))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_moment() {
        assert_eq!(moment(1_700_000_000_123), "2023-11-14T22:13:20Z");
        for ms in [253_402_300_799_999, 253_402_300_800_000, u64::MAX] {
            assert!(moment(ms).contains(&ms.to_string()) || moment(ms).starts_with("9999"));
        }
    }

    #[test]
    fn a_payload_is_shown_as_text_where_it_is_one() {
        assert_eq!(preview(b"{\n \"a\": \"\x1b[2J\"}"), "{\n \"a\": \"\\u{1b}[2J\"}");
        assert_eq!(preview(b"a\xff\n"), "a\\xff\\n");
        let long = "é".repeat(PREVIEW);
        let shown = preview(&["x".as_bytes(), long.as_bytes()].concat());
        assert!(shown.starts_with("xéé") && shown.contains("4097 bytes more"), "{}", shown.len());
    }
}
