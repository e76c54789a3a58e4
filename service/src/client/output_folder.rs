//! Writes results into files of one folder, one for each task and stream.
//!
//! Touches the folder it is given, and in it only files that it makes. A file appears whole or
//! not at all, and none that exists is changed: one with the same content counts as written, as
//! when the command is repeated, and any other is told. Holds one result at a time.

use crate::failure::{Failure, GENERAL};
use crate::model::{TaskOutcome, TaskSummary};
use anyhow::Context as _;
use clutch_common::text::counted::counted;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// How much of a task's name a file's name has, in characters.
const NAME_SHOWN: usize = 64;
/// How many files an error names.
const NAMED: usize = 5;

/// The folder, and what was written to it.
#[derive(Debug)]
pub(super) struct OutputFolder {
    path: PathBuf,
    report: OutputReport,
    /// The first files that are there with another content.
    others: Vec<String>,
}

/// The output of `--json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct OutputReport {
    /// Files that were written.
    pub(super) written: u64,
    /// Files that were there already, with the same content.
    pub(super) unchanged: u64,
    /// Files that were there with another content, and were left as they are.
    pub(super) left: u64,
    /// Files that hold the part of a stream that is recorded.
    pub(super) truncated: u64,
}

/// The fate of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    New,
    Unchanged,
    Other,
}

impl OutputFolder {
    /// The folder at this path, made if it is not there.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("--to: cannot make the folder {}", path.display()))?;
        Ok(Self { path: path.to_owned(), report: OutputReport::default(), others: Vec::new() })
    }

    /// Writes the streams of a task that has a result; `total` is how many tasks its submission
    /// has.
    pub(super) fn write(&mut self, task: &TaskOutcome, total: u64) -> anyhow::Result<()> {
        let Some(recorded) = &task.result else { return Ok(()) };
        let result = &recorded.result;
        let value = result.value.as_ref().map(|value| format!("{}\n", value.text()));
        let base = base_name(&task.summary, total);
        for (end, bytes, omitted) in [
            ("stdout", result.stdout.0.as_slice(), result.stdout_omitted),
            ("stderr", result.stderr.0.as_slice(), result.stderr_omitted),
            ("value.json", value.as_deref().unwrap_or_default().as_bytes(), 0),
        ] {
            if bytes.is_empty() {
                continue;
            }
            let name = format!("{base}.{end}");
            let written = write(&self.path, &name, bytes).with_context(|| {
                format!("--to: cannot write {}", self.path.join(&name).display())
            })?;
            self.report.truncated += u64::from(omitted > 0);
            match written {
                Written::New => self.report.written += 1,
                Written::Unchanged => self.report.unchanged += 1,
                Written::Other => {
                    self.report.left += 1;
                    if self.others.len() < NAMED {
                        self.others.push(name);
                    }
                }
            }
        }
        Ok(())
    }

    /// How much was written.
    pub(super) fn report(&self) -> OutputReport {
        self.report
    }

    /// The same in words.
    pub(super) fn words(&self) -> String {
        let OutputReport { written, unchanged, truncated, .. } = self.report;
        let mut words = format!("wrote {} to {}", counted(written, "file"), self.path.display());
        if unchanged > 0 {
            words.push_str(&format!("; {unchanged} were there already"));
        }
        if truncated > 0 {
            words.push_str(&format!("; {truncated} hold only the part that is recorded"));
        }
        words
    }

    /// An error if a file was there with another content.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.others.is_empty() {
            return Ok(());
        }
        let left = self.report.left;
        let more = if left > self.others.len() as u64 { ", …" } else { "" };
        let words = format!(
            "{} in {} with another content: {}{more}",
            counted(left, "file"),
            self.path.display(),
            self.others.join(", ")
        );
        let help = "move them away, or choose another folder, and repeat the command";
        Err(Failure::new(GENERAL, words).of_kind("file_exists").with_help(help))
    }
}

/// The name of a task's files without its end: the index, with as many digits as the last one
/// has, and the name; the id of a task without a submission.
fn base_name(task: &TaskSummary, total: u64) -> String {
    let mut base = match task.index {
        Some(index) => {
            let digits = total.saturating_sub(1).to_string().len();
            format!("{index:0digits$}")
        }
        None => task.id.to_string(),
    };
    let plain =
        |char: char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '_' };
    if let Some(name) = &task.name {
        base.push('-');
        base.extend(name.chars().take(NAME_SHOWN).map(plain));
    }
    base
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<Written> {
    let path = folder.join(name);
    if let Some(found) = compare(&path, bytes)? {
        return Ok(found);
    }
    // Of a run that was ended.
    let part = folder.join(format!(".{name}.part"));
    match fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::create_new(&part)?;
    let placed = file.write_all(bytes).and_then(|()| place(&part, &path));
    if placed.is_err() {
        // The error that is told is the first one.
        drop(fs::remove_file(&part));
    }
    match placed {
        Ok(()) => Ok(Written::New),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok(compare(&path, bytes)?.unwrap_or(Written::Other))
        }
        Err(error) => Err(error),
    }
}

/// Compares the file at a path, if there is one.
fn compare(path: &Path, bytes: &[u8]) -> io::Result<Option<Written>> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let same = found.is_file() && found.len() == bytes.len() as u64 && fs::read(path)? == bytes;
    Ok(Some(if same { Written::Unchanged } else { Written::Other }))
}

/// Gives a file its name, unless that is taken.
fn place(part: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, part, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(ErrorKind::AlreadyExists.into()),
        // The file system cannot do that, as NFS.
        Err(_) => fs::hard_link(part, path).and_then(|()| fs::remove_file(part)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Recorded, TaskState};
    use crate::stub_broker::result;
    use clutch_common::id::{EndpointId, TaskId};
    use clutch_common::task::priority::Priority;
    use clutch_common::task::result::{Outcome, TaskResult};

    fn task(index: u64, name: Option<&str>, stdout: &str) -> TaskOutcome {
        let outcome = Outcome::Succeeded;
        let result = TaskResult {
            stdout: stdout.into(),
            value: Some("[1.50]".parse().unwrap()),
            ..result(outcome)
        };
        TaskOutcome {
            summary: TaskSummary {
                id: TaskId::new(),
                endpoint: EndpointId::new(),
                endpoint_name: None,
                topic: None,
                key: Some("k".to_owned()),
                index: Some(index),
                name: name.map(str::to_owned),
                command: None,
                state: TaskState::Done(outcome),
                attempt: Some(1),
                created_at_ms: 1,
                submitted_at_ms: None,
                ended_at_ms: None,
                priority: Priority::Normal,
                cores: 1,
                progress: None,
            },
            result: Some(Recorded { result, duplicates: 0, received_at_ms: 1 }),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_named_by_index_and_name_and_lead_nowhere_else() {
        let base = |index, name, total| base_name(&task(index, name, "").summary, total);
        assert_eq!(base(7, Some("sweep"), 1000), "007-sweep");
        assert_eq!(base(7, None, 8), "7");
        assert_eq!(base(0, Some("../../etc/x y\n"), 1), "0-.._.._etc_x_y_");
        assert_eq!(base(0, Some(&"ü".repeat(300)), 1).len(), 2 + NAME_SHOWN);
    }

    #[test]
    fn what_was_written_is_kept_and_a_repeated_run_writes_what_is_missing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("new/out");
        let run = |tasks: &[TaskOutcome]| {
            let mut folder = OutputFolder::open(&path).unwrap();
            tasks.iter().for_each(|task| folder.write(task, 2).unwrap());
            (folder.report(), folder.check())
        };
        let tasks = [task(0, None, "one"), task(1, Some("b"), "")];
        let (report, checked) = run(&tasks[..1]);
        assert_eq!((report.written, checked.is_ok()), (2, true));
        // As a run leaves it that was ended meanwhile.
        fs::write(path.join(".1-b.value.json.part"), "[").unwrap();
        let (report, _) = run(&tasks);
        assert_eq!((report.written, report.unchanged, report.left), (1, 2, 0));
        assert_eq!(names(&path), ["0.stdout", "0.value.json", "1-b.value.json"]);
        assert_eq!(fs::read(path.join("1-b.value.json")).unwrap(), b"[1.50]\n");
        let (report, checked) = run(&[task(0, None, "two")]);
        assert_eq!((report.written, report.unchanged, report.left), (0, 1, 1));
        let words = checked.unwrap_err().to_string();
        assert!(words.contains("0.stdout") && words.contains("another folder"), "{words}");
        assert_eq!(fs::read(path.join("0.stdout")).unwrap(), b"one");
    }

    #[test]
    fn a_link_is_not_followed_and_a_folder_is_not_taken_for_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("out");
        fs::create_dir_all(path.join("0.value.json")).unwrap();
        fs::write(temp.path().join("elsewhere"), "one").unwrap();
        std::os::unix::fs::symlink("../elsewhere", path.join("0.stdout")).unwrap();
        let mut folder = OutputFolder::open(&path).unwrap();
        folder.write(&task(0, None, "one"), 1).unwrap();
        assert_eq!((folder.report().left, folder.report().written), (2, 0));
    }
}
