//! The path of the daemon's own socket: `endpoint.sock` in the state folder, for the
//! endpoint's user only.
//!
//! Touches that file. An address of a socket holds about 100 bytes; in a folder with a
//! longer path the socket is bound and reached by a descriptor of the folder. Promises that
//! a socket that a killed daemon left is replaced: the caller has the lock of the folder.

use rustix::fs::{Mode, OFlags, open};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// The name of the socket in the state folder.
pub(super) const NAME: &str = "endpoint.sock";
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

/// Removes the socket, if there is one.
pub(super) fn remove(state: &Path) {
    let path = state.join(NAME);
    if fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
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
    async fn what_is_no_socket_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(NAME), "mine").unwrap();
        assert_eq!(bind(state.path()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(state.path().join(NAME)).unwrap(), b"mine");
    }
}
