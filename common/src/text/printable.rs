//! Makes text from elsewhere fit for a person's screen. Pure.
//!
//! Names, reasons, paths and messages come from tasks, peers and files. What a terminal
//! takes as a command, what turns the direction of a line, and what cannot be seen is
//! shown as its escape, such as `\u{1b}`; everything else is left as it is.

use std::borrow::Cow;

/// Text on one line: line breaks and tabs are escaped, too.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_misleading)
}

/// Text of several lines, with its line breaks and tabs.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |char| is_misleading(char) && !matches!(char, '\n' | '\t'))
}

/// Bytes as text of several lines; those that are no UTF-8 are escaped as `\xff`.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&lines(chunk.valid()));
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shown
}

fn escaped(text: &str, escapes: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&escapes) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if escapes(char) { shown.extend(char.escape_default()) } else { shown.push(char) }
    }
    Cow::Owned(shown)
}

/// Whether a screen does something else with the character than show it.
fn is_misleading(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}'                        // soft hyphen
            | '\u{61c}'                     // direction
            | '\u{180e}'                    // no width
            | '\u{200b}'..='\u{200f}'       // no width, direction
            | '\u{2028}'..='\u{202e}'       // line breaks, direction
            | '\u{2060}'..='\u{206f}'       // no width, direction
            | '\u{feff}'                    // byte order mark
            | '\u{fff9}'..='\u{fffb}'       // annotations
            | '\u{e0000}'..='\u{e007f}'     // tags
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_for_a_terminal_and_what_cannot_be_seen_are_escaped() {
        assert_eq!(line("\x1b[2J\x07"), "\\u{1b}[2J\\u{7}");
        assert_eq!(
            line("a\u{202e}b\u{9b}31m\u{200b}\u{2066}\u{feff}\u{7f}"),
            "a\\u{202e}b\\u{9b}31m\\u{200b}\\u{2066}\\u{feff}\\u{7f}"
        );
        assert_eq!(line("a\r\n\tb\u{2028}"), "a\\r\\n\\tb\\u{2028}");
        assert_eq!(lines("a\r\n\tb\u{85}"), "a\\r\n\tb\\u{85}");
    }

    #[test]
    fn what_people_write_stays_as_it_is_and_is_not_copied() {
        for text in ["grüß Gott", "日本語 \\n '\"", "👍\u{fe0f}", "שלום"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        assert_eq!(bytes(b"a\xffb\n\x1b[m"), "a\\xffb\n\\u{1b}[m");
    }
}
