//! Words of a command line, as a shell reads them. Pure.

use std::borrow::Cow;

/// A word, quoted where a shell needs that.
#[must_use]
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |char: char| char.is_alphanumeric() || "-_./=:,@%+".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_shown_as_a_shell_would_need_them() {
        assert_eq!(quoted("--in=/a/b.c"), "--in=/a/b.c");
        assert_eq!(quoted("exit 1"), "'exit 1'");
        assert_eq!(quoted("$HOME"), "'$HOME'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
