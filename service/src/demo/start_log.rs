//! The start log: a file to which every task adds a line when it starts. It does not depend on
//! what the service records.

use anyhow::Context as _;
use clutch_common::id::TaskId;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The script of every task: `$1` is the start log, `$2` the file to sum.
const SCRIPT: &str = r#"echo "$CLUTCH_TASK_ID" >> "$1" && exec sha256sum -- "$2""#;

/// The file with a line per start.
#[derive(Debug)]
pub(super) struct StartLog(PathBuf);

impl StartLog {
    /// The start log at a path.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The command line that notes its start and then sums `file`.
    #[must_use]
    pub(super) fn command(&self, file: &str) -> Vec<String> {
        let start_log = self.0.display().to_string();
        ["sh", "-c", SCRIPT, "sum", &start_log, file].map(str::to_owned).to_vec()
    }

    /// The tasks in the order they started, one that started twice twice.
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
    fn whole_lines_count_and_other_lines_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let start_log = StartLog::at(temp.path().join("starts"));
        assert_eq!(start_log.read().unwrap(), []);
        let (a, b) = (TaskId::new(), TaskId::new());
        std::fs::write(&start_log.0, format!("{a}\n{b}\n{a}\n0189")).unwrap();
        assert_eq!(start_log.read().unwrap(), [a, b, a]);
        assert_eq!(distinct(&[a, b, a]), 2);
        std::fs::write(&start_log.0, "who?\n").unwrap();
        assert!(start_log.read().is_err());
    }
}
