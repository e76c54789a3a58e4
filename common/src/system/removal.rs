//! Removes a folder and all that is in it, however deep the tree and whatever is mounted in it.
//!
//! Touches what is below the folder that is named, and nothing else: it follows no
//! symbolic link, and enters no folder that something else is mounted on. Promises
//! that it takes no more stack for a deep tree than for a flat one and no more than
//! [`OPEN_MAX`] descriptors, and that it goes on past whatever cannot be removed.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, StatxFlags, chmod, fstat, openat, renameat, statx,
    unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// How many folders are open at once at most. What lies deeper is moved up, into the
/// folder that is being removed.
pub const OPEN_MAX: usize = 32;

/// Removes what is at `path`: a folder with all that is in it, also where it is not
/// writable, a file, or a symbolic link itself. That nothing is there is no error.
///
/// # Errors
/// With the entries that are left, and why. All that could be removed is gone.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::other(format!("{} is no name to remove", path.display())));
    };
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = match openat(CWD, folder, OFlags::PATH | FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        parent => parent?,
    };
    let name = CString::new(name.as_bytes())?;
    let mut removal = Removal { top: path, levels: Vec::new(), left: None, moved: 0 };
    removal.entry(parent.as_fd(), &name, FileType::Unknown);
    removal.run(parent.as_fd());
    match removal.left {
        None => Ok(()),
        Some(left) => Err(left.into()),
    }
}

/// How folders are opened: not through a symbolic link.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
const ENTERED: OFlags = OFlags::RDONLY.union(FOLDER).union(OFlags::NOFOLLOW);

/// The entries that could not be removed.
struct Left {
    count: usize,
    first: PathBuf,
    why: io::Error,
}

impl From<Left> for io::Error {
    fn from(Left { count, first, why }: Left) -> Self {
        let others = match count {
            1 => String::new(),
            count => format!(", and {} more", count - 1),
        };
        Self::new(why.kind(), format!("{} stays: {why}{others}", first.display()))
    }
}

/// A folder that is being emptied.
struct Level {
    dir: Dir,
    name: CString,
    /// Which mount it is in: what is in another one is not entered.
    mount: (u64, u64),
    /// Whether anything was removed or moved since it was last read from its start.
    progress: bool,
    /// Whether its owner has been given the right to change it.
    opened_up: bool,
}

struct Removal<'a> {
    top: &'a Path,
    levels: Vec<Level>,
    left: Option<Left>,
    /// How many folders were moved up.
    moved: u64,
}

impl Removal<'_> {
    /// Empties the levels, the deepest first, until none is left.
    fn run(&mut self, parent: BorrowedFd<'_>) {
        while let Some(level) = self.levels.last_mut() {
            match level.dir.read() {
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(entry)) => {
                    let (name, kind) = (entry.file_name().to_owned(), entry.file_type());
                    match level.dir.fd().and_then(rustix::io::dup) {
                        Ok(folder) => self.entry(folder.as_fd(), &name, kind),
                        Err(error) => self.leave(&name, error),
                    }
                }
                Some(Err(error)) => {
                    self.leave(c".", error);
                    self.levels.pop();
                }
                None => self.emptied(parent),
            }
        }
    }

    /// The deepest level has been read to its end.
    fn emptied(&mut self, parent: BorrowedFd<'_>) {
        let Some(mut level) = self.levels.pop() else { return };
        let above = self.levels.last();
        let removed = match above.map(|above| above.dir.fd()) {
            None => unlinkat(parent, &*level.name, AtFlags::REMOVEDIR),
            Some(Ok(folder)) => unlinkat(folder, &*level.name, AtFlags::REMOVEDIR),
            Some(Err(error)) => Err(error),
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {
                if let Some(above) = self.levels.last_mut() {
                    above.progress = true;
                }
            }
            // Something came meanwhile, or was moved here.
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.progress => {
                level.progress = false;
                level.dir.rewind();
                self.levels.push(level);
            }
            // What is in it was told.
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.left.is_some() => {}
            Err(error) => self.leave(&level.name, error),
        }
    }

    /// Removes an entry of a folder, or enters it.
    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr, kind: FileType) {
        let mut removed = unlink(folder, name, kind);
        if matches!(removed, Err(Errno::ACCESS)) && self.open_up(folder) {
            removed = unlink(folder, name, kind);
        }
        match removed {
            Ok(()) | Err(Errno::NOENT) => {
                if let Some(level) = self.levels.last_mut() {
                    level.progress = true;
                }
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => self.enter(folder, name),
            Err(Errno::BUSY) => {
                let why = "something is mounted there; unmount it, and remove it by hand";
                self.leave(name, io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
            Err(error) => self.leave(name, error),
        }
    }

    /// Goes down into a folder that is not empty; from the lowest level it is moved up.
    fn enter(&mut self, folder: BorrowedFd<'_>, name: &CStr) {
        let entered = open(folder, name).and_then(|entered| Ok((mount(&entered)?, entered)));
        let (mount, entered) = match entered {
            Ok(entered) => entered,
            Err(error) => return self.leave(name, error),
        };
        if self.levels.last().is_some_and(|level| level.mount != mount) {
            let why = "something is mounted there; unmount it, and remove it by hand";
            return self.leave(name, io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
        if self.levels.len() >= OPEN_MAX {
            if let Err(error) = self.move_up(folder, name, entered.as_fd()) {
                self.leave(name, error);
            }
            return;
        }
        match Dir::new(entered) {
            Ok(dir) => {
                let name = name.to_owned();
                let (progress, opened_up) = (false, false);
                self.levels.push(Level { dir, name, mount, progress, opened_up });
            }
            Err(error) => self.leave(name, error),
        }
    }

    /// Moves a folder into the top one, which is read again before it is removed.
    fn move_up(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        entered: BorrowedFd<'_>,
    ) -> Result<(), Errno> {
        let Some(top) = self.levels.first_mut() else { return Err(Errno::INVAL) };
        loop {
            self.moved += 1;
            let to = format!(".removed-{}", self.moved);
            let up = |top: &Level| renameat(folder, name, top.dir.fd()?, to.as_str());
            let renamed = match up(top) {
                Err(Errno::ACCESS) => {
                    // Its entry for the folder above changes, or the top is not writable.
                    grant(entered)?;
                    grant(top.dir.fd()?)?;
                    grant(folder)?;
                    up(top)
                }
                renamed => renamed,
            };
            match renamed {
                // The name is taken.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        top.progress = true;
        if let Some(level) = self.levels.last_mut() {
            level.progress = true;
        }
        Ok(())
    }

    /// Lets the owner change the folder of the deepest level; not twice.
    fn open_up(&mut self, folder: BorrowedFd<'_>) -> bool {
        let Some(level) = self.levels.last_mut() else { return false };
        !std::mem::replace(&mut level.opened_up, true) && grant(folder).is_ok()
    }

    /// Notes what cannot be removed.
    fn leave(&mut self, name: &CStr, why: impl Into<io::Error>) {
        if let Some(left) = &mut self.left {
            left.count += 1;
            return;
        }
        let names = self.levels.iter().skip(1).map(|level| &*level.name);
        let inside = !self.levels.is_empty();
        let mut first = self.top.to_owned();
        first.extend(names.chain(inside.then_some(name)).map(|n| OsStr::from_bytes(n.to_bytes())));
        self.left = Some(Left { count: 1, first, why: why.into() });
    }
}

/// Removes a file, or a folder that is empty; others are `NOTEMPTY`.
fn unlink(folder: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<(), Errno> {
    let as_folder = || unlinkat(folder, name, AtFlags::REMOVEDIR);
    if kind == FileType::Directory {
        return as_folder();
    }
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => as_folder(),
        removed => removed,
    }
}

/// Opens a folder for reading, also one that forbids it.
fn open(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match openat(folder, name, ENTERED, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let flags = OFlags::PATH | FOLDER | OFlags::NOFOLLOW;
            grant(openat(folder, name, flags, Mode::empty())?)?;
            openat(folder, name, ENTERED, Mode::empty())
        }
        opened => opened,
    }
}

/// Gives the owner of an open folder every right to it.
fn grant(folder: impl AsFd) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;
    // One that was opened as a path only takes no `fchmod`.
    chmod(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()), Mode::RWXU)
}

/// The mount and the device that an open folder is in.
fn mount(folder: impl AsFd) -> Result<(u64, u64), Errno> {
    let device = fstat(&folder)?.st_dev;
    let asked = statx(&folder, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    // Linux tells since 5.8; before, a mount of the same device looks like a folder.
    let id = asked.map_or(0, |told| {
        let known = told.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        if known { told.stx_mnt_id } else { 0 }
    });
    Ok((device, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;

    /// Makes folders within folders, so many, and a file in the last one.
    fn deep(at: &Path, depth: usize) {
        let mut folder = openat(CWD, at, ENTERED, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&folder, "d", Mode::RWXU).unwrap();
            folder = openat(&folder, "d", ENTERED, Mode::empty()).unwrap();
        }
        openat(&folder, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    }

    fn root() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        fs::create_dir(&root).unwrap();
        (temp, root)
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_with_little_stack() {
        let (_temp, root) = root();
        deep(&root, 20_000);
        fs::write(root.join(".removed-1"), "in the way").unwrap();
        let thread = std::thread::Builder::new().stack_size(128 * 1024);
        let path = root.clone();
        thread.spawn(move || remove_all(&path)).unwrap().join().unwrap().unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_wide_and_branching_tree_is_removed() {
        let (_temp, root) = root();
        for branch in 0..3 {
            let branch = root.join(branch.to_string());
            fs::create_dir(&branch).unwrap();
            for file in 0..700 {
                fs::write(branch.join(format!("file-{file}")), "").unwrap();
            }
            deep(&branch, 3 * OPEN_MAX);
        }
        remove_all(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn links_are_removed_and_what_they_lead_to_stays() {
        let (temp, root) = root();
        let outside = temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        remove_all(&root).unwrap();
        symlink(&outside, &root).unwrap();
        remove_all(&root).unwrap();
        assert!(fs::symlink_metadata(&root).is_err());
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"x");
    }

    #[test]
    fn folders_that_forbid_it_are_removed() {
        let (_temp, root) = root();
        let locked = root.join("a/b");
        fs::create_dir_all(&locked).unwrap();
        deep(&locked, 2 * OPEN_MAX);
        for path in [locked.join("d/d"), locked, root.join("a"), root.clone()] {
            fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
        }
        remove_all(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_file_and_nothing_are_removed_too() {
        let (_temp, root) = root();
        fs::write(root.join("file"), "").unwrap();
        remove_all(&root.join("file")).unwrap();
        remove_all(&root.join("file")).unwrap();
        remove_all(&root.join("no/such/folder")).unwrap();
        assert!(root.exists());
    }

    /// Whether this process may mount something; `mount` is told to.
    fn mounted(kind: &str, from: &Path, at: &Path) -> bool {
        let mut mount = Command::new("mount");
        mount.arg(kind).arg(from).arg(at);
        mount.output().is_ok_and(|output| output.status.success())
    }

    #[test]
    fn what_is_mounted_inside_stays_with_all_that_is_in_it_and_the_rest_goes() {
        let (temp, root) = root();
        let outside = temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        let at = root.join("a/mounted");
        fs::create_dir_all(&at).unwrap();
        fs::write(root.join("a/other"), "x").unwrap();
        fs::write(root.join("z"), "x").unwrap();
        if !mounted("--bind", &outside, &at) {
            eprintln!("skipped: this user may not mount");
            return;
        }
        let left = remove_all(&root);
        let unmounted = Command::new("umount").arg(&at).status().unwrap();
        assert!(unmounted.success());
        let words = left.unwrap_err().to_string();
        assert!(words.contains("a/mounted stays") && words.contains("unmount"), "{words}");
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"x");
        assert!(!root.join("z").exists() && !root.join("a/other").exists());
        remove_all(&root).unwrap();
        assert!(!root.exists());
    }
}
