//! Finds the files that the demonstration sums. Reads folders, changes nothing.

use super::narrator::{count, several};
use crate::failure::usage;
use indicatif::HumanBytes;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where files are looked for unless a folder is chosen, in this order.
const FOLDERS: [&str; 4] = ["/usr/share", "/usr/lib", "/usr/include", "/usr/bin"];
/// The largest file that is taken, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// How many regular files were looked at and not taken, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Skipped {
    large: usize,
    /// Folders among them.
    unreadable: usize,
    /// Their names are not UTF-8, or more than a line.
    unnamed: usize,
}

/// Files to sum, by absolute path. Displayed as what was found.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Their paths, each of which fits on a line.
    pub(super) paths: Vec<String>,
    /// Their size together, in bytes.
    pub(super) bytes: u64,
    skipped: Skipped,
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = several(self.paths.len(), "file");
        write!(f, "found {found}, {}{}", HumanBytes(self.bytes), self.skipped)
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (self.large, "over 1 MiB"),
            (self.unreadable, "unreadable"),
            (self.unnamed, "whose name is not a line of text"),
        ];
        let told = reasons.into_iter().filter(|(number, _)| *number > 0);
        let told: Vec<_> = told.map(|(number, why)| format!("{} {why}", count(number))).collect();
        if told.is_empty() { Ok(()) } else { write!(f, " (skipped {})", told.join(", ")) }
    }
}

impl Files {
    /// The first `count` regular, readable files below `folder`, or below the
    /// folders for programs and their data, in the order of their names. Links
    /// are not followed.
    pub(super) fn find(folder: Option<&Path>, count: usize) -> anyhow::Result<Self> {
        let folders: Vec<PathBuf> = match folder {
            Some(folder) => {
                check(folder)?;
                vec![std::path::absolute(folder)?]
            }
            None => FOLDERS.iter().map(PathBuf::from).collect(),
        };
        let mut files = Self::default();
        for folder in &folders {
            files.collect(folder, count);
        }
        if files.paths.is_empty() {
            let places: Vec<_> = folders.iter().map(|one| one.display().to_string()).collect();
            return Err(usage(format!(
                "there is no readable file of at most 1 MiB below {}{}: choose another folder with \
                 --folder DIR",
                places.join(", "),
                files.skipped
            )));
        }
        Ok(files)
    }

    fn collect(&mut self, folder: &Path, count: usize) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            self.skipped.unreadable += 1;
            return;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if self.paths.len() == count {
                return;
            }
            let Ok(found) = path.symlink_metadata() else { continue };
            if found.is_dir() {
                self.collect(&path, count);
            } else if found.is_file() {
                self.take(&path, found.len());
            }
        }
    }

    fn take(&mut self, path: &Path, size: u64) {
        let name = path.to_str().filter(|name| !name.contains(['\n', '\r']));
        let Some(name) = name else {
            self.skipped.unnamed += 1;
            return;
        };
        if size > LARGEST {
            self.skipped.large += 1;
        } else if std::fs::File::open(path).is_err() {
            self.skipped.unreadable += 1;
        } else {
            self.paths.push(name.to_owned());
            self.bytes += size;
        }
    }
}

/// Checks that a chosen folder is one.
fn check(folder: &Path) -> anyhow::Result<()> {
    let words = match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "it is not a folder".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(usage(format!("cannot look for files in --folder {}: {words}", folder.display())))
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
        assert_eq!(
            all.to_string(),
            "found 3 files, 12 B (skipped 1 over 1 MiB, 1 whose name is not a line of text)"
        );
        assert_eq!(Files::find(Some(temp.path()), 2).unwrap().paths, expected[..2]);
    }

    #[test]
    fn a_folder_without_files_is_an_error_that_names_it() {
        let temp = tempfile::tempdir().unwrap();
        let words = Files::find(Some(temp.path()), 1).unwrap_err().to_string();
        assert!(words.contains(temp.path().to_str().unwrap()), "{words}");
        let file = temp.path().join("file");
        for expected in ["No such file", "it is not a folder"] {
            let words = Files::find(Some(&file), 1).unwrap_err().to_string();
            assert!(words.contains(expected) && words.contains("--folder"), "{words}");
            std::fs::write(&file, "").unwrap();
        }
    }
}
