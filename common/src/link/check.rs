//! The checks of a broker or a folder, and how they are told. Pure.

use super::Fault;
use crate::text::printable;
use std::fmt;

/// One thing that was tried. Its `Display` is one line for people: `ok`,
/// `warning` or `FAILED`, what should be, and the detail where there is one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// The condition that was checked.
    pub what: String,
    /// Whether it is.
    pub verdict: Verdict,
    /// The finding, and what to do about it where something is to be done.
    pub detail: String,
    /// The fault behind a failure, for callers that go by its kind.
    #[serde(skip)]
    pub fault: Option<Fault>,
}

/// The outcome of a [`Check`], the worst one last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is so.
    Passed,
    /// It works, but something should be known about it.
    Warning,
    /// It is not so, and Clutch cannot work.
    Failed,
}

/// Everything that was tried, as scripts read it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The worst of the verdicts.
    pub verdict: Verdict,
    /// The checks, in the order they were made.
    pub checks: Vec<Check>,
}

impl Check {
    /// A check that passed.
    #[must_use]
    pub fn passed(what: &str) -> Self {
        Self::new(what, Verdict::Passed, String::new())
    }

    /// A check that passed, with something to know.
    #[must_use]
    pub fn warning(what: &str, detail: &dyn fmt::Display) -> Self {
        Self::new(what, Verdict::Warning, detail.to_string())
    }

    /// A check that failed, and why.
    #[must_use]
    pub fn failed(what: &str, why: &dyn fmt::Display) -> Self {
        Self::new(what, Verdict::Failed, why.to_string())
    }

    /// A check that failed by a fault of the link.
    #[must_use]
    pub fn faulty(what: &str, fault: Fault) -> Self {
        Self { fault: Some(fault.clone()), ..Self::failed(what, &fault) }
    }

    /// The same, with more to know about it.
    #[must_use]
    pub fn with(mut self, more: &str) -> Self {
        self.add(more);
        self
    }

    pub(super) fn add(&mut self, more: &str) {
        if !self.detail.is_empty() && !more.is_empty() {
            self.detail.push_str("; ");
        }
        self.detail.push_str(more);
    }

    fn new(what: &str, verdict: Verdict, detail: String) -> Self {
        Self { what: what.to_owned(), verdict, detail, fault: None }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Passed => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        write!(f, "{verdict:<8} {}", printable::line(&self.what))?;
        if self.detail.is_empty() {
            return Ok(());
        }
        f.write_str(": ")?;
        // Control characters, line breaks among them, would break the line.
        self.detail
            .split(char::is_control)
            .filter(|part| !part.is_empty())
            .enumerate()
            .try_for_each(|(index, part)| {
                if index > 0 {
                    f.write_str(" ")?;
                }
                f.write_str(&printable::line(part))
            })
    }
}

impl From<Vec<Check>> for Report {
    fn from(checks: Vec<Check>) -> Self {
        let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Passed);
        Self { verdict, checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line() {
        let line = |check: Check| check.to_string();
        assert_eq!(line(Check::passed("it is there")), "ok       it is there");
        assert_eq!(line(Check::passed("it is there").with("here")), "ok       it is there: here");
        assert_eq!(line(Check::warning("it is fast", &"no")), "warning  it is fast: no");
        assert_eq!(line(Check::failed("a", &"b\n\n c").with("d")), "FAILED   a: b  c; d");
    }

    #[test]
    fn the_worst_verdict_counts() {
        let verdict = |checks: &[Check]| Report::from(checks.to_vec()).verdict;
        let (good, odd) = (Check::passed("a"), Check::warning("b", &""));
        let bad = Check::faulty("c", Fault::Closed("gone".to_owned()));
        assert_eq!(verdict(&[]), Verdict::Passed);
        assert_eq!(verdict(&[odd.clone(), good.clone()]), Verdict::Warning);
        assert_eq!(verdict(&[bad, odd, good]), Verdict::Failed);
    }

    #[test]
    fn scripts_read_the_verdicts_by_name() {
        let report = Report::from(vec![Check::warning("a", &"b")]);
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"verdict":"warning","checks":[{"what":"a","verdict":"warning","detail":"b"}]}"#
        );
    }
}
