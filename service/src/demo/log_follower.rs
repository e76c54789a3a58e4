//! Follows a daemon's log: a file of JSON lines that only grows.

use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// A log that is read from a position on.
#[derive(Debug)]
pub(super) struct LogFollower {
    path: PathBuf,
    read: u64,
}

impl LogFollower {
    /// The log at `path`, from what is written next.
    pub(super) fn from_now(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), read: std::fs::metadata(path)?.len() })
    }

    /// Where it is.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next line with this message; lines before it are skipped. If there is none yet,
    /// the next call looks at the lines written since.
    pub(super) fn next(&mut self, message: &str) -> std::io::Result<Option<Value>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !line.ends_with(b"\n") {
                break;
            }
            self.read += line.len() as u64;
            if let Ok(value) = serde_json::from_slice::<Value>(line)
                && value["message"] == message
            {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Its last line of level WARN or ERROR.
    #[must_use]
    pub(super) fn trouble(&self) -> Option<String> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let troubled = |line: &&str| {
            let parsed = serde_json::from_str::<Value>(line);
            parsed.is_ok_and(|value| value["level"] == "WARN" || value["level"] == "ERROR")
        };
        text.lines().rev().find(troubled).map(str::to_owned)
    }

    /// Its last line that is not empty, for an error message.
    #[must_use]
    pub(super) fn end(&self) -> String {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it is empty").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_found_once_and_in_order() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        std::fs::write(&path, "{\"message\":\"up\",\"n\":0}\n").unwrap();
        let mut log = LogFollower::from_now(&path).unwrap();
        assert_eq!(log.next("up").unwrap(), None);
        let append = |text: &str| {
            use std::io::Write as _;
            File::options().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("noise\n{\"message\":\"up\",\"n\":1}\n{\"message\":\"up\",\"n\":2}\n{\"message\":");
        assert_eq!(log.next("up").unwrap().unwrap()["n"], 1);
        assert_eq!(log.next("up").unwrap().unwrap()["n"], 2);
        assert_eq!(log.next("up").unwrap(), None);
        append("\"up\",\"n\":3}\n");
        assert_eq!(log.next("up").unwrap().unwrap()["n"], 3);
        assert!(log.end().contains("\"n\":3"));
        assert_eq!(log.trouble(), None);
        append(
            "{\"level\":\"WARN\",\"n\":4}\n{\"level\":\"ERROR\",\"n\":5}\n{\"level\":\"INFO\"}\n",
        );
        assert_eq!(log.trouble().unwrap(), "{\"level\":\"ERROR\",\"n\":5}");
    }
}
