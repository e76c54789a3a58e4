//! Prints the output of one task: of a running one as it comes, of a finished one as it is
//! recorded.

use super::submit::mirrored;
use crate::api::types::{OutputAnswer, OutputPiece};
use crate::cli::{LogsArgs, output};
use crate::client::Client;
use crate::failure::GENERAL;
use crate::model::TaskState;
use clutch_common::text::counted::counted;
use clutch_common::text::printable;
use clutch_common::wire::StreamName;
use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::time::Duration;

/// How long one request is held.
const HELD: Duration = Duration::from_secs(20);
/// How long to wait for the first output without `--follow`: the endpoint has to be asked.
const FIRST: Duration = Duration::from_millis(1500);
/// How long to wait for more of it.
const MORE: Duration = Duration::from_millis(500);
/// How long a service that is away is waited for with `--follow`.
const AWAY: Duration = Duration::from_secs(600);

/// How far the output is read, and what was said of it.
struct Reader {
    stream: StreamName,
    /// Whether the output is shown on a terminal.
    terminal: bool,
    attempt: u32,
    run: u64,
    /// The position in the stream.
    position: u64,
    /// The beginning of a character that is not whole yet; on a terminal only.
    partial: Vec<u8>,
    /// The last byte that was shown was not the end of a line.
    open_line: bool,
    /// It was said that the service's link is lost.
    told_unlinked: bool,
}

/// Prints the output of a task. With `--follow` returns the exit code of the task, otherwise 0.
///
/// # Errors
/// When the service does not know the task, or stays away.
pub(crate) async fn run(client: &Client, args: &LogsArgs, json: bool) -> anyhow::Result<u8> {
    let stream = if args.stderr { StreamName::Stderr } else { StreamName::Stdout };
    let mut reader = Reader::new(stream, std::io::stdout().is_terminal());
    let mut wait = if args.follow { HELD } else { FIRST };
    let client = if args.follow { client.clone().reconnecting(Some(AWAY)) } else { client.clone() };
    loop {
        let answer = ask(&client, args, &reader, wait).await?;
        reader.tell(&answer);
        if json {
            output::json(&answer)?;
        }
        for piece in &answer.pieces {
            reader.take(piece, json)?;
        }
        output::flush()?;
        if answer.ended {
            let code = reader.finish(&answer, json)?;
            return Ok(if args.follow { code } else { 0 });
        }
        if !args.follow {
            if answer.pieces.is_empty() {
                reader.end_line(json)?;
                return Ok(0);
            }
            wait = MORE;
        }
    }
}

async fn ask(
    client: &Client,
    args: &LogsArgs,
    reader: &Reader,
    wait: Duration,
) -> anyhow::Result<OutputAnswer> {
    let parameters = [
        ("stream", reader.name().to_owned()),
        ("attempt", reader.attempt.to_string()),
        ("run", reader.run.to_string()),
        ("from", reader.position.to_string()),
        ("timeout_ms", wait.as_millis().to_string()),
    ];
    client.get(&format!("/v1/tasks/{}/output", args.task), &parameters).await
}

impl Reader {
    fn new(stream: StreamName, terminal: bool) -> Self {
        let (attempt, run, position, partial) = (0, 0, 0, Vec::new());
        let (open_line, told_unlinked) = (false, false);
        Self { stream, terminal, attempt, run, position, partial, open_line, told_unlinked }
    }

    fn name(&self) -> &'static str {
        match self.stream {
            StreamName::Stdout => "stdout",
            StreamName::Stderr => "stderr",
        }
    }

    /// Says on stderr what the output alone does not tell.
    fn tell(&mut self, answer: &OutputAnswer) {
        if self.attempt != 0 && answer.attempt != self.attempt {
            let attempt = answer.attempt;
            output::note(&format!("attempt {attempt} of the task runs: its output begins anew"));
        } else if self.run != 0 && answer.run != self.run {
            output::note(
                "the endpoint was started again, and the task with it: its output begins anew",
            );
        }
        if (answer.attempt, answer.run) != (self.attempt, self.run) {
            (self.attempt, self.run, self.position) = (answer.attempt, answer.run, 0);
            self.partial.clear();
        }
        if self.told_unlinked == answer.engaged && !answer.ended {
            self.told_unlinked = !answer.engaged;
            output::note(if answer.engaged {
                "the service has its link to the broker again: going on"
            } else {
                "the service has no link to the broker: output comes once it has one again"
            });
        }
    }

    /// Shows what is new of a piece.
    fn take(&mut self, piece: &OutputPiece, json: bool) -> std::io::Result<()> {
        let missing = piece.from.saturating_sub(self.position);
        if missing > 0 && !json {
            self.end_line(json)?;
            let bytes = counted(missing, "byte");
            output::raw_line(&format!("[… {bytes} left out …]"))?;
        }
        let known = usize::try_from(self.position.saturating_sub(piece.from)).unwrap_or(usize::MAX);
        let new = piece.bytes.0.get(known..).unwrap_or_default();
        self.position = self.position.max(piece.from.saturating_add(piece.bytes.0.len() as u64));
        if json || new.is_empty() {
            return Ok(());
        }
        self.open_line = !new.ends_with(b"\n");
        let shown = shown(&mut self.partial, new, self.terminal);
        output::raw(&shown)
    }

    /// Ends a line that is open, where a person reads it.
    fn end_line(&mut self, json: bool) -> std::io::Result<()> {
        let rest = printable::bytes(&std::mem::take(&mut self.partial));
        if json || !self.terminal || !std::mem::take(&mut self.open_line) {
            return Ok(());
        }
        output::raw_line(&rest)
    }

    /// Says how the task ended, and returns its exit code.
    fn finish(&mut self, answer: &OutputAnswer, json: bool) -> std::io::Result<u8> {
        self.end_line(json)?;
        let TaskState::Done(outcome) = answer.state else { return Ok(GENERAL) };
        let code = mirrored(outcome, answer.exit_code, answer.signal);
        if code != 0 && answer.exit_code.is_none() && !json {
            output::note(&format!("the task ended: {outcome}"));
        }
        Ok(code)
    }
}

/// Bytes as they are shown: as they are on a pipe; on a terminal with escapes, and without the
/// beginning of a character that is not whole yet, which is kept in `partial`.
fn shown<'a>(partial: &mut Vec<u8>, new: &'a [u8], terminal: bool) -> Cow<'a, [u8]> {
    if !terminal {
        return Cow::Borrowed(new);
    }
    let mut bytes = std::mem::take(partial);
    bytes.extend_from_slice(new);
    let last = bytes.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
    let cut = bytes.len() - last;
    if std::str::from_utf8(&bytes[cut..]).is_err_and(|error| error.error_len().is_none()) {
        *partial = bytes.split_off(cut);
    }
    Cow::Owned(printable::bytes(&bytes).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_comes_in_two_pieces_is_shown_whole_on_a_terminal() {
        let mut partial = Vec::new();
        assert_eq!(*shown(&mut partial, b"a\xc3", true), *b"a");
        assert_eq!(*shown(&mut partial, b"\xa9\x1b\xff!", true), *"é\\u{1b}\\xff!".as_bytes());
        assert_eq!(*shown(&mut partial, b"\xff", true), *b"\\xff");
        assert!(partial.is_empty());
        assert_eq!(*shown(&mut partial, b"a\xc3\x1b", false), *b"a\xc3\x1b");
    }

    #[test]
    fn a_gap_is_passed_and_what_comes_twice_is_shown_once() {
        let mut reader = Reader::new(StreamName::Stdout, false);
        let piece = |from, text: &str| OutputPiece { from, bytes: text.as_bytes().to_vec().into() };
        for (given, position) in [(piece(0, "abc"), 3), (piece(1, "bcd"), 4), (piece(9, "x"), 10)] {
            reader.take(&given, true).unwrap();
            assert_eq!(reader.position, position);
        }
    }
}
