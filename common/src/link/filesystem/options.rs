//! Parses a `file:` URL. Pure.

use crate::link::InvalidUrl;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// The longest poll: a consumer that hears nothing looks at least this often.
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// Most messages of one file.
const LARGEST_GROUP: usize = 1000;

/// The access that files and folders are made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// The user alone.
    Private,
    /// The user and the group of the root folder.
    Group,
}

impl Access {
    /// The mode of a folder.
    pub(super) fn folder_mode(self) -> u32 {
        match self {
            Self::Private => 0o700,
            Self::Group => 0o2770,
        }
    }

    /// The mode of a file.
    pub(super) fn file_mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Group => 0o660,
        }
    }
}

/// A root folder and how to use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Options {
    /// The root folder: absolute, not necessarily there.
    pub(super) root: PathBuf,
    /// `access=private|group`
    pub(super) access: Access,
    /// `poll=1s`: how often a consumer looks whether or not it was woken.
    pub(super) poll: Duration,
    /// `spool=UUID`: which spool it must be; any where there is none.
    pub(super) spool: Option<Uuid>,
    /// `group=256`: how many messages may share a file.
    pub(super) group: usize,
}

impl Options {
    /// Reads a URL.
    pub(super) fn parse(url: &url::Url) -> Result<Self, InvalidUrl> {
        let unreadable = |reason: &str| InvalidUrl::Unreadable(reason.to_owned());
        if url.host_str().is_some_and(|host| !host.is_empty()) {
            return Err(unreadable("it names a host; a folder is file:///absolute/path"));
        }
        let root = url
            .to_file_path()
            .map_err(|()| unreadable("it names no absolute path; a folder is file:///path"))?;
        if root.parent().is_none() {
            return Err(unreadable("it names the root of the file system; give a folder below it"));
        }
        let mut options = Self {
            root,
            access: Access::Private,
            poll: Duration::from_secs(1),
            spool: None,
            group: 256,
        };
        for (key, value) in url.query_pairs() {
            options.set(&key, &value)?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), InvalidUrl> {
        let wrong = |expected: &str| {
            InvalidUrl::Option(format!("{key}={value}: expected {key}={expected}"))
        };
        match key {
            "access" => {
                self.access = match value {
                    "private" => Access::Private,
                    "group" => Access::Group,
                    _ => return Err(wrong("private or access=group")),
                };
            }
            "poll" => {
                let within = Duration::from_millis(1)..=LONGEST_POLL;
                let poll = humantime::parse_duration(value).ok();
                self.poll = poll
                    .filter(|poll| within.contains(poll))
                    .ok_or_else(|| wrong("a duration from 1ms to 60s"))?;
            }
            "group" => {
                self.group = value
                    .parse()
                    .ok()
                    .filter(|group| (1..=LARGEST_GROUP).contains(group))
                    .ok_or_else(|| wrong("a number from 1 to 1000"))?;
            }
            "spool" => {
                self.spool = Some(value.parse().map_err(|_| wrong("the UUID of a spool"))?);
            }
            _ => {
                return Err(InvalidUrl::Option(format!(
                    "'{key}' is not known to a folder; it has access, poll, group and spool"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn parse(url: &str) -> Result<Options, InvalidUrl> {
        Options::parse(&url::Url::parse(url).unwrap())
    }

    #[test]
    fn a_path_is_enough_and_options_are_laid_over() {
        let plain = parse("file:///srv/my%20spool").unwrap();
        assert_eq!(plain.root, Path::new("/srv/my spool"));
        assert_eq!(
            (plain.access, plain.poll, plain.group),
            (Access::Private, Duration::from_secs(1), 256)
        );
        let set = parse("file:///srv/s?access=group&poll=20ms&group=1").unwrap();
        assert_eq!(
            (set.access, set.poll, set.group),
            (Access::Group, Duration::from_millis(20), 1)
        );
    }

    #[test]
    fn what_cannot_be_is_told_with_what_could() {
        for (url, words) in [
            ("file://host/path", "names a host"),
            ("file:///", "root of the file system"),
            ("file:///s?pol=1s", "'pol' is not known"),
            ("file:///s?poll=0s", "from 1ms to 60s"),
            ("file:///s?poll=fast", "from 1ms to 60s"),
            ("file:///s?access=all", "access=group"),
            ("file:///s?group=0", "from 1 to 1000"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(words), "{url}: {error}");
        }
    }
}
