//! The events of a run, line by line with the run's own time, for a person to
//! read and for telling two runs apart.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use tokio::time::Instant;

/// The events of a run.
pub(super) struct Trace {
    begun: Instant,
    lines: Vec<String>,
}

impl Trace {
    /// An empty trace that begins now.
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), lines: Vec::new() }
    }

    /// Notes an event.
    pub(super) fn note(&mut self, event: fmt::Arguments<'_>) {
        let at = self.begun.elapsed();
        self.lines.push(format!("{:>9.3}  {event}", at.as_secs_f64()));
    }

    /// A number that two runs share if the same happened at the same times.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        hasher.finish()
    }

    /// The events.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
