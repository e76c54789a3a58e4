//! Finds the files that the demonstration sums. Reads folders, changes nothing.

use crate::failure::usage;
use std::path::{Path, PathBuf};

/// Where files are looked for unless a folder is chosen, in this order.
const FOLDERS: [&str; 4] = ["/usr/share", "/usr/lib", "/usr/include", "/usr/bin"];
/// The largest file that is taken, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Files to sum, by absolute path.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Their paths, each of which fits on a line.
    pub(super) paths: Vec<String>,
    /// Their size together, in bytes.
    pub(super) bytes: u64,
}

impl Files {
    /// The first `count` regular, readable files below `folder`, or below the
    /// folders for programs and their data, in the order of their names. Links
    /// are not followed.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn find(folder: Option<&Path>, count: usize) -> anyhow::Result<Self> {
        let folders: Vec<PathBuf> = match folder {
            Some(folder) => vec![std::path::absolute(folder)?],
            None => FOLDERS.iter().map(PathBuf::from).collect(),
        };
        let mut files = Self::default();
        for folder in &folders {
            files.collect(folder, count);
        }
        if files.paths.is_empty() {
            let places: Vec<_> = folders.iter().map(|one| one.display().to_string()).collect();
            return Err(usage(format!(
                "there is no readable file of at most 1 MiB below {}: choose another place with \
                 --folder DIR",
                places.join(", ")
            )));
        }
        Ok(files)
    }

    fn collect(&mut self, folder: &Path, count: usize) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if self.paths.len() == count {
                return;
            }
            let Ok(found) = path.symlink_metadata() else { continue };
            let name = path.to_str().filter(|name| !name.contains(['\n', '\r']));
            if found.is_dir() {
                self.collect(&path, count);
            } else if let Some(name) = name
                && found.is_file()
                && found.len() <= LARGEST
                && std::fs::File::open(&path).is_ok()
            {
                self.paths.push(name.to_owned());
                self.bytes += found.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_taken_in_order_and_nothing_else_is() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir(at("b")).unwrap();
        for (name, size) in [("a", 3), ("b/x", 4), ("c", 5), ("d\ne", 1)] {
            std::fs::write(at(name), vec![b'x'; size]).unwrap();
        }
        std::fs::write(at("large"), vec![0; 1024 * 1024 + 1]).unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        std::os::unix::fs::symlink(temp.path(), at("loop")).unwrap();

        let all = Files::find(Some(temp.path()), 10).unwrap();
        let expected = ["a", "b/x", "c"].map(|name| at(name).display().to_string());
        assert_eq!((all.paths.as_slice(), all.bytes), (&expected[..], 12));
        assert_eq!(Files::find(Some(temp.path()), 2).unwrap().paths, expected[..2]);
    }

    #[test]
    fn a_folder_without_files_is_an_error_that_names_it() {
        let temp = tempfile::tempdir().unwrap();
        let words = Files::find(Some(temp.path()), 1).unwrap_err().to_string();
        assert!(words.contains(temp.path().to_str().unwrap()), "{words}");
    }
}
