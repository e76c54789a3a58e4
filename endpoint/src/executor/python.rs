//! The Python module that turns functions into workers, for the endpoint's workers
//! to import. Touches one folder, and promises that a reader never sees half of
//! the module.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The module.
const MODULE: &str = include_str!("../../python/clutch.py");
/// Where Python looks for modules.
const VARIABLE: &str = "PYTHONPATH";

/// Writes the module into `folder`, which is made if it does not exist.
///
/// # Errors
/// What the file system says.
pub(crate) fn install(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join("clutch.py");
    if fs::read_to_string(&path).is_ok_and(|found| found == MODULE) {
        return Ok(());
    }
    let new = folder.join("clutch.py.new");
    fs::write(&new, MODULE)?;
    fs::rename(new, path)
}

/// The variable by which Python finds what is in `folder` first, and then what
/// `others` says, or the endpoint's own environment.
pub(crate) fn variable(folder: &Path, others: Option<&str>) -> (String, String) {
    let others = others.map(OsString::from).or_else(|| std::env::var_os(VARIABLE));
    let folder = folder.display();
    let value = match others.filter(|others| !others.is_empty()) {
        Some(others) => format!("{folder}:{}", others.to_string_lossy()),
        None => folder.to_string(),
    };
    (VARIABLE.to_owned(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_put_where_python_looks_first() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("a/python");
        for _ in 0..2 {
            install(&folder).unwrap();
            assert_eq!(fs::read_to_string(folder.join("clutch.py")).unwrap(), MODULE);
        }
        fs::write(folder.join("clutch.py"), "an older one").unwrap();
        install(&folder).unwrap();
        assert_eq!(fs::read_to_string(folder.join("clutch.py")).unwrap(), MODULE);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let (name, value) = variable(Path::new("/p"), Some("/theirs"));
        assert_eq!((name.as_str(), value.as_str()), ("PYTHONPATH", "/p:/theirs"));
    }
}
