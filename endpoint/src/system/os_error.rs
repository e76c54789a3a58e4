//! Classifies an error of the operating system: the host's, after which the endpoint waits
//! and tries again; the task's, which is its outcome; or one that ends the daemon. Pure.
//!
//! | | no room, no inode, quota | no descriptor, process, memory | bad or read-only disk | anything else |
//! |---|---|---|---|---|
//! | starting a task's program | wait | wait | the task's | the task's |
//! | pipes, threads, the endpoint's own folders | wait | wait | wait | wait |
//! | records in the state folder | wait | wait | fatal | fatal |
//!
//! The program and the working folder that a task names are the task's. A record that
//! could not be written because there was no room for it was not begun; one that a bad
//! disk refused may be there in part, and only a new start finds out.

use rustix::io::Errno;
use std::error::Error;
use std::io;

/// The operation that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// Starting a program that a task or the configuration names.
    Program,
    /// Making pipes, threads and folders of the endpoint's own.
    Own,
    /// Writing records in the state folder.
    Records,
}

/// How an error is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handling {
    /// The host's: the operation is tried again until the host has what it takes.
    Wait,
    /// The task's: the error is its outcome.
    Task,
    /// The daemon cannot go on.
    Fatal,
}

/// Classifies the error of an operation.
pub(crate) fn classify(place: Operation, error: &io::Error) -> Handling {
    match (place, Errno::from_io_error(error)) {
        (_, Some(Errno::NOSPC | Errno::DQUOT)) => Handling::Wait,
        (_, Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM)) => Handling::Wait,
        (Operation::Own, _) => Handling::Wait,
        (Operation::Program, _) => Handling::Task,
        (Operation::Records, _) => Handling::Fatal,
    }
}

/// Finds the error of the system that another error came from, if any.
pub(crate) fn io_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_lacks_is_waited_for_wherever_it_is_missed() {
        use Handling::{Fatal, Task, Wait};
        use Operation::{Own, Program, Records};
        for (errno, expected) in [
            (Errno::NOSPC, [Wait, Wait, Wait]),
            (Errno::DQUOT, [Wait, Wait, Wait]),
            (Errno::MFILE, [Wait, Wait, Wait]),
            (Errno::NFILE, [Wait, Wait, Wait]),
            (Errno::AGAIN, [Wait, Wait, Wait]),
            (Errno::NOMEM, [Wait, Wait, Wait]),
            (Errno::IO, [Task, Wait, Fatal]),
            (Errno::ROFS, [Task, Wait, Fatal]),
            (Errno::NOENT, [Task, Wait, Fatal]),
            (Errno::NOTDIR, [Task, Wait, Fatal]),
            (Errno::ACCESS, [Task, Wait, Fatal]),
            (Errno::PERM, [Task, Wait, Fatal]),
            (Errno::NOEXEC, [Task, Wait, Fatal]),
            (Errno::TOOBIG, [Task, Wait, Fatal]),
            (Errno::TXTBSY, [Task, Wait, Fatal]),
            (Errno::LOOP, [Task, Wait, Fatal]),
        ] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let judged = [Program, Own, Records].map(|place| classify(place, &error));
            assert_eq!(judged, expected, "{errno:?}");
        }
        let other = io::Error::other("no error of the system");
        assert_eq!(classify(Program, &other), Task);
    }

    #[test]
    fn the_cause_is_found_however_deep() {
        #[derive(Debug, thiserror::Error)]
        #[error("doing")]
        struct Outer(#[source] Box<dyn Error + Send + Sync>);
        let full = || io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        let is_full = |error: &(dyn Error + 'static)| {
            io_cause(error).and_then(Errno::from_io_error) == Some(Errno::NOSPC)
        };
        assert!(is_full(&Outer(full().into())));
        assert!(is_full(&Outer(Outer(full().into()).into())));
        assert!(io_cause(&Outer("words".into())).is_none());
    }
}
