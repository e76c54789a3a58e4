//! Writes lines of the log for people: what a terminal would act on is escaped, but for
//! the colours of the log itself. Touches the writer it is given.

use crate::text::printable;
use std::io::{self, Write};

/// Escapes what is written through it. Each write is one event, with its line break.
#[derive(Debug)]
pub(super) struct Clean<W>(pub(super) W);

impl<W: Write> Write for Clean<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(clean(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// An event as one line. The log's own colours have the form `ESC [ digits m`; the same
/// in a value has been escaped before.
fn clean(event: &str) -> String {
    let (line, end) = match event.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (event, ""),
    };
    let mut shown = String::with_capacity(event.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\x1b') {
        shown.push_str(&printable::line(before));
        let length = colour(after);
        shown.push_str(if length > 0 { "\x1b" } else { "\\u{1b}" });
        shown.push_str(&after[..length]);
        rest = &after[length..];
    }
    shown.push_str(&printable::line(rest));
    shown.push_str(end);
    shown
}

/// How long the colour is that begins here, without its ESC; 0 for none.
fn colour(text: &str) -> usize {
    let Some(digits) = text.strip_prefix('[') else { return 0 };
    let end = digits.find(|char: char| !char.is_ascii_digit() && char != ';');
    end.filter(|end| digits[*end..].starts_with('m')).map_or(0, |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_keeps_its_colours_and_nothing_else_that_a_terminal_acts_on() {
        assert_eq!(clean("\x1b[32m INFO\x1b[0m a\u{202e}\n"), "\x1b[32m INFO\x1b[0m a\\u{202e}\n");
        assert_eq!(clean("a\nb\x1b[2J\x1b]0;t\x07\n"), "a\\nb\\u{1b}[2J\\u{1b}]0;t\\u{7}\n");
        let mut out = Vec::new();
        Clean(&mut out).write_all("x\ty\n".as_bytes()).unwrap();
        assert_eq!(out, b"x\\ty\n");
    }
}
