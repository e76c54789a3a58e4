//! The witness: a file to which every start of a task adds a line, written by
//! the tasks themselves and so independent of what the service records.

use anyhow::Context as _;
use clutch_common::id::TaskId;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What every task runs: `$1` is the witness, `$2` the file to sum.
const SCRIPT: &str = r#"echo "$CLUTCH_TASK_ID" >> "$1" && exec sha256sum -- "$2""#;

/// The file with a line per start.
#[derive(Debug)]
pub(super) struct Witness(PathBuf);

impl Witness {
    /// A witness that is the file at `path`.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The command line that notes its start and then sums `file`.
    #[must_use]
    pub(super) fn command(&self, file: &str) -> Vec<String> {
        let witness = self.0.display().to_string();
        ["sh", "-c", SCRIPT, "sum", &witness, file].map(str::to_owned).to_vec()
    }

    /// The tasks in the order they started, one that started twice twice.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what no task wrote.
    pub(super) fn read(&self) -> anyhow::Result<Vec<TaskId>> {
        starts(&self.0).with_context(|| format!("reading {}", self.0.display()))
    }
}

fn starts(path: &Path) -> anyhow::Result<Vec<TaskId>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| line.parse().map_err(|_| anyhow::anyhow!("'{line}' is not a task id")))
        .collect()
}

/// How many different tasks there are among these starts.
#[must_use]
pub(super) fn distinct(starts: &[TaskId]) -> usize {
    starts.iter().collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_count_and_strangers_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let witness = Witness::at(temp.path().join("starts"));
        assert_eq!(witness.read().unwrap(), []);
        let (a, b) = (TaskId::new(), TaskId::new());
        std::fs::write(&witness.0, format!("{a}\n{b}\n{a}\n0189")).unwrap();
        assert_eq!(witness.read().unwrap(), [a, b, a]);
        assert_eq!(distinct(&[a, b, a]), 2);
        std::fs::write(&witness.0, "who?\n").unwrap();
        assert!(witness.read().is_err());
    }
}
