//! A file that tasks wait for, so that a test says what happens before they
//! end, instead of hoping that they take long enough.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

/// A gate; closed until it is opened.
#[derive(Clone, Debug)]
pub struct Gate {
    folder: PathBuf,
    file: PathBuf,
}

impl Gate {
    /// A closed gate in a folder that goes with the test.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { folder: folder.to_owned(), file: folder.join(format!("gate-{name}")) }
    }

    /// A line of shell that ends when the gate is open, or the test is over.
    #[must_use]
    pub fn line(&self) -> String {
        let (file, folder) = (self.file.display(), self.folder.display());
        format!("until [ -e '{file}' ] || [ ! -d '{folder}' ]; do sleep 0.05; done")
    }

    /// Lets everybody through, for good.
    pub fn open(&self) -> Result<()> {
        std::fs::write(&self.file, b"").with_context(|| format!("opening {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_gate_holds_until_it_is_open_or_its_folder_gone() {
        let folder = tempfile::tempdir().unwrap();
        let gate = Gate::new(folder.path(), "a");
        let start = || Command::new("sh").args(["-c", &gate.line()]).spawn().unwrap();
        let (mut one, other) = (start(), Gate::new(folder.path(), "b"));
        let mut two = Command::new("sh").args(["-c", &other.line()]).spawn().unwrap();
        assert_eq!((one.try_wait().unwrap(), two.try_wait().unwrap()), (None, None));
        gate.open().unwrap();
        assert!(one.wait().unwrap().success());
        assert_eq!(two.try_wait().unwrap(), None);
        drop(folder);
        assert!(two.wait().unwrap().success());
    }
}
