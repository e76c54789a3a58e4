//! The home of a state folder: tells a folder that was copied, or put back from a backup,
//! from the folder itself. The file `home` names the host, the path, and the inode of
//! the file `mark`, of which every copy has another one, and every start makes another
//! one: a backup that is written over the files of a later start is told as well.
//!
//! A folder that is renamed, or mounted elsewhere, keeps its files and is itself. What
//! goes back with everything around it (the snapshot of a file system or of a host)
//! looks as it did, and cannot be told here.

use clutch_common::id::StateId;
use clutch_common::task::byte_string::ByteString;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// The file that has it, in the state folder.
const FILE: &str = "home";
/// The file that tells copies apart.
const MARK: &str = "mark";
/// The file that names a host, where there is one.
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

/// The marks by which a state folder is told from another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Home {
    /// The host's id, where it has one.
    machine: Option<String>,
    /// The path of the folder.
    path: ByteString,
    /// The file `mark`, or the one that was to follow it when the daemon died.
    marks: Vec<Inode>,
}

/// A file, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Inode {
    number: u64,
    /// When it was made, in nanoseconds, where the file system knows.
    born: Option<u128>,
}

impl Inode {
    fn of(file: &fs::Metadata) -> Self {
        let born = file.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self { number: file.ino(), born: born.map(|age| age.as_nanos()) }
    }
}

impl Home {
    /// Finds out where a state folder is that has its mark.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let mark = fs::metadata(folder.join(MARK))?;
        let machine = fs::read_to_string(MACHINE).ok().map(|id| id.trim().to_owned());
        Ok(Self {
            machine: machine.filter(|id| !id.is_empty()),
            path: fs::canonicalize(folder)?.into_os_string().into(),
            marks: vec![Inode::of(&mark)],
        })
    }

    /// Settles in a folder: makes another mark with what is in the one that is there,
    /// and notes where that is. A death in between leaves one of the two that are noted.
    pub(super) fn settle(mut self, folder: &Path) -> io::Result<()> {
        let (mark, fresh) = (folder.join(MARK), folder.join("mark.tmp"));
        let content = fs::read(&mark)?;
        if let Err(error) = fs::remove_file(&fresh)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let written = write_new(&fresh, &content)?;
        self.marks.push(Inode::of(&written.metadata()?));
        self.note(folder)?;
        fs::rename(&fresh, &mark)?;
        File::open(folder)?.sync_all()
    }

    /// Reads where a state folder was when it was used last; nothing where that is not
    /// noted, or cannot be read.
    pub(super) fn noted(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn note(&self, folder: &Path) -> io::Result<()> {
        let fresh = folder.join("home.tmp");
        write_new(&fresh, &serde_json::to_vec(self)?)?;
        fs::rename(&fresh, folder.join(FILE))?;
        File::open(folder)?.sync_all()
    }

    /// Tells how a folder that is here now, and was `before` when it was used last, came
    /// to be here. `state` is the id that it has.
    pub(super) fn origin(&self, before: &Self, state: StateId) -> Origin {
        let known = |one: &Option<String>| one.is_some();
        let hosts_known = known(&self.machine) && known(&before.machine);
        let other_host = hosts_known && self.machine != before.machine;
        let same_files = self.marks.iter().any(|mark| before.marks.contains(mark));
        if same_files && !other_host {
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

/// Writes a file for good, whatever was there.
fn write_new(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(number: u64, born: u128) -> Vec<Inode> {
        vec![Inode { number, born: Some(born) }]
    }

    fn home() -> Home {
        Home { machine: Some("one".to_owned()), path: "/state".into(), marks: marks(7, 1) }
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
            (Home { marks: [marks(6, 1), marks(7, 1)].concat(), ..home() }, Origin::Own),
            (Home { marks: marks(8, 1), ..home() }, put_back()),
            (Home { marks: marks(7, 2), ..home() }, put_back()),
            (Home { marks: marks(8, 1), ..elsewhere() }, copied("/copy")),
            (Home { machine: host("two"), ..home() }, copied("/state on another host")),
            (Home { machine: None, marks: marks(8, 1), ..home() }, copied("/state")),
        ] {
            assert_eq!(here.origin(&before, state), expected, "{before:?}");
        }
    }

    #[test]
    fn a_start_makes_another_mark_and_tells_every_other_folder_from_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let [folder, copy] = ["folder", "copy"].map(|name| parent.path().join(name));
        for folder in [&folder, &copy] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(folder.join(MARK), "content").unwrap();
        assert_eq!(Home::noted(&folder).unwrap(), None);
        let first = Home::of(&folder).unwrap();
        first.clone().settle(&folder).unwrap();
        let second = Home::of(&folder).unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read(folder.join(MARK)).unwrap(), b"content");
        let noted = || Home::noted(&folder).unwrap().unwrap();
        // Whether or not the daemon died before the other mark was in its place.
        for home in [&first, &second] {
            assert!(home.origin(&noted(), StateId::new()).is_own());
        }
        for name in [MARK, FILE] {
            fs::copy(folder.join(name), copy.join(name)).unwrap();
        }
        let copied = Home::of(&copy).unwrap();
        assert!(!copied.origin(&noted(), StateId::new()).is_own());
        let old = fs::read(folder.join(FILE)).unwrap();
        second.settle(&folder).unwrap();
        let third = Home::of(&folder).unwrap();
        assert!(third.origin(&noted(), StateId::new()).is_own());
        // Written over what is there, which leaves the files what they are.
        fs::write(folder.join(FILE), old).unwrap();
        assert!(!third.origin(&noted(), StateId::new()).is_own());
    }
}
