//! Says how many of something there are, in words for people. Pure.

/// The number and the noun for it: `1 task`, `2 tasks`. The noun makes its plural with an
/// `s`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_none_are_many() {
        let words = [0, 1, 2].map(|count| counted(count, "task"));
        assert_eq!(words, ["0 tasks", "1 task", "2 tasks"]);
    }
}
