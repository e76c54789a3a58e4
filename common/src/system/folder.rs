//! Tries whether a folder can be made, or written to where it is there, which leaves
//! nothing behind; and keeps what is private from other users.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The rights of group and others.
const OF_OTHERS: u32 = 0o077;

/// Makes a folder in `path` and removes it; where `path` is not there, in the
/// nearest folder above that is.
///
/// # Errors
/// Where it was tried, and what the system said.
pub fn writable(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let path = std::path::absolute(path).map_err(|error| (path.to_owned(), error))?;
    for folder in path.ancestors() {
        let trial = folder.join(format!(".check-{}", uuid::Uuid::now_v7()));
        let made = DirBuilder::new().mode(0o700).create(&trial);
        match made.and_then(|()| std::fs::remove_dir(&trial)) {
            Err(error) if error.kind() == ErrorKind::NotFound && !folder.exists() => {}
            done => return done.map_err(|error| (folder.to_owned(), error)),
        }
    }
    Ok(())
}

/// Makes a folder that only its user can enter. One that is there is taken from other
/// users if nothing is in it yet, or something by one of the names in `ours`; a folder
/// that was there for something else is left alone. Returns whether it is private.
///
/// # Errors
/// When it cannot be made or read. A folder of another user's cannot be changed, and
/// is not private.
pub fn make_private(path: &Path, ours: &[&str]) -> io::Result<bool> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if std::fs::metadata(path)?.permissions().mode() & OF_OTHERS == 0 {
        return Ok(true);
    }
    let is_ours = ours.iter().any(|name| path.join(name).exists());
    if !is_ours && std::fs::read_dir(path)?.next().is_some() {
        return Ok(false);
    }
    Ok(tighten(path).is_ok())
}

/// Refuses a file with a password of this user's that other users can read, as ssh does
/// with its keys. One that belongs to another user, such as a secret that the system
/// hands out, has the rights which that one gave it.
pub fn check_private(path: &Path) -> Result<(), String> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || !is_own || metadata.mode() & OF_OTHERS == 0 {
        return Ok(());
    }
    Err(format!(
        "it holds a password, and other users can read it (its mode is {:04o}): chmod 600 {}",
        metadata.mode() & 0o7777,
        path.display()
    ))
}

/// Takes the rights of group and others from a file or folder, if there is one by that
/// name; what a symbolic link leads to stays as it is.
///
/// # Errors
/// When it is another user's, or on a file system without rights.
pub fn tighten(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    let mode = metadata.permissions().mode();
    if metadata.is_symlink() || mode & OF_OTHERS == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode & !OF_OTHERS))
}

/// Tightens a folder and what is in it, but not what is in folders below.
pub fn tighten_all(folder: &Path) -> io::Result<()> {
    tighten(folder)?;
    for entry in std::fs::read_dir(folder)? {
        tighten(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn open_to_all(path: &Path) {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_folder_of_ours_is_taken_from_other_users_and_no_other_one_is() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        assert!(make_private(&path, &["db"]).unwrap());
        assert_eq!(mode(&path), 0o700);
        open_to_all(&path);
        assert!(make_private(&path, &["db"]).unwrap());
        assert_eq!(mode(&path), 0o700, "an empty one");
        open_to_all(&path);
        std::fs::write(path.join("theirs"), "").unwrap();
        assert!(!make_private(&path, &["db"]).unwrap());
        assert_eq!(mode(&path), 0o755, "somebody else's");
        std::fs::write(path.join("db"), "").unwrap();
        assert!(make_private(&path, &["db"]).unwrap());
        assert_eq!(mode(&path), 0o700, "ours");
    }

    #[test]
    fn a_file_with_a_password_is_its_users_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, "").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_private(&path).is_ok(), good, "{mode:o}");
        }
        let words = check_private(&path).unwrap_err();
        assert!(words.contains("0604") && words.contains("chmod 600"), "{words}");
        check_private(Path::new("/dev/null")).unwrap();
        check_private(&temp.path().join("none")).unwrap();
    }

    #[test]
    fn what_is_in_a_folder_is_tightened_and_what_a_link_leads_to_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let (folder, outside) = (temp.path().join("in"), temp.path().join("out"));
        std::fs::create_dir(&folder).unwrap();
        for path in [&folder.join("file"), &outside] {
            std::fs::write(path, "").unwrap();
            open_to_all(path);
        }
        open_to_all(&folder);
        std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
        tighten_all(&folder).unwrap();
        tighten(&temp.path().join("none")).unwrap();
        assert_eq!((mode(&folder), mode(&folder.join("file"))), (0o700, 0o700));
        assert_eq!(mode(&outside), 0o755);
    }

    #[test]
    fn a_folder_is_tried_where_it_is_or_would_be_and_nothing_is_left() {
        let temp = tempfile::tempdir().unwrap();
        writable(temp.path()).unwrap();
        writable(&temp.path().join("a/b")).unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_a_folder_is_told_with_the_place() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        let (place, error) = writable(&file).unwrap_err();
        assert_eq!((place, error.kind()), (file.clone(), ErrorKind::NotADirectory));
        let (_, error) = writable(&file.join("below")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
        let (place, _) = writable(Path::new("/proc/clutch/state")).unwrap_err();
        assert_eq!(place, Path::new("/proc"));
    }
}
