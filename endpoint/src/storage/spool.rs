//! Payloads too large for a record, in files of one folder.
//!
//! The tasks of one commit share a file, and its results another, and so a sync. A file appears under
//! its number only when it is whole (written to a temporary name, synced,
//! renamed), and is durable once [`Spool::sync`] has returned. What is read back
//! is checked against a checksum, so a torn payload is told from a whole one.
//! What the host lacks for a write, a descriptor or a quota's worth of room, is waited for
//! up to a bound. Touches nothing outside its folder; which files are still needed is for
//! others to know.

use crate::system::os_error::{self, Handling, classify};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TEMPORARY: &str = ".tmp";
/// How long a write waits for what the host lacks, and how often it is tried meanwhile.
/// The journal takes a commit of a minute for a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(250);
/// How many bytes of a payload in pieces are gathered for one write.
const PIECE: usize = 64 * 1024;
const ASIDE: &str = ".damaged";

/// A folder of payload files; clones are the same folder.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    folder: Arc<Path>,
}

/// Where a payload is, and what it must be to be whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The number of its file.
    pub(crate) file: u64,
    /// Where in the file it begins, in bytes.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// The CRC-32 of its bytes.
    pub(crate) crc: u32,
}

/// Why a payload could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The payload is gone for good; the text says how.
    #[error("{0}")]
    Damaged(String),
    /// The system would not let us read; the payload may be fine.
    #[error("the spool file {name} cannot be read")]
    Io {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Spool {
    /// Opens the folder, making it (mode 0700) if need be.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.into() })
    }

    /// Begins the file `number`, which must be free.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn begin(&self, number: u64) -> io::Result<Writing> {
        let path = self.path(number);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let open = || options.open(suffixed(&path, TEMPORARY));
        let file = patiently(PATIENCE, || match open() {
            // Somebody removed the folder; not the one that it is in, as a rule.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).create(&self.folder)?;
                open()
            }
            opened => opened,
        })?;
        Ok(Writing { number, path, file, len: 0 })
    }

    /// Makes the names of all files finished so far durable.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn sync(&self) -> io::Result<()> {
        patiently(PATIENCE, || File::open(&self.folder))?.sync_all()
    }

    /// Reads payloads; one file is open at a time.
    #[must_use]
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { spool: self, open: None }
    }

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn remove(&self, number: u64) -> io::Result<()> {
        fine_if(io::ErrorKind::NotFound, std::fs::remove_file(self.path(number)))
    }

    /// Keeps a file with something damaged in it under a second name, to be
    /// looked at by a person. One that is not there is fine.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn set_aside(&self, number: u64) -> io::Result<()> {
        let path = self.path(number);
        let kept = std::fs::hard_link(&path, suffixed(&path, ASIDE));
        fine_if(io::ErrorKind::NotFound, fine_if(io::ErrorKind::AlreadyExists, kept))
    }

    /// Removes all files that are not `live`, half-written ones included, but
    /// not those set aside. Returns the first number above all that is used.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn sweep(&self, live: impl Fn(u64) -> bool) -> io::Result<u64> {
        let mut free = 0;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let aside = name.strip_suffix(ASIDE);
            let number = number(aside.unwrap_or(&name));
            if aside.is_none() && !number.is_some_and(&live) {
                std::fs::remove_file(entry.path())?;
            } else if let Some(number) = number {
                free = free.max(number + 1);
            }
        }
        Ok(free)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(name(number))
    }
}

/// Counts and sums up the bytes that go to a file.
struct Summed<'a> {
    to: &'a File,
    len: u64,
    sum: crc32fast::Hasher,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.len += written as u64;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    number: u64,
    path: PathBuf,
    file: File,
    len: u64,
}

impl Writing {
    /// Appends a payload.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn put(&mut self, payload: &[u8]) -> io::Result<Place> {
        self.append(|mut file| {
            file.write_all(payload)?;
            Ok((payload.len() as u64, crc32fast::hash(payload)))
        })
    }

    /// Appends a payload that is written in pieces, and anew if the host lacked
    /// something: it is never in memory whole.
    ///
    /// # Errors
    /// What the system or `write` said.
    pub(crate) fn put_in_pieces(
        &mut self,
        write: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Place> {
        self.append(|file| {
            let summed = Summed { to: file, len: 0, sum: crc32fast::Hasher::new() };
            let mut to = BufWriter::with_capacity(PIECE, summed);
            write(&mut to)?;
            to.flush()?;
            let summed = to.get_ref();
            Ok((summed.len, summed.sum.clone().finalize()))
        })
    }

    /// Appends what is written, which tells its length and checksum.
    fn append(&mut self, write: impl Fn(&File) -> io::Result<(u64, u32)>) -> io::Result<Place> {
        let mut torn = false;
        let (len, crc) = patiently(PATIENCE, || {
            if std::mem::replace(&mut torn, true) {
                self.rewind()?;
            }
            write(&self.file)
        })?;
        let (file, offset) = (self.number, self.len);
        self.len += len;
        Ok(Place { file, offset, len, crc })
    }

    /// Cuts off what was written of a payload that did not fit.
    fn rewind(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }

    /// Makes the file whole. Durable after the next [`Spool::sync`].
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        let temporary = suffixed(&self.path, TEMPORARY);
        patiently(PATIENCE, || std::fs::rename(&temporary, &self.path))
    }
}

/// Reads payloads. Keeps the file open that was read last.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    spool: &'a Spool,
    open: Option<(u64, File)>,
}

impl Reader<'_> {
    /// Reads a payload and checks it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(crate) fn read(&mut self, place: Place) -> Result<Vec<u8>, ReadError> {
        let damaged =
            |how| Err(ReadError::Damaged(format!("the spool file {} {how}", name(place.file))));
        match self.read_unchecked(place) {
            Ok(bytes) if crc32fast::hash(&bytes) == place.crc => Ok(bytes),
            Ok(_) => damaged("is not what was written"),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => damaged("was cut"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => damaged("is missing"),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                damaged("is on a bad part of the disk")
            }
            Err(source) => Err(ReadError::Io { name: name(place.file), source }),
        }
    }

    fn read_unchecked(&mut self, place: Place) -> io::Result<Vec<u8>> {
        let file = match self.open.take() {
            Some((number, file)) if number == place.file => file,
            _ => File::open(self.spool.path(place.file))?,
        };
        let mut bytes = vec![0; usize::try_from(place.len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, place.offset)?;
        self.open = Some((place.file, file));
        Ok(bytes)
    }
}

/// Does what takes something of the host, again and again for so long as the host does
/// not have it. Blocks.
fn patiently<T>(limit: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        match attempt() {
            Err(error)
                if classify(os_error::Operation::Records, &error) == Handling::Wait
                    && begun.elapsed() < limit =>
            {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        %error,
                        "the host lacks what writing to the state folder takes: waiting for it"
                    );
                }
                std::thread::park_timeout(PAUSE.min(limit));
            }
            done => return done,
        }
    }
}

fn name(number: u64) -> String {
    format!("{number:016x}")
}

fn number(name: &str) -> Option<u64> {
    u64::from_str_radix(name, 16).ok().filter(|number| self::name(*number) == name)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn fine_if(kind: io::ErrorKind, done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == kind => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        (folder, spool)
    }

    fn write<const N: usize>(spool: &Spool, number: u64, payloads: [&[u8]; N]) -> [Place; N] {
        let mut writing = spool.begin(number).unwrap();
        let places = payloads.map(|payload| writing.put(payload).unwrap());
        writing.finish().unwrap();
        spool.sync().unwrap();
        places
    }

    fn damage(read: Result<Vec<u8>, ReadError>) -> String {
        match read {
            Err(ReadError::Damaged(how)) => how,
            other => panic!("expected damage, got {other:?}"),
        }
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_written_is_read_in_any_order_until_its_file_is_removed() {
        let (_folder, spool) = spool();
        let [a, b, c] = write(&spool, 1, [b"first", b"", b"third"]);
        let [d] = write(&spool, 2, [b"other"]);
        let mut reader = spool.reader();
        for (place, payload) in [(c, "third"), (d, "other"), (a, "first"), (b, "")] {
            assert_eq!(reader.read(place).unwrap(), payload.as_bytes());
        }
        spool.remove(1).unwrap();
        spool.remove(1).unwrap();
        assert_eq!(reader.read(d).unwrap(), b"other");
        let how = damage(spool.reader().read(a));
        assert_eq!(how, "the spool file 0000000000000001 is missing");
    }

    #[test]
    fn damage_to_a_file_is_damage_to_the_payloads_that_it_hits() {
        let (folder, spool) = spool();
        let [a, b] = write(&spool, 1, [b"payload", b"another"]);
        for (bytes, first, words) in [
            (&b"payloadanoxher"[..], true, "not what was written"),
            (b"payloadanoth", true, "was cut"),
            (b"", false, "was cut"),
        ] {
            std::fs::write(folder.path().join(name(1)), bytes).unwrap();
            assert_eq!(spool.reader().read(a).is_ok(), first);
            assert!(damage(spool.reader().read(b)).contains(words));
        }
    }

    #[test]
    fn what_the_host_lacks_is_waited_for_and_nothing_else() {
        let fails = |errno: Errno, times: usize, limit: Duration| {
            let mut tries = 0;
            let done = patiently(limit, || {
                tries += 1;
                if tries <= times { Err(errno.into()) } else { Ok(()) }
            });
            (done.is_ok(), tries)
        };
        for errno in [Errno::DQUOT, Errno::NFILE, Errno::MFILE, Errno::NOSPC] {
            assert_eq!(fails(errno, 2, PATIENCE), (true, 3), "{errno:?}");
        }
        assert_eq!(fails(Errno::ROFS, 2, PATIENCE), (false, 1));
        assert_eq!(fails(Errno::DQUOT, 2, Duration::ZERO), (false, 1));
    }

    #[test]
    fn a_payload_in_pieces_is_read_as_any_other() {
        let (_folder, spool) = spool();
        let mut writing = spool.begin(1).unwrap();
        let first = writing.put(b"first").unwrap();
        let pieces = |to: &mut dyn Write| (0..PIECE).try_for_each(|_| to.write_all(b"piece"));
        let second = writing.put_in_pieces(pieces).unwrap();
        let refused = writing.put_in_pieces(|_| Err(io::ErrorKind::InvalidData.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let third = writing.put(b"third").unwrap();
        writing.finish().unwrap();
        let mut reader = spool.reader();
        assert_eq!(reader.read(first).unwrap(), b"first");
        assert_eq!(reader.read(second).unwrap(), b"piece".repeat(PIECE));
        assert_eq!(reader.read(third).unwrap(), b"third");
    }

    #[test]
    fn what_was_written_in_part_is_written_over() {
        let (_folder, spool) = spool();
        let mut writing = spool.begin(1).unwrap();
        let first = writing.put(b"first").unwrap();
        writing.file.write_all(b"a part that is longer").unwrap();
        writing.rewind().unwrap();
        let second = writing.put(b"second").unwrap();
        writing.finish().unwrap();
        let mut reader = spool.reader();
        assert_eq!(reader.read(first).unwrap(), b"first");
        assert_eq!(reader.read(second).unwrap(), b"second");
    }

    #[test]
    fn sweeping_leaves_the_live_and_those_set_aside_and_finds_a_free_number() {
        let (folder, spool) = spool();
        write(&spool, 3, [b"live"]);
        write(&spool, 4, [b"orphan"]);
        write(&spool, 9, [b"bad"]);
        spool.set_aside(9).unwrap();
        spool.set_aside(9).unwrap();
        spool.set_aside(77).unwrap();
        spool.begin(5).unwrap().put(b"half").unwrap();
        std::fs::write(folder.path().join("3"), b"what").unwrap();
        assert_eq!(spool.sweep(|number| number == 3).unwrap(), 10);
        assert_eq!(names(&folder), [name(3), name(9) + ASIDE]);
    }
}
