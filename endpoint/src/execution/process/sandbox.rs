//! The sandbox: the folder that a task works in when it names none.
//!
//! Touches only what is below the sandbox root. Promises that a task starts
//! in an empty folder that only the endpoint's user can enter.

mod contents;
mod spares;

use clutch_common::id::Attempt;
use clutch_common::system::removal;
use clutch_common::task::removed_files::RemovedFiles;
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spares::Spares;

/// The policy for a task's sandbox when the task is over.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SandboxPolicy {
    /// It is removed.
    #[default]
    Remove,
    /// It stays.
    Keep,
    /// It stays unless the task succeeded.
    KeepFailed,
}

/// The end of a run, as far as its sandbox is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RunEnd {
    Succeeded,
    Failed,
    /// It was stopped, and the task has no outcome.
    Stopped,
}

impl SandboxPolicy {
    fn keeps(self, run: RunEnd) -> bool {
        match self {
            Self::Remove => false,
            Self::Keep => true,
            Self::KeepFailed => run == RunEnd::Failed,
        }
    }
}

/// The sandboxes below one root.
#[derive(Debug)]
pub(super) struct Sandboxes {
    root: PathBuf,
    policy: SandboxPolicy,
    spares: Arc<Spares>,
}

impl Sandboxes {
    /// Makes the root, for the endpoint's user only.
    pub(super) fn below(root: &Path, policy: SandboxPolicy) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        Ok(Self { root: root.to_owned(), policy, spares: Arc::new(Spares::below(root)) })
    }

    /// Names the sandbox of `attempt`; it does not exist yet.
    pub(super) fn of(&self, attempt: Attempt) -> Sandbox {
        Sandbox {
            path: self.root.join(format!("{}.{}", attempt.task_id, attempt.attempt)),
            policy: self.policy,
            spares: Arc::clone(&self.spares),
        }
    }
}

/// One task's folder.
#[derive(Debug)]
pub(super) struct Sandbox {
    path: PathBuf,
    policy: SandboxPolicy,
    spares: Arc<Spares>,
}

impl Sandbox {
    /// Returns its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder. What a crash left of an earlier one is removed; the root is
    /// made again if it was removed.
    pub(super) fn make(&self) -> io::Result<()> {
        if self.spares.give(&self.path) {
            return Ok(());
        }
        let make = || DirBuilder::new().mode(0o700).create(&self.path);
        match make() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                remove(&self.path)?;
                make()
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_root()?;
                make()
            }
            result => result,
        }
    }

    /// Makes the root in a state folder that is there. Another task may do the same.
    fn make_root(&self) -> io::Result<()> {
        let Some(root) = self.path.parent() else { return Ok(()) };
        match DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made.inspect(|()| {
                let path = root.display();
                tracing::warn!(%path, "the folder for sandboxes was removed, and is made again");
            }),
        }
    }

    /// Removes the folder, unless the policy keeps it, and returns the files that were in it
    /// if the task is over. A failure is logged.
    pub(super) fn close(&self, run: RunEnd) -> Option<RemovedFiles> {
        if self.policy.keeps(run) || is_removed_empty(&self.path) {
            return None;
        }
        let files = if run == RunEnd::Stopped { None } else { contents::files(&self.path) };
        if let Err(error) = removal::remove_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a sandbox could not be removed: remove it by hand");
        }
        files
    }

    /// Does as [`Sandbox::close`], and has the next task get a folder that one which
    /// succeeded left as it was. Only for a run of which no process is left.
    pub(super) fn close_deserted(&self, run: RunEnd) -> Option<RemovedFiles> {
        let may_spare = run == RunEnd::Succeeded && !self.policy.keeps(run);
        if may_spare && self.spares.keep(&self.path) { None } else { self.close(run) }
    }
}

/// Removes what earlier runs left below `root`: spares, and sandboxes if the policy is to
/// remove everything. Returns how many sandboxes were removed; logs those that stay.
pub(super) fn sweep(root: &Path, policy: SandboxPolicy) -> usize {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(path = %root.display(), %error, "old sandboxes could not be listed");
            return 0;
        }
    };
    let mut removed = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        let spare = Spares::owns(&path);
        if !spare && policy != SandboxPolicy::Remove {
            continue;
        }
        match remove(&path) {
            Ok(()) => removed += usize::from(!spare),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "an old sandbox could not be removed: remove it by hand");
            }
        }
    }
    removed
}

/// Removes a folder with all that is in it.
fn remove(path: &Path) -> io::Result<()> {
    if is_removed_empty(path) { Ok(()) } else { removal::remove_all(path) }
}

/// Removes a folder if it is empty, as most are. False if it is still there.
fn is_removed_empty(path: &Path) -> bool {
    std::fs::remove_dir(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clutch_common::id::TaskId;
    use clutch_common::task::byte_string::ByteString;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    fn sandbox(root: &Path, policy: SandboxPolicy) -> Sandbox {
        let sandboxes = Sandboxes::below(root, policy).unwrap();
        sandboxes.of(Attempt { task_id: TaskId::new(), attempt: 2 })
    }

    #[test]
    fn the_policy_decides_which_sandboxes_are_kept() {
        use SandboxPolicy::{Keep, KeepFailed, Remove};
        let runs = [RunEnd::Succeeded, RunEnd::Failed, RunEnd::Stopped];
        assert_eq!(runs.map(|run| Remove.keeps(run)), [false, false, false]);
        assert_eq!(runs.map(|run| Keep.keeps(run)), [true, true, true]);
        assert_eq!(runs.map(|run| KeepFailed.keeps(run)), [false, true, false]);
    }

    #[test]
    fn it_is_private_and_empty_even_if_a_crash_left_one() {
        let root = tempfile::tempdir().unwrap();
        let sandbox = sandbox(root.path(), SandboxPolicy::Remove);
        for _ in 0..2 {
            sandbox.make().unwrap();
            assert_eq!(std::fs::read_dir(sandbox.path()).unwrap().count(), 0);
            let mode = std::fs::metadata(sandbox.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
            std::fs::write(sandbox.path().join("left"), "x").unwrap();
        }
        let files = sandbox.close(RunEnd::Failed).unwrap();
        assert_eq!((files.count, files.names), (1, vec!["left".into()]));
        assert!(!sandbox.path().exists());
    }

    #[test]
    fn no_files_are_told_of_an_empty_one_a_kept_one_and_one_whose_task_runs_again() {
        let root = tempfile::tempdir().unwrap();
        for (policy, run, holds) in [
            (SandboxPolicy::Remove, RunEnd::Succeeded, false),
            (SandboxPolicy::Keep, RunEnd::Succeeded, true),
            (SandboxPolicy::KeepFailed, RunEnd::Failed, true),
            (SandboxPolicy::Remove, RunEnd::Stopped, true),
        ] {
            let sandbox = sandbox(root.path(), policy);
            sandbox.make().unwrap();
            if holds {
                std::fs::write(sandbox.path().join("left"), "x").unwrap();
            }
            assert_eq!(sandbox.close_deserted(run), None, "{policy:?} {run:?}");
        }
    }

    #[test]
    fn its_root_is_made_again_but_not_what_the_root_is_in() {
        let state = tempfile::tempdir().unwrap();
        let root = state.path().join("sandbox");
        let sandbox = sandbox(&root, SandboxPolicy::Remove);
        std::fs::remove_dir_all(&root).unwrap();
        sandbox.make().unwrap();
        assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::remove_dir_all(state.path()).unwrap();
        assert_eq!(sandbox.make().unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!state.path().exists());
    }

    #[test]
    fn folders_that_forbid_it_are_removed_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "x").unwrap();
        let sandbox = sandbox(root.path(), SandboxPolicy::Remove);
        sandbox.make().unwrap();
        let locked = sandbox.path().join("a/b");
        std::fs::create_dir_all(&locked).unwrap();
        std::fs::write(locked.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, sandbox.path().join("link")).unwrap();
        std::fs::set_permissions(&locked, Permissions::from_mode(0o500)).unwrap();
        let files = sandbox.close_deserted(RunEnd::Succeeded).unwrap();
        assert_eq!(files.names, ["link", "a/b/file"].map(ByteString::from));
        assert!(!sandbox.path().exists());
        assert!(outside.join("file").exists());
    }

    #[test]
    fn a_sweep_removes_leftovers_only_where_everything_is_removed() {
        let root = tempfile::tempdir().unwrap();
        for policy in [SandboxPolicy::Keep, SandboxPolicy::KeepFailed, SandboxPolicy::Remove] {
            let sandbox = sandbox(root.path(), policy);
            std::fs::create_dir(root.path().join(".spare-3")).unwrap();
            sandbox.make().unwrap();
            let removed = sweep(root.path(), policy);
            assert_eq!(sandbox.path().exists(), policy != SandboxPolicy::Remove);
            assert!(!root.path().join(".spare-3").exists());
            assert_eq!(removed, if policy == SandboxPolicy::Remove { 3 } else { 0 });
        }
    }
}
