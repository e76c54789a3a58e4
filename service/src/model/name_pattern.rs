//! A pattern for the names of tasks: a name, or one in which `*` stands for any text. Pure.

/// Selects tasks by their name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamePattern(String);

impl NamePattern {
    /// The pattern as it is written.
    pub(crate) fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// Whether a name is selected.
    #[must_use]
    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut left) = name.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let Some((_, after)) = left.split_once(part) else { return false };
            left = after;
        }
        left.ends_with(last)
    }

    /// A pattern of SQL's `LIKE`, with `\` as its escape, that every name which this one
    /// selects meets.
    pub(crate) fn like(&self) -> String {
        let mut like = String::with_capacity(self.0.len());
        for char in self.0.chars() {
            match char {
                '*' => like.push('%'),
                '%' | '_' | '\\' => like.extend(['\\', char]),
                other => like.push(other),
            }
        }
        like
    }
}

#[cfg(test)]
mod tests {
    use super::NamePattern;

    #[test]
    fn a_star_stands_for_any_text_and_everything_else_for_itself() {
        for (pattern, selected, not) in [
            ("sweep", &["sweep"][..], &["Sweep", "sweep2", ""][..]),
            ("sweep*", &["sweep", "sweep-7"], &["asweep", "Sweep"]),
            ("*-7", &["sweep-7", "-7"], &["sweep-70", "7"]),
            ("a*b*c", &["abc", "a1b2c", "abbcc"], &["ac", "abcd", "acb"]),
            ("*", &["", "x"], &[]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("100%_*", &["100%_x"], &["1000_x", "100%xx"]),
        ] {
            let pattern = NamePattern::new(pattern);
            for name in selected {
                assert!(pattern.matches(name), "{pattern:?} and {name}");
            }
            for name in not {
                assert!(!pattern.matches(name), "{pattern:?} and {name}");
            }
        }
        assert_eq!(NamePattern::new("a*%_\\").like(), "a%\\%\\_\\\\");
    }
}
