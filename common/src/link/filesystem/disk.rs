//! The few ways in which the folder is written to, and what their failures
//! mean. Knows files and folders, and nothing of messages.

use super::options::Access;
use crate::link::Fault;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes a folder unless it is there, and syncs the one it is in. No process sees it
/// before it has its mode.
pub(super) fn make_folder(path: &Path, access: Access) -> io::Result<()> {
    let Some(above) = path.parent() else { return Err(ErrorKind::InvalidInput.into()) };
    if path.is_dir() {
        return Ok(());
    }
    if access == Access::Private {
        match DirBuilder::new().mode(access.folder_mode()).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            made => made?,
        }
        return sync_folder(above);
    }
    // The umask does not reach a mode that is set later.
    let hidden = above.join(format!(".new-{}", uuid::Uuid::now_v7()));
    DirBuilder::new().mode(0o700).create(&hidden)?;
    let made = fs::set_permissions(&hidden, fs::Permissions::from_mode(access.folder_mode()))
        .and_then(|()| fs::rename(&hidden, path));
    if let Err(error) = made {
        fs::remove_dir(&hidden)?;
        // Another process was quicker, and has put something into it.
        return if path.is_dir() { Ok(()) } else { Err(error) };
    }
    sync_folder(above)
}

/// Makes a folder and those between it and `above`, which is there.
pub(super) fn make_folders(above: &Path, path: &Path, access: Access) -> io::Result<()> {
    let mut folder = above.to_path_buf();
    for component in path.strip_prefix(above).into_iter().flatten() {
        folder.push(component);
        make_folder(&folder, access)?;
    }
    Ok(())
}

/// Makes sure that what was renamed into or out of a folder stays so.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Opens a file for writing, made with the right mode if it is not there.
pub(super) fn open_for_writing(path: &Path, access: Access) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    match opened {
        Ok(file) => {
            if access != Access::Private {
                file.set_permissions(fs::Permissions::from_mode(access.file_mode()))?;
            }
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            OpenOptions::new().read(true).write(true).open(path)
        }
        Err(error) => Err(error),
    }
}

/// Writes a file whole and syncs it; over what was there.
pub(super) fn write_synced(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut file = open_for_writing(path, access)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_data()
}

/// Puts a file in the place of another one: a reader sees the old or the
/// new one whole, also after a power cut.
pub(super) fn replace(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Err(ErrorKind::InvalidInput.into()) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", uuid::Uuid::now_v7()));
    let done = write_synced(&temporary, bytes, access)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_folder(folder));
    if done.is_err() {
        remove_if_there(&temporary)?;
    }
    done
}

/// Removes a file, unless it is gone.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Changes a folder's times, which inotify tells the consumers that watch the folder above
/// it: both of them, for a change of one alone counts as no change of the
/// folder's attributes (`fsnotify_change` in Linux). To the present time, which
/// takes the right to write and not the folder's owner. Only a wake is lost where
/// it fails: a consumer looks now and then all the same.
pub(super) fn touch(folder: impl AsFd) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    if let Err(error) = futimens(folder, &times) {
        tracing::debug!(%error, "who waits for this folder is not woken");
    }
}

/// The names in a folder; none when it is not there. Names that are no text are
/// not one of ours.
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for item in listing {
        names.extend(item?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Whether an error says that there is no room, or none for us, or no descriptor: it may
/// pass.
pub(super) fn is_short_of_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
    ) || matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether an error is about the one file that was read, and stays: the medium is
/// damaged, or the file is not for us.
pub(super) fn is_for_good(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::IsADirectory)
        || Errno::from_io_error(error) == Some(Errno::IO)
}

/// Turns an error into the fault of the link.
pub(super) fn fault(doing: &str, path: &Path, error: &io::Error) -> Fault {
    let text = format!("{doing} {}: {error}", path.display());
    let kind = error.kind();
    if kind == ErrorKind::PermissionDenied {
        Fault::Forbidden(text)
    } else if matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory) {
        Fault::Unreachable(text)
    } else {
        Fault::Closed(text)
    }
}
