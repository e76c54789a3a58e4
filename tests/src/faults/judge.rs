//! Judges whether a fault, as it was seen, keeps the contract. Pure.

use super::{Queue, Row};
use crate::broker::Release;
use crate::oracle;
use serde_json::{Value, json};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The observations of one played fault.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The outcomes of the tasks.
    pub tasks: oracle::Verdict,
    /// How many tasks may have run again.
    pub may_run_again: usize,
    /// How long it took to recover.
    pub recovery: Duration,
    /// Anything else that was not as it must be.
    pub breaches: Vec<String>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

impl Seen {
    /// Sets how many tasks may have run again.
    #[must_use]
    pub fn allowing(self, tasks: usize) -> Self {
        Self { may_run_again: tasks, ..self }
    }

    /// Sets how long it took to recover.
    #[must_use]
    pub fn recovered_in(self, recovery: Duration) -> Self {
        Self { recovery, ..self }
    }

    /// Notes a breach of the contract unless `holds`.
    #[must_use]
    pub fn must(mut self, holds: bool, breach: impl FnOnce() -> String) -> Self {
        if !holds {
            self.breaches.push(breach());
        }
        self
    }

    /// Notes something that is worth knowing.
    #[must_use]
    pub fn note(mut self, note: String) -> Self {
        self.notes.push(note);
        self
    }
}

/// The verdict on a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The contract was kept.
    Held,
    /// It was broken, in these ways.
    Broken(Vec<String>),
    /// The row could not be played to its end.
    Failed(String),
    /// It cannot be played here.
    Skipped(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => write!(f, "held"),
            Self::Broken(breaches) => write!(f, "BROKEN: {}", breaches.join("; ")),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

/// Says whether what was seen keeps the contract.
#[must_use]
pub fn judge(row: &Row, seen: &Seen) -> Verdict {
    let tasks = &seen.tasks;
    let mut breaches = seen.breaches.clone();
    let mut breach = |holds: bool, words: String| {
        if !holds {
            breaches.push(words);
        }
    };
    let some = |names: &std::collections::BTreeSet<String>| {
        let first: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        first.join(", ")
    };
    breach(tasks.submitted > 0, "nothing was submitted".to_owned());
    breach(tasks.lost.is_empty(), format!("{} lost ({}, …)", tasks.lost.len(), some(&tasks.lost)));
    breach(tasks.unknown.is_empty(), format!("tasks from nowhere: {}", some(&tasks.unknown)));
    let allowed = if row.again.is_some() { seen.may_run_again } else { 0 };
    let again = tasks.ran_again.len();
    breach(
        again <= allowed,
        format!("{again} ran more than once, {allowed} may ({}, …)", some(&tasks.ran_again)),
    );
    breach(
        seen.recovery <= row.within,
        format!("it took {:.1?} to recover, {:?} is the bound", seen.recovery, row.within),
    );
    if breaches.is_empty() { Verdict::Held } else { Verdict::Broken(breaches) }
}

/// A row that was played, and what came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The row's name.
    pub name: &'static str,
    /// The broker's release.
    pub release: Release,
    /// The broker's version, as it says itself.
    pub broker: String,
    /// The kind of task queue.
    pub queue: Queue,
    /// Its verdict.
    pub verdict: Verdict,
    /// The observations, if it was played to its end.
    pub seen: Option<Seen>,
    /// Why tasks may run again, if any may.
    pub again: Option<&'static str>,
    /// The moment that the time to recover counts from.
    pub since: &'static str,
    /// How long it took to play.
    pub took: Duration,
    /// The folder that was kept, if the row did not hold.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Whether the contract was kept, or the row not played at all.
    #[must_use]
    pub fn good(&self) -> bool {
        matches!(self.verdict, Verdict::Held | Verdict::Skipped(_))
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let verdict = match &self.verdict {
            Verdict::Held => "held",
            Verdict::Broken(_) => "broken",
            Verdict::Failed(_) => "failed",
            Verdict::Skipped(_) => "skipped",
        };
        let mut object = json!({
            "fault": self.name,
            "broker": self.broker,
            "queue": self.queue.to_string(),
            "verdict": verdict,
            "reason": match &self.verdict {
                Verdict::Held => Value::Null,
                Verdict::Broken(breaches) => json!(breaches),
                Verdict::Failed(why) | Verdict::Skipped(why) => json!([why]),
            },
            "played_ms": self.took.as_millis() as u64,
        });
        if let Some(seen) = &self.seen {
            object["submitted"] = json!(seen.tasks.submitted);
            object["recorded"] = json!(seen.tasks.recorded);
            object["lost"] = json!(seen.tasks.lost.len());
            object["ran_again"] = json!(seen.tasks.ran_again.len());
            object["may_run_again"] = json!(self.again.map_or(0, |_| seen.may_run_again));
            object["why_again"] = json!(self.again);
            object["recovery_ms"] = json!(seen.recovery.as_millis() as u64);
            object["recovery_since"] = json!(self.since);
            object["notes"] = json!(seen.notes);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Play;
    use std::collections::BTreeSet;

    const ROW: Row = Row::new("a", "a fault", Play::Beside(|_| Ok(Seen::default())));

    fn seen() -> Seen {
        let tasks = oracle::Verdict { submitted: 3, recorded: 3, ..oracle::Verdict::default() };
        Seen { tasks, ..Seen::default() }
    }

    fn one() -> BTreeSet<String> {
        BTreeSet::from(["x".to_owned()])
    }

    #[test]
    fn each_promise_is_judged() {
        assert_eq!(judge(&ROW, &seen()), Verdict::Held);
        let mut cases: Vec<(&str, Seen)> = Vec::new();
        cases.push(("nothing was submitted", Seen::default()));
        let mut lost = seen();
        lost.tasks.lost = one();
        cases.push(("1 lost (x", lost));
        let mut unknown = seen();
        unknown.tasks.unknown = one();
        cases.push(("from nowhere: x", unknown));
        let mut again = seen().allowing(1);
        again.tasks.ran_again = one();
        cases.push(("1 ran more than once, 0 may", again.clone()));
        cases.push(("is the bound", seen().recovered_in(Duration::from_secs(31))));
        cases.push(("odd", seen().must(false, || "odd".to_owned())));
        for (words, seen) in cases {
            let Verdict::Broken(breaches) = judge(&ROW, &seen) else { panic!("{words}: it held") };
            assert_eq!(breaches.len(), 1, "{breaches:?}");
            assert!(breaches[0].contains(words), "{breaches:?}");
        }
        let crash = ROW.may_run_again("it crashed");
        assert_eq!(judge(&crash, &again), Verdict::Held);
        assert_ne!(judge(&crash, &again.allowing(0)), Verdict::Held);
    }
}
