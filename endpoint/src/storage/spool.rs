//! The spool: payloads too large for a record, in files of one folder.
//!
//! The tasks of one commit share a file, and its results another, and so a sync. A file has
//! its final name only when it is whole (written under a temporary name, synced, renamed),
//! and is durable once [`Spool::sync`] has returned. Every payload that is read is checked
//! against a checksum, so that a torn one is told from a whole one.
//!
//! Touches nothing outside its folder; which files are needed the caller knows.

use super::files::{DiskFolder, Files, StoredFile};
use rustix::io::Errno;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

const TEMPORARY: &str = ".tmp";
/// How many bytes of a payload in pieces are buffered for one write.
const PIECE: usize = 64 * 1024;
const ASIDE: &str = ".damaged";

/// A folder of payload files; clones are the same folder.
#[derive(Clone)]
pub(crate) struct Spool {
    files: Arc<dyn Files>,
}

/// Where a payload is, and its checksum.
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
    /// The payload is lost; the text says how.
    #[error("{0}")]
    Damaged(String),
    /// The system would not let us read; the payload may be sound.
    #[error("the spool file {name} cannot be read")]
    Io {
        /// The file.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
}

impl Spool {
    /// Opens the folder, making it (mode 0700) if need be.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self::over(Arc::new(DiskFolder::open(folder.to_owned())?)))
    }

    /// The spool in a folder.
    pub(crate) fn over(files: Arc<dyn Files>) -> Self {
        Self { files }
    }

    /// Begins the file `number`, which must be free.
    pub(crate) fn begin(&self, number: u64) -> io::Result<Writing> {
        let name = name(number);
        let file = self.files.create(&(name.clone() + TEMPORARY))?;
        Ok(Writing { number, name, files: Arc::clone(&self.files), file, len: 0 })
    }

    /// Makes the names of all files finished so far durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.files.sync()
    }

    /// Reads payloads; one file is open at a time.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { spool: self, open: None }
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, number: u64) -> io::Result<()> {
        fine_if(io::ErrorKind::NotFound, self.files.remove(&name(number)))
    }

    /// Keeps a file with something damaged in it under a second name, to be looked at by a
    /// person; if it is there.
    pub(crate) fn set_aside(&self, number: u64) -> io::Result<()> {
        let name = name(number);
        let kept = self.files.link(&name, &(name.clone() + ASIDE));
        fine_if(io::ErrorKind::NotFound, fine_if(io::ErrorKind::AlreadyExists, kept))
    }

    /// Removes all files that are not `live`, half-written ones included, but
    /// not those set aside. Returns the first number above all that is used.
    pub(crate) fn sweep(&self, live: impl Fn(u64) -> bool) -> io::Result<u64> {
        let mut free = 0;
        for name in self.files.names()? {
            let aside = name.strip_suffix(ASIDE);
            let number = number(aside.unwrap_or(&name));
            if aside.is_none() && !number.is_some_and(&live) {
                self.files.remove(&name)?;
            } else if let Some(number) = number {
                free = free.max(number + 1);
            }
        }
        Ok(free)
    }
}

/// Counts and sums up the bytes that are written to a file.
struct Summed<'a> {
    to: &'a dyn StoredFile,
    begin: u64,
    len: u64,
    sum: crc32fast::Hasher,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all_at(bytes, self.begin + self.len)?;
        self.len += bytes.len() as u64;
        self.sum.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is being written.
pub(crate) struct Writing {
    number: u64,
    name: String,
    files: Arc<dyn Files>,
    file: Box<dyn StoredFile>,
    /// The length of what is written whole; the next payload begins there, whatever a
    /// failed one has left.
    len: u64,
}

impl Writing {
    /// Appends a payload.
    pub(crate) fn put(&mut self, payload: &[u8]) -> io::Result<Place> {
        self.file.write_all_at(payload, self.len)?;
        Ok(self.placed(payload.len() as u64, crc32fast::hash(payload)))
    }

    /// Appends a payload that is written in pieces: it is never in memory whole.
    pub(crate) fn put_in_pieces(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Place> {
        let sum = crc32fast::Hasher::new();
        let summed = Summed { to: &*self.file, begin: self.len, len: 0, sum };
        let mut to = BufWriter::with_capacity(PIECE, summed);
        write(&mut to)?;
        to.flush()?;
        let (len, crc) = (to.get_ref().len, to.get_ref().sum.clone().finalize());
        drop(to);
        Ok(self.placed(len, crc))
    }

    fn placed(&mut self, len: u64, crc: u32) -> Place {
        let (file, offset) = (self.number, self.len);
        self.len += len;
        Place { file, offset, len, crc }
    }

    /// Makes the file whole. Durable after the next [`Spool::sync`].
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.sync()?;
        self.files.rename(&(self.name.clone() + TEMPORARY), &self.name)
    }
}

/// Reads payloads. Keeps the file open that was read last.
pub(crate) struct Reader<'a> {
    spool: &'a Spool,
    open: Option<(u64, Box<dyn StoredFile>)>,
}

impl Reader<'_> {
    /// Reads a payload and checks it.
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
            _ => self.spool.files.open(&name(place.file))?,
        };
        let mut bytes = vec![0; usize::try_from(place.len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, place.offset)?;
        self.open = Some((place.file, file));
        Ok(bytes)
    }
}

fn name(number: u64) -> String {
    format!("{number:016x}")
}

fn number(name: &str) -> Option<u64> {
    u64::from_str_radix(name, 16).ok().filter(|number| self::name(*number) == name)
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
        writing.file.write_all_at(b"a part that is longer", writing.len).unwrap();
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
