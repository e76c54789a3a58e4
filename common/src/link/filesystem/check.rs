//! Tries what a folder is relied on for, on the folder itself: private files,
//! atomic renames, syncs, locks, hard links, wakes. Works in a folder of its own
//! inside and removes it.

use super::options::{Access, Options};
use super::root::Root;
use super::wake::{WakeListener, WakeReason};
use super::{census, disk};
use crate::link::Check;
use crate::system::removal;
use rustix::fs::{statfs, statvfs};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often syncing is timed.
const SYNCS: usize = 11;
/// How soon a change must be heard of, where it is at all.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// A disk with less room than this is nearly full.
const LITTLE_ROOM: u64 = 256 << 20;
/// Fewer files than this may still be made.
const FEW_FILES: u64 = 10_000;

const WHOLE: &str = "no file of messages is damaged, missing or set aside";

/// File systems by the number `statfs` gives them (`statfs(2)`).
const NFS: i64 = 0x6969;
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// Tries everything; what cannot be tried because an earlier thing failed is
/// left out.
pub(super) fn all(options: &Options) -> Vec<Check> {
    let what = "the folder is a Clutch spool";
    let root = match Root::open(options) {
        Ok(root) => root,
        Err(fault) => return vec![Check::faulty(what, fault)],
    };
    let mut checks = vec![Check::passed(what)];
    let place = options.root.join(format!(".check-{}", uuid::Uuid::now_v7()));
    let what = "folders and files can be made in it";
    if let Err(error) = disk::make_folder(&place, options.access) {
        checks.push(Check::failed(what, &error));
        return checks;
    }
    checks.push(Check::passed(what));
    let trials: [(&str, Trial); 8] = [
        ("what is made is for whom it should be", modes),
        ("a rename replaces a file in one step", renames),
        ("files and folders can be synced", syncs),
        ("a lock keeps others out until it is let go", locks),
        ("a shared lock lets others share it, and keeps out who wants it alone", shared_locks),
        ("a file can have a second name", second_names),
        ("changes wake who waits for them", wakes),
        ("the disk keeps things, and has room", room),
    ];
    for (what, trial) in trials {
        checks.push(match trial(&place, options.access) {
            Ok(Found::Good) => Check::passed(what),
            Ok(Found::But(detail)) => Check::warning(what, &detail),
            Ok(Found::Bad(detail)) => Check::failed(what, &detail),
            Err(error) => Check::failed(what, &error),
        });
    }
    checks.push(match census::take(&root).map(|census| census.words(&root.quarantine())) {
        Ok(None) => Check::passed(WHOLE),
        Ok(Some(words)) => Check::warning(WHOLE, &words),
        Err(fault) => Check::faulty(WHOLE, fault),
    });
    if let Err(error) = removal::remove_all(&place) {
        checks.push(Check::warning(
            "nothing is left behind",
            &format!("{} stays: {error}", place.display()),
        ));
    }
    checks
}

type Trial = fn(&Path, Access) -> io::Result<Found>;

enum Found {
    Good,
    But(String),
    Bad(String),
}

fn modes(place: &Path, access: Access) -> io::Result<Found> {
    let file = place.join("mode");
    disk::write_synced(&file, b"", access)?;
    let mode = |path: &Path| -> io::Result<u32> { Ok(fs::metadata(path)?.permissions().mode()) };
    let (folder, file) = (mode(place)? & 0o7777, mode(&file)? & 0o777);
    if (folder, file) == (access.folder_mode(), access.file_mode()) {
        return Ok(Found::Good);
    }
    Ok(Found::But(format!(
        "asked for {:o} and {:o}, got {folder:o} and {file:o}: others may be able to read tasks \
         and results",
        access.folder_mode(),
        access.file_mode()
    )))
}

fn renames(place: &Path, access: Access) -> io::Result<Found> {
    let (from, to) = (place.join("from"), place.join("to"));
    disk::write_synced(&to, b"old", access)?;
    let before = File::open(&to)?;
    disk::write_synced(&from, b"new", access)?;
    fs::rename(&from, &to)?;
    let old = io::read_to_string(before)?;
    let new = fs::read_to_string(&to)?;
    let gone = !from.exists();
    let second = fs::rename(&from, &to).is_err();
    Ok(if (old.as_str(), new.as_str(), gone, second) == ("old", "new", true, true) {
        Found::Good
    } else {
        Found::Bad(format!("read {old:?} and {new:?}; the old name is gone: {gone}"))
    })
}

fn syncs(place: &Path, access: Access) -> io::Result<Found> {
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        disk::replace(&place.join("synced"), &[b'x'; 4096], access)?;
        times.push(began.elapsed());
    }
    times.sort();
    let median = times.get(SYNCS / 2).copied().unwrap_or_default();
    Ok(if median > Duration::from_millis(100) {
        Found::But(format!("a file of 4 KiB takes {median:.0?} to be durable: work will be slow"))
    } else {
        Found::Good
    })
}

fn locks(place: &Path, access: Access) -> io::Result<Found> {
    let path = place.join("lock");
    let first = disk::open_for_writing(&path, access)?;
    first.try_lock()?;
    let second = OpenOptions::new().write(true).open(&path)?;
    match second.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {
            return Ok(Found::Bad(
                "two could lock one file: mount the file system with locks (Lustre: -o flock)"
                    .to_owned(),
            ));
        }
    }
    drop(first);
    second.try_lock()?;
    Ok(Found::Good)
}

fn shared_locks(place: &Path, access: Access) -> io::Result<Found> {
    let path = place.join("shared");
    // NFS takes a shared lock only on what can be read, an exclusive one only on
    // what can be written.
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    drop(disk::open_for_writing(&path, access)?);
    let (first, second, alone) = (open()?, open()?, open()?);
    first.try_lock_shared()?;
    match second.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(error),
        Err(TryLockError::WouldBlock) => {
            return Ok(Found::Bad("two could not share the lock of one file".to_owned()));
        }
    }
    drop(first);
    match alone.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {
            return Ok(Found::Bad("a file was locked alone while another shared it".to_owned()));
        }
    }
    drop(second);
    alone.try_lock()?;
    Ok(Found::Good)
}

fn second_names(place: &Path, access: Access) -> io::Result<Found> {
    let (first, second) = (place.join("first-name"), place.join("second-name"));
    disk::write_synced(&first, b"linked", access)?;
    if let Err(error) = fs::hard_link(&first, &second) {
        return Ok(Found::But(format!(
            "{error}: several consumers of one queue cannot share a file of many messages"
        )));
    }
    fs::remove_file(&first)?;
    let text = fs::read_to_string(&second)?;
    Ok(if text == "linked" {
        Found::Good
    } else {
        Found::Bad(format!("read {text:?} by the second name"))
    })
}

fn wakes(place: &Path, access: Access) -> io::Result<Found> {
    let (listener, _waker) = WakeListener::new(place)?;
    let producer = place.join("producer");
    disk::make_folder(&producer, access)?;
    let folder = File::open(&producer)?;
    let until = Instant::now() + HEARD_WITHIN;
    while Instant::now() < until {
        disk::touch(&folder);
        match listener.listen(Duration::from_millis(100))? {
            WakeReason::Changes(names) if names.contains("producer") => return Ok(Found::Good),
            WakeReason::Changes(_) | WakeReason::Everything | WakeReason::Nothing => {}
        }
    }
    Ok(Found::But("no change was heard of: messages wait for the next poll (`poll=`)".to_owned()))
}

fn room(place: &Path, _: Access) -> io::Result<Found> {
    let kind = statfs(place)?.f_type;
    let stat = statvfs(place)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let mut remarks = Vec::new();
    match kind {
        TMPFS | RAMFS => remarks.push("it is in memory: nothing outlives the machine".to_owned()),
        NFS => remarks.push(
            "it is NFS: what other hosts do is seen when attribute caches let it (mount with \
             actimeo=1 or less), and after `poll=`"
                .to_owned(),
        ),
        _ => {}
    }
    if free < LITTLE_ROOM {
        remarks.push(format!("only {} MiB are free", free >> 20));
    }
    if stat.f_files > 0 && stat.f_favail < FEW_FILES {
        remarks.push(format!("only {} more files can be made", stat.f_favail));
    }
    Ok(if remarks.is_empty() { Found::Good } else { Found::But(remarks.join("; ")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Verdict;

    fn options(root: &Path) -> Options {
        Options::parse(&url::Url::from_file_path(root).unwrap()).unwrap()
    }

    #[test]
    fn a_good_folder_passes_and_nothing_is_left_behind() {
        let temp = tempfile::tempdir().unwrap();
        let options = options(&temp.path().join("spool"));
        Root::create(&options, Vec::new()).unwrap();
        let before = disk::names(&options.root).unwrap().len();
        let checks = all(&options);
        assert_eq!(checks.len(), 11, "{checks:?}");
        assert!(checks.iter().all(|check| check.verdict != Verdict::Failed), "{checks:?}");
        assert_eq!(disk::names(&options.root).unwrap().len(), before);
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let checks = all(&options(&temp.path().join("nowhere")));
        assert_eq!(checks.len(), 1);
        assert!(checks[0].detail.contains("provision"), "{checks:?}");
    }
}
