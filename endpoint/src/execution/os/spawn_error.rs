//! The reasons why a process could not be started, with advice, and whether each is the
//! task's fault or the host's. Looks at the file system to find out what is missing.

use crate::system::os_error::{Handling, Operation, classify};
use clutch_common::task::reason::Reason;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Command;

/// Explains why `command` could not be started.
pub(crate) fn not_started(command: &Command, error: &io::Error) -> SpawnError {
    judged(Operation::Program, error, words(command, error))
}

fn judged(place: Operation, error: &io::Error, words: String) -> SpawnError {
    match classify(place, error) {
        Handling::Wait => SpawnError::Host(words),
        Handling::Task | Handling::Fatal => SpawnError::Task(words),
    }
}

fn words(command: &Command, error: &io::Error) -> String {
    let program = command.get_program();
    let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => missing(command),
        Some(Errno::ACCESS | Errno::PERM) => forbidden(command),
        Some(Errno::NOEXEC) => "it is not a program this system can run: a script needs a first line like #!/bin/sh, a binary has to be built for this machine".into(),
        Some(Errno::TOOBIG) => "its arguments and environment together are more than the system passes to a process: pass them through standard input or a file".into(),
        Some(Errno::AGAIN) => "the system allows this user no further process: raise the limit (ulimit -u, or TasksMax of the service), or run fewer tasks at once".into(),
        Some(Errno::NOMEM) => "the system has no memory for another process: run fewer tasks at once".into(),
        Some(Errno::MFILE | Errno::NFILE) => descriptors(),
        Some(Errno::TXTBSY) => "the program is open for writing: submit again when it is complete".into(),
        Some(Errno::LOOP) => "its path goes round in symbolic links".into(),
        Some(Errno::NAMETOOLONG) => "its path is longer than the system allows".into(),
        _ => format!("{error}"),
    };
    format!("'{}' could not be started: {why}", quoted(program))
}

/// Explains why the pipes for a process could not be opened.
pub(crate) fn no_pipes(error: &io::Error) -> SpawnError {
    let words = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => format!("no pipes could be opened: {}", descriptors()),
        _ => format!("no pipes could be opened: {error}"),
    };
    judged(Operation::Own, error, words)
}

/// Explains why a folder of the endpoint's own could not be made.
pub(crate) fn no_folder(path: &Path, error: &io::Error) -> SpawnError {
    let words = format!(
        "the folder '{}' could not be made: {error}; check the endpoint's disk space and the folder's permissions",
        path.display()
    );
    judged(Operation::Own, error, words)
}

/// Explains that a folder of the endpoint's own was removed while a process was started in it.
pub(crate) fn folder_gone(path: &Path) -> SpawnError {
    SpawnError::Host(format!("the folder '{}' was removed", path.display()))
}

/// The reason why a task has not been started, in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SpawnError {
    /// The task's fault: it is the task's outcome.
    Task(String),
    /// The host's: it lacks what it takes for now, and the task waits until the host has
    /// it, or until it is stopped.
    Host(String),
}

impl From<String> for SpawnError {
    fn from(reason: String) -> Self {
        Self::Task(reason)
    }
}

/// Quotes a name that a task gives, as far as a person reads.
fn quoted(name: impl AsRef<OsStr>) -> String {
    Reason::quote(&name.as_ref().to_string_lossy())
}

fn descriptors() -> String {
    "no file descriptors are left: raise the limit (ulimit -n, or LimitNOFILE of the service), or run fewer tasks at once".into()
}

fn missing(command: &Command) -> String {
    if let Some(folder) = command.get_current_dir()
        && !folder.is_dir()
    {
        return format!("its working folder '{}' does not exist on this host", quoted(folder));
    }
    let program = command.get_program();
    if program.as_encoded_bytes().contains(&b' ') {
        return "there is no program of that name, with its spaces: give program and arguments as \
                words of their own, or submit with --shell for a line that a shell reads"
            .into();
    }
    if !is_path(program) {
        let path = search_path(command).unwrap_or_default();
        return format!(
            "it is not in the PATH ({}): install it there, or give its full path",
            quoted(&path)
        );
    }
    if located(command, program).exists() {
        return "the interpreter it names in its first line, or its loader, does not exist on this host".into();
    }
    "there is no such file on this host".into()
}

fn forbidden(command: &Command) -> String {
    if let Some(folder) = command.get_current_dir()
        && std::fs::read_dir(folder.join(".")).is_err()
    {
        return format!(
            "its working folder '{}' cannot be entered by the endpoint's user",
            quoted(folder)
        );
    }
    if is_path(command.get_program()) && located(command, command.get_program()).is_dir() {
        return "it is a folder".into();
    }
    "the endpoint's user may not execute it: make it executable (chmod +x), and look whether its file system is mounted noexec".into()
}

fn is_path(program: &OsStr) -> bool {
    program.as_encoded_bytes().contains(&b'/')
}

/// Resolves a program that is given as a path, from the working folder.
fn located(command: &Command, program: &OsStr) -> std::path::PathBuf {
    command.get_current_dir().unwrap_or(Path::new("/")).join(program)
}

/// Returns the `PATH` that the program is looked up in.
pub(crate) fn search_path(command: &Command) -> Option<OsString> {
    match command.get_envs().find(|(name, _)| *name == "PATH") {
        Some((_, value)) => value.map(OsStr::to_owned),
        None => std::env::var_os("PATH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    fn words(command: &Command, errno: Errno) -> String {
        super::words(command, &error(errno))
    }

    #[test]
    fn every_cause_says_what_to_do() {
        let command = Command::new("prog");
        for (errno, advice) in [
            (Errno::NOEXEC, "#!/bin/sh"),
            (Errno::TOOBIG, "standard input"),
            (Errno::AGAIN, "ulimit -u"),
            (Errno::NOMEM, "fewer tasks"),
            (Errno::MFILE, "ulimit -n"),
            (Errno::ACCESS, "chmod +x"),
            (Errno::TXTBSY, "submit again"),
            (Errno::NOENT, "PATH ("),
            (Errno::IO, "Input/output error"),
        ] {
            let words = words(&command, errno);
            assert!(words.starts_with("'prog' could not be started: "), "{words}");
            assert!(words.contains(advice), "{errno:?}: {words}");
        }
    }

    #[test]
    fn a_name_is_quoted_as_far_as_people_read() {
        let long = "x".repeat(1 << 20);
        for errno in [Errno::TOOBIG, Errno::NOENT, Errno::NAMETOOLONG, Errno::ACCESS] {
            let mut command = Command::new(&long);
            command.current_dir(&long).env("PATH", &long);
            let words = words(&command, errno);
            assert!(words.len() < 2048 && words.contains("could not be started: "), "{errno:?}");
        }
    }

    #[test]
    fn what_the_host_lacks_is_no_outcome_of_a_task() {
        let command = Command::new("prog");
        for (errno, hosts) in [(Errno::AGAIN, true), (Errno::MFILE, true), (Errno::NOENT, false)] {
            let unstarted = not_started(&command, &error(errno));
            assert_eq!(matches!(unstarted, SpawnError::Host(_)), hosts, "{errno:?}");
        }
        let folder = Path::new("/sandbox");
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::NOENT] {
            let no_folder = no_folder(folder, &error(errno));
            assert!(matches!(no_folder, SpawnError::Host(words) if words.contains("/sandbox")));
        }
        let no_pipes = no_pipes(&error(Errno::MFILE));
        assert!(matches!(no_pipes, SpawnError::Host(words) if words.contains("ulimit -n")));
    }

    #[test]
    fn what_exactly_is_missing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("script"), "#!/no/such/interpreter\n").unwrap();
        let in_folder = |program: &str| {
            let mut command = Command::new(program);
            command.current_dir(folder.path());
            command
        };
        assert!(words(&in_folder("./script"), Errno::NOENT).contains("interpreter"));
        assert!(words(&in_folder("./other"), Errno::NOENT).contains("no such file"));
        for line in ["ls -l", "/bin/ls -l"] {
            assert!(words(&in_folder(line), Errno::NOENT).contains("--shell"), "{line}");
        }
        let mut elsewhere = in_folder("true");
        elsewhere.current_dir("/no/such/folder");
        assert!(words(&elsewhere, Errno::NOENT).contains("'/no/such/folder' does not exist"));
        let mut own_path = in_folder("true");
        own_path.env("PATH", "/only/here");
        assert!(words(&own_path, Errno::NOENT).contains("PATH (/only/here)"));
    }
}
