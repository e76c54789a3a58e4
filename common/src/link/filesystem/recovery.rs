//! Puts right what the dead left behind: claims go back to their queue, files
//! half written and folders with nothing in them go.

use super::disk;
use super::names::{FileName, is_member, is_session, is_temporary, session_of};
use super::root::{Root, is_passing};
use super::session::FolderSession;
use crate::system::removal;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// How old a file must be that never got its name, for its writer to be dead.
const STILLBORN: Duration = Duration::from_secs(3600);

/// Gives back what dead consumers of a queue had claimed; returns how many
/// groups.
pub(super) fn claims(session: &FolderSession, queue: &str) -> io::Result<usize> {
    let claimed = session.root.claimed(queue);
    let mut given_back = 0;
    for consumer in disk::names(&claimed)?.iter().filter(|name| is_member(name)) {
        let Some(_corpse) = session.is_dead(session_of(consumer))? else { continue };
        let claims = claimed.join(consumer);
        for name in disk::names(&claims)? {
            if let Some((producer, entry)) = FileName::parse_claim(&name) {
                give_back(&session.root, queue, &claims.join(&name), producer, entry)?;
                given_back += 1;
            }
        }
        remove_folder(&claims)?;
    }
    if given_back > 0 {
        tracing::info!(queue, groups = given_back, "took over what a dead consumer had claimed");
    }
    Ok(given_back)
}

/// Puts a claimed group back to where it was, under the name that tells what
/// became of it.
pub(super) fn give_back(
    root: &Root,
    queue: &str,
    claim: &Path,
    producer: &str,
    entry: FileName,
) -> io::Result<()> {
    let folder = root.ready(queue).join(producer);
    disk::make_folder(&folder, root.access())?;
    match fs::rename(claim, folder.join(entry.name())) {
        // Another session was quicker.
        Err(error) if error.kind() == ErrorKind::NotFound && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            disk::touch(File::open(&folder)?);
            Ok(())
        }
    }
}

/// Removes what the dead left: their half-written files and empty folders in a
/// queue, their session files, and what they were writing at the root.
pub(super) fn sweep(session: &FolderSession, queue: &str) -> io::Result<()> {
    let ready = session.root.ready(queue);
    for producer in disk::names(&ready)?.iter().filter(|name| is_member(name)) {
        let Some(_corpse) = session.is_dead(session_of(producer))? else { continue };
        let folder = ready.join(producer);
        for name in disk::names(&folder)?.iter().filter(|name| is_temporary(Path::new(name))) {
            disk::remove_if_there(&folder.join(name))?;
        }
        remove_folder(&folder)?;
    }
    for name in disk::names(&session.root.path().join("sessions"))? {
        let path = session.root.session(&name);
        let stillborn = name.strip_prefix('.').is_some_and(is_session) && is_old(&path)?;
        if (is_session(&name) || stillborn) && session.is_dead(&name)?.is_some() {
            disk::remove_if_there(&path)?;
        }
    }
    for name in disk::names(session.root.path())? {
        let path = session.root.path().join(&name);
        if is_passing(&name) && path != session.root.declaring() && is_old(&path)? {
            removal::remove_all(&path)?;
        }
    }
    Ok(())
}

fn is_old(path: &Path) -> io::Result<bool> {
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => Ok(modified.elapsed().is_ok_and(|age| age > STILLBORN)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a folder that has nothing in it.
fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error)
            if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}
