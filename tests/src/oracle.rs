//! Says what became of tasks, from two independent witnesses: the service's
//! records, and a file that every task appends a line to when it runs.

use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

/// The file that tasks write to when they run.
#[derive(Clone, Debug)]
pub struct Runs {
    path: PathBuf,
}

impl Runs {
    /// Runs are written to `path`.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// A command line that notes its run and then runs `script` in a shell,
    /// with `arguments` as `$1`, `$2`, …
    #[must_use]
    pub fn command(&self, script: &str, arguments: &[&str]) -> Vec<String> {
        let note = format!("echo \"$CLUTCH_TASK_ID $CLUTCH_ATTEMPT\" >> '{}'", self.path.display());
        let mut argv = vec!["sh".to_owned(), "-c".to_owned(), format!("{note}\n{script}")];
        argv.push("task".to_owned());
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        argv
    }

    /// How often each task started.
    ///
    /// # Errors
    /// When the file cannot be read; a missing one means that none started.
    pub fn read(&self) -> Result<BTreeMap<String, usize>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context("reading the file of runs"),
        };
        let mut runs = BTreeMap::new();
        for line in text.lines() {
            let task = line.split(' ').next().unwrap_or_default();
            *runs.entry(task.to_owned()).or_insert(0) += 1;
        }
        Ok(runs)
    }

    /// Every start there was, for when there were very many.
    pub fn starts(&self) -> Result<Starts> {
        let file = File::open(&self.path).context("reading the file of runs")?;
        let mut sorted = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line?;
            let task = line.split(' ').next().unwrap_or_default();
            let id: uuid::Uuid = task.parse().with_context(|| format!("a run of '{task}'"))?;
            sorted.push(id.as_u128());
        }
        sorted.sort_unstable();
        Ok(Starts { sorted })
    }
}

/// The starts of very many tasks: sixteen bytes each.
#[derive(Debug)]
pub struct Starts {
    sorted: Vec<u128>,
}

impl Starts {
    /// How often a task started.
    #[must_use]
    pub fn of(&self, task: &str) -> usize {
        let Ok(id) = task.parse::<uuid::Uuid>().map(|id| id.as_u128()) else { return 0 };
        let first = self.sorted.partition_point(|start| *start < id);
        self.sorted[first..].iter().take_while(|start| **start == id).count()
    }

    /// How many tasks started.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.sorted.chunk_by(|one, next| one == next).count()
    }
}

/// The verdict on a set of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many were submitted.
    pub submitted: usize,
    /// How many of those have a recorded outcome.
    pub recorded: usize,
    /// Those that have none.
    pub lost: BTreeSet<String>,
    /// Those that started more than once.
    pub ran_again: BTreeSet<String>,
    /// Those that started or were recorded, and were never submitted.
    pub unknown: BTreeSet<String>,
}

impl Verdict {
    /// Compares what was submitted with what was recorded and what ran.
    #[must_use]
    pub fn new(
        submitted: &BTreeSet<String>,
        recorded: &BTreeSet<String>,
        runs: &BTreeMap<String, usize>,
    ) -> Self {
        let seen = recorded.iter().chain(runs.keys());
        Self {
            submitted: submitted.len(),
            recorded: submitted.intersection(recorded).count(),
            lost: submitted.difference(recorded).cloned().collect(),
            ran_again: runs
                .iter()
                .filter(|(_, times)| **times > 1)
                .map(|(task, _)| task.clone())
                .collect(),
            unknown: seen.filter(|task| !submitted.contains(*task)).cloned().collect(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} submitted, {} recorded, {} lost, {} ran more than once",
            self.submitted,
            self.recorded,
            self.lost.len(),
            self.ran_again.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_verdict_tells_lost_and_repeated_and_unknown_tasks_apart() {
        let runs = [("a", 1), ("b", 2), ("x", 1)].map(|(task, n)| (task.to_owned(), n)).into();
        let verdict = Verdict::new(&set(&["a", "b", "c"]), &set(&["a", "b", "y"]), &runs);
        assert_eq!(
            verdict,
            Verdict {
                submitted: 3,
                recorded: 2,
                lost: set(&["c"]),
                ran_again: set(&["b"]),
                unknown: set(&["x", "y"]),
            }
        );
        assert_eq!(verdict.to_string(), "3 submitted, 2 recorded, 1 lost, 1 ran more than once");
    }

    #[test]
    fn every_start_of_a_task_leaves_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::at(&folder.path().join("runs"));
        assert!(runs.read().unwrap().is_empty());
        let argv = runs.command("exit \"$1\"", &["5"]);
        for _ in 0..2 {
            let status = std::process::Command::new(&argv[0])
                .args(&argv[1..])
                .env("CLUTCH_TASK_ID", "t")
                .env("CLUTCH_ATTEMPT", "1")
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(5));
        }
        assert_eq!(runs.read().unwrap(), BTreeMap::from([("t".to_owned(), 2)]));
    }

    #[test]
    fn many_starts_are_counted_as_few_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs");
        let ids: Vec<String> = (0..3).map(|_| uuid::Uuid::now_v7().to_string()).collect();
        std::fs::write(&path, format!("{0} 1\n{1} 1\n{0} 1\n", ids[0], ids[1])).unwrap();
        let starts = Runs::at(&path).starts().unwrap();
        assert_eq!(starts.tasks(), 2);
        assert_eq!([0, 1, 2].map(|number| starts.of(&ids[number])), [2, 1, 0]);
    }
}
