//! The paths of the daemon's sockets, for the endpoint's user only: `endpoint.sock` in the state
//! folder, its own, and `tasks.sock` beside it, its tasks'.
//!
//! Touches those files. An address of a socket holds about 100 bytes; in a folder with a
//! longer path the daemon's own socket is bound and reached by a descriptor of the folder. The
//! tasks' socket is reached by programs that know nothing of this: where its path is longer, it
//! is in a folder of its own below the folder for temporary files. Promises that
//! a socket that a killed daemon left is replaced: the caller has the lock of the folder.

use clutch_common::id::StateId;
use rustix::fs::{Mode, OFlags, open};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// The name of the socket in the state folder.
pub(super) const NAME: &str = "endpoint.sock";
/// The name of the tasks' socket.
const TASKS: &str = "tasks.sock";
/// The most bytes that the address of a socket holds.
const LONGEST: usize = 107;

/// A path that an address can hold, and the descriptor that it goes through.
struct ShortPath {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl ShortPath {
    fn of(state: &Path) -> io::Result<Self> {
        let path = state.join(NAME);
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path, _folder: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(state, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(NAME);
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Binds the socket of a state folder that this process has locked. To be called within a
/// tokio runtime.
pub(super) fn bind(state: &Path) -> io::Result<UnixListener> {
    remove(state);
    let short = ShortPath::of(state)?;
    let listener = UnixListener::bind(&short.path)?;
    fs::set_permissions(state.join(NAME), Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Binds the socket of the tasks of a state folder that this process has locked. Returns its path
/// as well. To be called within a tokio runtime.
pub(crate) fn bind_for_tasks(
    state: &Path,
    state_id: StateId,
) -> io::Result<(UnixListener, PathBuf)> {
    let mut path = state.join(TASKS);
    if path.as_os_str().len() > LONGEST {
        let folder = std::env::temp_dir().join(format!("clutch-{state_id}"));
        make_private(&folder)?;
        path = folder.join(TASKS);
    }
    remove_at(&path);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok((listener, path))
}

/// Makes a folder that no other user can look into, or finds that there is one.
fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(folder)?;
            let is_ours = found.is_dir()
                && found.uid() == rustix::process::geteuid().as_raw()
                && found.permissions().mode() & 0o077 == 0;
            if is_ours { Ok(()) } else { Err(error) }
        }
        made => made,
    }
}

/// Removes the socket, if there is one.
pub(super) fn remove(state: &Path) {
    remove_at(&state.join(NAME));
}

/// Removes the socket at a path, if there is one.
pub(super) fn remove_at(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        // One that stays is told by the bind that follows, or refuses connections.
        drop(fs::remove_file(path));
    }
}

/// Connects to the socket of a state folder.
pub(super) async fn connect(state: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(&ShortPath::of(state)?.path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_reached_however_long_its_path_is_and_replaces_one_that_was_left() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["short".to_owned(), format!("{}/{}", "l".repeat(200), "o".repeat(200))] {
            let state = root.path().join(folder);
            fs::create_dir_all(&state).unwrap();
            for _ in 0..2 {
                let listener = bind(&state).unwrap();
                let mode = fs::metadata(state.join(NAME)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
                drop(connect(&state).await.unwrap());
                drop(listener.accept().await.unwrap());
            }
            let refused = connect(&state).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "no daemon listens");
            remove(&state);
            assert_eq!(connect(&state).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[tokio::test]
    async fn tasks_reach_theirs_by_its_path_however_long_that_of_the_state_folder_is() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["short".to_owned(), "l".repeat(200)] {
            let (state, id) = (root.path().join(folder), StateId::new());
            fs::create_dir_all(&state).unwrap();
            for _ in 0..2 {
                let (listener, path) = bind_for_tasks(&state, id).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
                drop(UnixStream::connect(&path).await.unwrap());
                drop(listener);
                if path.parent() != Some(&state) {
                    let folder = path.parent().unwrap();
                    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
                    assert!(bind_for_tasks(&state, id).is_err(), "others can look into it");
                    fs::remove_dir_all(folder).unwrap();
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(NAME), "mine").unwrap();
        assert_eq!(bind(state.path()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(state.path().join(NAME)).unwrap(), b"mine");
    }
}
