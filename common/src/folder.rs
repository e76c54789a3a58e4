//! Tries whether a folder can be made, or written to where it is there. Leaves
//! nothing behind.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

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
