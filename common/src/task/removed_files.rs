//! The files that were removed with the sandbox of a task: how many, and the names of the
//! first. Pure.

use crate::task::byte_string::ByteString;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The files that were in a sandbox when it was removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RemovedFiles {
    /// How many there were, as far as they were counted.
    pub count: u64,
    /// The paths of the first, relative to the sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<ByteString>,
}

impl RemovedFiles {
    /// How many names are kept at most.
    pub const NAMES: usize = 20;
    /// How many bytes all names have together at most.
    pub const BYTES: usize = 4096;
    /// How many files are counted at most.
    pub const COUNTED: u64 = 10_000;

    /// Creates the record of no files.
    #[must_use]
    pub fn none() -> Self {
        Self { count: 0, names: Vec::new() }
    }

    /// Counts a file, and keeps its name while there is room.
    pub fn add(&mut self, name: impl Into<ByteString>) {
        let follows = self.names.len() as u64 == self.count;
        self.count += 1;
        let name = name.into();
        let kept: usize = self.names.iter().map(ByteString::len).sum();
        if follows && self.names.len() < Self::NAMES && kept + name.len() <= Self::BYTES {
            self.names.push(name);
        }
    }
}

impl fmt::Display for RemovedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        let at_least = if self.count >= Self::COUNTED { "at least " } else { "" };
        write!(f, "{at_least}{} file{plural} in the removed sandbox", self.count)?;
        for (index, name) in self.names.iter().enumerate() {
            write!(f, "{} {name}", if index == 0 { ":" } else { "," })?;
        }
        if !self.names.is_empty() && self.count > self.names.len() as u64 {
            f.write_str(", …")?;
        }
        f.write_str("; give the task a --cwd, or copy them elsewhere")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: impl IntoIterator<Item = String>) -> RemovedFiles {
        let mut files = RemovedFiles::none();
        names.into_iter().for_each(|name| files.add(name));
        files
    }

    #[test]
    fn the_first_names_are_kept_and_all_files_counted() {
        let files = of((0..25).map(|number| format!("f{number:02}")));
        assert_eq!((files.count, files.names.len()), (25, RemovedFiles::NAMES));
        assert_eq!(files.names[19], ByteString::from("f19"));
        let long = of(["x".repeat(3000), "y".repeat(3000), "z".to_owned()]);
        assert_eq!((long.count, long.names.len()), (3, 1), "a name is missing in the middle");
    }

    #[test]
    fn it_says_in_words_what_to_do() {
        assert_eq!(
            of(["out.dat".to_owned()]).to_string(),
            "1 file in the removed sandbox: out.dat; give the task a --cwd, or copy them elsewhere"
        );
        let many = of((0..21).map(|number| format!("f{number}"))).to_string();
        assert!(many.starts_with("21 files in the removed sandbox: f0, f1,"), "{many}");
        assert!(many.contains("f19, …;"), "{many}");
        let counted = RemovedFiles { count: RemovedFiles::COUNTED, names: Vec::new() }.to_string();
        assert!(counted.starts_with("at least 10000 files in the removed sandbox;"), "{counted}");
    }

    #[test]
    fn it_is_the_same_after_json_whatever_a_name_is_made_of() {
        let mut files = of(["plain".to_owned()]);
        files.add(vec![0xff, b'x']);
        let json = serde_json::to_string(&files).unwrap();
        assert_eq!(serde_json::from_str::<RemovedFiles>(&json).unwrap(), files);
    }
}
