//! The local drain on disk: the file `drained` in the state folder, there while
//! `clutch-endpoint drain` is in force.
//!
//! Touches that file. Promises that a drain that was begun is found by the next start, also
//! after a power cut; and that a file that cannot be read counts as a drain: a task that
//! starts late harms less than one that was not to start.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The name of the file in the state folder.
const NAME: &str = "drained";

/// The contents of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    /// When tasks that still run are stopped, in milliseconds since the Unix epoch.
    pub(super) deadline_ms: Option<u64>,
}

/// Reads the drain that is in force, if one is.
pub(super) fn read(state: &Path) -> Option<Kept> {
    match std::fs::read(state.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| damaged(&error))),
        Err(error) => Some(damaged(&error)),
    }
}

fn damaged(error: &dyn std::fmt::Display) -> Kept {
    tracing::warn!(
        %error,
        "the file `drained` in the state folder cannot be read: the endpoint is drained, without a \
         deadline; `clutch-endpoint resume` ends that"
    );
    Kept::default()
}

/// Keeps a drain, or ends it. It is durable when this returns.
pub(super) fn write(state: &Path, kept: Option<Kept>) -> io::Result<()> {
    let path = state.join(NAME);
    match kept {
        Some(kept) => {
            let new = state.join("drained.new");
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(&kept)?)?;
            file.sync_all()?;
            std::fs::rename(new, path)?;
        }
        None => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => (),
        },
    }
    File::open(state)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_stays_until_it_is_ended_and_damage_counts_as_one() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(read(state.path()), None);
        for deadline_ms in [None, Some(7)] {
            write(state.path(), Some(Kept { deadline_ms })).unwrap();
            assert_eq!(read(state.path()), Some(Kept { deadline_ms }));
        }
        std::fs::write(state.path().join(NAME), "{").unwrap();
        assert_eq!(read(state.path()), Some(Kept::default()));
        for _ in 0..2 {
            write(state.path(), None).unwrap();
            assert_eq!(read(state.path()), None);
        }
    }
}
