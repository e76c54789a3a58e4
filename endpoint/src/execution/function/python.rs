//! Installs the part of the Python package `clutch` that turns functions into workers,
//! for the endpoint's workers to import. Touches one folder, and promises that a reader
//! never sees half of a file.

use rustix::fs::{Mode, OFlags, open};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The package's name.
const PACKAGE: &str = "clutch";
/// Its files that need nothing but Python, in the order in which they can be replaced:
/// each uses those before it.
const FILES: [(&str, &str); 4] = [
    ("worker.py", include_str!("../../../../python/src/clutch/worker.py")),
    ("named.py", include_str!("../../../../python/src/clutch/named.py")),
    ("task.py", include_str!("../../../../python/src/clutch/task.py")),
    ("__init__.py", include_str!("../../../../python/src/clutch/__init__.py")),
];
/// The variable that tells Python where to look for modules.
pub(crate) const VARIABLE: &str = "PYTHONPATH";
/// The separator between two folders there.
const SEPARATOR: u8 = b':';

/// Writes the package into `folder`, which is made if it does not exist.
pub(crate) fn install(folder: &Path) -> io::Result<()> {
    let package = folder.join(PACKAGE);
    DirBuilder::new().recursive(true).mode(0o700).create(&package)?;
    for (name, text) in FILES {
        let path = package.join(name);
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        let new = package.join(format!("{name}.new"));
        let mut private = OpenOptions::new();
        private.write(true).create(true).truncate(true).mode(0o600);
        private.open(&new)?.write_all(text.as_bytes())?;
        fs::rename(new, path)?;
    }
    Ok(())
}

/// The folder in which workers find the package.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    folder: PathBuf,
    /// The folder itself, where `folder` names it by a descriptor.
    _held: Option<Arc<OwnedFd>>,
}

impl Module {
    /// Names the absolute `folder`. `PYTHONPATH` cannot name a folder with a colon in its
    /// path: it is named by a descriptor of this process, for as long as this is kept.
    pub(crate) fn within(folder: &Path) -> io::Result<Self> {
        if !folder.as_os_str().as_bytes().contains(&SEPARATOR) {
            return Ok(Self { folder: folder.to_owned(), _held: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = open(folder, flags, Mode::empty())?;
        let folder = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
        Ok(Self { folder: folder.into(), _held: Some(Arc::new(held)) })
    }

    /// Returns the value for [`VARIABLE`]: this folder, then `others`, or else those of the
    /// endpoint's own environment.
    pub(crate) fn path(&self, others: Option<&OsStr>) -> OsString {
        let others = others.map(OsString::from).or_else(|| std::env::var_os(VARIABLE));
        let mut path = self.folder.clone().into_os_string();
        if let Some(others) = others.filter(|others| !others.is_empty()) {
            path.push(OsStr::from_bytes(&[SEPARATOR]));
            path.push(others);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a folder for modules holds the package, and nothing besides.
    fn holds_the_package(folder: &Path) -> bool {
        let package = folder.join(PACKAGE);
        let is_there = |(name, text): &(&str, &str)| {
            fs::read_to_string(package.join(name)).is_ok_and(|found| found == *text)
        };
        FILES.iter().all(is_there) && fs::read_dir(package).unwrap().count() == FILES.len()
    }

    #[test]
    fn the_package_is_put_where_python_looks_first() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("a/python");
        for _ in 0..2 {
            install(&folder).unwrap();
            assert!(holds_the_package(&folder));
        }
        fs::write(folder.join("clutch/worker.py"), "an older one").unwrap();
        install(&folder).unwrap();
        assert!(holds_the_package(&folder));
        let module = Module::within(Path::new("/p")).unwrap();
        assert_eq!(module.path(Some(OsStr::new("/child_ends"))), "/p:/child_ends");
    }

    #[test]
    fn any_folder_can_be_named_and_no_colon_cuts_it_in_two() {
        let base = tempfile::tempdir().unwrap();
        for name in ["a:b", ":", "plain"] {
            let folder = base.path().join(name);
            install(&folder).unwrap();
            let module = Module::within(&folder).unwrap();
            let path = module.path(Some(OsStr::new("/child_ends")));
            let found = std::env::split_paths(&path).next().unwrap();
            assert!(holds_the_package(&found));
            assert_eq!(std::env::split_paths(&path).count(), 2);
        }
        let odd = base.path().join(OsStr::from_bytes(b"a\xff"));
        let module = Module::within(&odd).unwrap();
        assert!(module.path(None).as_bytes().starts_with(odd.as_os_str().as_bytes()));
    }
}
