//! Frees a process of what it inherited and did not ask for, before it starts a thread.
//!
//! Touches the signal mask, descriptors and the umask of this process. Promises that
//! nothing of it keeps a daemon from being stopped, from using its own files, or is
//! passed on to what the daemon starts (design/0005). Signals that are ignored are
//! [`crate::system::signals`]' business.

use nix::sys::signal::SigSet;
use rustix::fs::Mode;
use std::fs::DirEntry;
use std::os::fd::RawFd;
use std::path::Path;

/// The descriptors above standard error that this process was started with.
#[derive(Debug)]
#[must_use = "they stay open, and are passed on"]
pub struct Descriptors(Vec<RawFd>);

/// Unblocks every signal, and lets the umask take nothing from the user itself. To be
/// called first of all, before anything is opened.
pub fn shed() -> Descriptors {
    if let Err(error) = SigSet::empty().thread_set_mask() {
        tracing::warn!(%error, "signals that were blocked at the start stay so");
    }
    let umask = rustix::process::umask(Mode::empty());
    rustix::process::umask(umask - Mode::RWXU);
    Descriptors(above_stderr())
}

impl Descriptors {
    /// Closes them, when nothing is read from them any more: a lock, or the end of a pipe,
    /// that the parent of this process still has open would otherwise be held for as
    /// long as this process and its children have it too.
    pub fn close(self) {
        for descriptor in self.0 {
            if let Err(error) = nix::unistd::close(descriptor) {
                tracing::debug!(descriptor, %error, "what was inherited was closed before");
            }
        }
    }
}

fn above_stderr() -> Vec<RawFd> {
    let list = format!("/proc/{}/fd", std::process::id());
    let Ok(entries) = std::fs::read_dir(&list) else { return Vec::new() };
    let number = |entry: &DirEntry| entry.file_name().to_str()?.parse::<RawFd>().ok();
    // The list itself is open while it is read, and not afterwards.
    let is_list = |entry: &DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(&list))
    };
    let others = entries.flatten().filter(|entry| !is_list(entry));
    others.filter_map(|entry| number(&entry)).filter(|descriptor| *descriptor > 2).collect()
}
