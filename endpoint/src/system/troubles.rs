//! The troubles that keep the endpoint from starting tasks, in words for people: a full
//! disk, a function with workers that do not start. The parts that meet them say so here;
//! events tell the service.
//!
//! Touches nothing. Promises that a trouble is told from [`Troubles::begin`] until
//! [`Troubles::end`], each subject once, and that no part waits for a reader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many troubles are told at most.
const MAX: usize = 16;
/// The longest words of one, in bytes.
const WORDS: usize = 400;

/// The troubles; clones share them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Troubles(Arc<Mutex<BTreeMap<String, String>>>);

impl Troubles {
    /// Tells a trouble of a subject, such as `disk full`, in place of an earlier one.
    pub(crate) fn begin(&self, subject: &str, words: &str) {
        let words = words[..words.floor_char_boundary(WORDS)].to_owned();
        self.all().insert(subject.to_owned(), words);
    }

    /// Tells no more of a subject.
    pub(crate) fn end(&self, subject: &str) {
        self.all().remove(subject);
    }

    /// Returns the troubles, each as `subject: words`.
    pub(crate) fn words(&self) -> Vec<String> {
        let all = self.all();
        all.iter().take(MAX).map(|(subject, words)| format!("{subject}: {words}")).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_one_trouble_until_it_ends() {
        let troubles = Troubles::default();
        troubles.begin("disk full", "3 bytes are free");
        troubles.begin("disk full", &"é".repeat(WORDS));
        troubles.begin("function f", "a worker is starting");
        let words = troubles.words();
        assert_eq!(words[0], format!("disk full: {}", "é".repeat(WORDS / 2)));
        assert_eq!(words[1..], ["function f: a worker is starting"]);
        troubles.end("disk full");
        troubles.end("function f");
        assert!(troubles.words().is_empty());
    }
}
