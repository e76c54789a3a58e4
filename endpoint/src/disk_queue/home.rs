//! Where a state folder lives: tells one that was copied, or put back from a backup,
//! from the folder itself. The file `home` names the host, the path, and the inode of
//! the file `mark`, which every copy has another one of, whoever made it.
//!
//! A folder that is renamed, or mounted elsewhere, keeps its files and is itself. What
//! goes back with all that is around it (the snapshot of a file system or of a host)
//! looks as it did, and cannot be told here.

use clutch_common::byte_string::ByteString;
use clutch_common::id::StateId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// The file that has it, in the state folder.
const FILE: &str = "home";
/// What names a host, where something does.
const MACHINE: &str = "/etc/machine-id";

/// How a state folder came to be where it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Origin {
    /// It was made here, or was here before.
    #[default]
    Own,
    /// It was put back, in the place of the folder that it is a copy of.
    PutBack {
        /// The id of that folder.
        was: StateId,
    },
    /// It is a copy of a folder somewhere else, which may be in use.
    Copied {
        /// Where that one was, in words.
        from: String,
    },
}

impl Origin {
    /// Whether nothing has happened to the folder.
    pub(crate) fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// What tells where a state folder is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Home {
    /// The host's id, where it has one.
    machine: Option<String>,
    /// The path of the folder.
    path: ByteString,
    /// The number of the file `mark`.
    inode: u64,
    /// When that was made, in nanoseconds, where the file system knows.
    born: Option<u128>,
}

impl Home {
    /// Finds out where a state folder is that has its mark.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let mark = fs::metadata(folder.join("mark"))?;
        let born = mark.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let machine = fs::read_to_string(MACHINE).ok().map(|id| id.trim().to_owned());
        Ok(Self {
            machine: machine.filter(|id| !id.is_empty()),
            path: fs::canonicalize(folder)?.into_os_string().into(),
            inode: mark.ino(),
            born: born.map(|age| age.as_nanos()),
        })
    }

    /// Reads where a state folder was when it was used last; nothing where that is not
    /// noted, or cannot be read.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn noted(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes it, for good.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn note(&self, folder: &Path) -> io::Result<()> {
        let (file, fresh) = (folder.join(FILE), folder.join("home.tmp"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut written = options.open(&fresh)?;
        written.write_all(&serde_json::to_vec(self)?)?;
        written.sync_all()?;
        fs::rename(&fresh, &file)?;
        File::open(folder)?.sync_all()
    }

    /// Tells how a folder that is here now, and was `before` when it was used last, came
    /// to be here. `state` is the id that it has.
    pub(super) fn origin(&self, before: &Self, state: StateId) -> Origin {
        let known = |one: &Option<String>| one.is_some();
        let hosts_known = known(&self.machine) && known(&before.machine);
        let other_host = hosts_known && self.machine != before.machine;
        let files = (self.inode, self.born) == (before.inode, before.born);
        if files && !other_host {
            return Origin::Own;
        }
        // Where the host has no name, the same path may be that of another host.
        if hosts_known && !other_host && self.path == before.path {
            return Origin::PutBack { was: state };
        }
        let path = before.path.shown();
        let from = if other_host { format!("{path} on another host") } else { path.into_owned() };
        Origin::Copied { from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        let machine = Some("one".to_owned());
        Home { machine, path: "/state".into(), inode: 7, born: Some(1) }
    }

    #[test]
    fn a_copy_is_told_from_a_folder_that_was_moved_and_one_that_was_put_back() {
        let (here, state) = (home(), StateId::new());
        let elsewhere = || Home { path: "/copy".into(), ..home() };
        let copied = |from: &str| Origin::Copied { from: from.to_owned() };
        let put_back = || Origin::PutBack { was: state };
        let host = |name: &str| Some(name.to_owned());
        for (before, expected) in [
            (home(), Origin::Own),
            (elsewhere(), Origin::Own),
            (Home { machine: None, ..elsewhere() }, Origin::Own),
            (Home { inode: 8, ..home() }, put_back()),
            (Home { born: Some(2), ..home() }, put_back()),
            (Home { inode: 8, ..elsewhere() }, copied("/copy")),
            (Home { machine: host("two"), ..home() }, copied("/state on another host")),
            (Home { machine: None, inode: 8, ..home() }, copied("/state")),
        ] {
            assert_eq!(here.origin(&before, state), expected, "{before:?}");
        }
    }

    #[test]
    fn it_is_noted_and_a_copy_of_the_folder_has_another() {
        let parent = tempfile::tempdir().unwrap();
        let [folder, copy] = ["folder", "copy"].map(|name| parent.path().join(name));
        for folder in [&folder, &copy] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(folder.join("mark"), "").unwrap();
        assert_eq!(Home::noted(&folder).unwrap(), None);
        let home = Home::of(&folder).unwrap();
        home.note(&folder).unwrap();
        assert_eq!(Home::noted(&folder).unwrap(), Some(home.clone()));
        for name in ["mark", FILE] {
            fs::copy(folder.join(name), copy.join(name)).unwrap();
        }
        let found = Home::of(&copy).unwrap();
        let before = Home::noted(&copy).unwrap().unwrap();
        assert_eq!(before, home);
        assert!(!found.origin(&before, StateId::new()).is_own());
        fs::rename(&folder, parent.path().join("renamed")).unwrap();
        let renamed = Home::of(&parent.path().join("renamed")).unwrap();
        assert_eq!(renamed.origin(&home, StateId::new()), Origin::Own);
    }
}
