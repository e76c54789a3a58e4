//! The disk by itself: which file system a folder is on, and what one durable
//! file costs there. The yardstick for the rows that use a folder.

use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// The size of a probe's file, in bytes: about a no-op task as it lies in a
/// folder.
const SIZE: usize = 1024;
/// The unit in which the system counts a file's blocks, in bytes.
const BLOCK: u64 = 512;

/// The name of the file system that a folder is on.
pub(crate) fn file_system(folder: &Path) -> Result<String> {
    let stat = rustix::fs::statfs(folder)
        .with_context(|| format!("asking for the file system of {}", folder.display()))?;
    // Some platforms sign the number; it is of 32 bits on all.
    Ok(name_of(stat.f_type as u32))
}

/// The name of a file system by the number that Linux has for it.
fn name_of(magic: u32) -> String {
    let name = match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x2FC1_2FC1 => "zfs",
        0x6969 => "nfs",
        0x0BD0_0BD0 => "lustre",
        0x4750_4653 => "gpfs",
        0x1983_0326 => "beegfs",
        0x6573_5546 => "fuse",
        0x794C_7630 => "overlay",
        0x0102_1994 => "tmpfs (in memory: nothing here is durable)",
        _ => return format!("file system {magic:#x}"),
    };
    name.to_owned()
}

/// The bytes that a folder and all that is in it take of the disk. A file that goes while
/// it is looked at does not count.
pub(crate) fn used(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    let listing = fs::read_dir(folder);
    for entry in listing.with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += metadata.blocks() * BLOCK;
        if metadata.is_dir() {
            bytes += used(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// Makes `count` durable files, one after the other, the way a group of messages
/// is made: written aside, synced, renamed, the folder synced. Returns how long
/// each took.
pub(crate) fn commits(folder: &Path, count: usize) -> Result<Vec<Duration>> {
    let probes = tempfile::tempdir_in(folder)
        .with_context(|| format!("making a folder in {}", folder.display()))?;
    let handle = File::open(probes.path())?;
    let aside = probes.path().join(".writing");
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let started = Instant::now();
        let mut file = File::create(&aside)?;
        file.write_all(&[b'x'; SIZE])?;
        file.sync_data()?;
        fs::rename(&aside, probes.path().join(number.to_string()))?;
        handle.sync_all()?;
        times.push(started.elapsed());
    }
    Ok(times)
}

/// Appends to a file and syncs its data, so often. Returns how long each took.
pub(crate) fn syncs(folder: &Path, count: usize) -> Result<Vec<Duration>> {
    let probes = tempfile::tempdir_in(folder)
        .with_context(|| format!("making a folder in {}", folder.display()))?;
    let mut file = File::create(probes.path().join("log"))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        file.write_all(&[b'x'; SIZE])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    Ok(times)
}

/// Durable files per second, with so many threads that make them at once.
pub(crate) fn commits_per_second(folder: &Path, threads: usize, each: usize) -> Result<f64> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| commits(folder, each).map(drop))).collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread that probes the disk panicked"))??;
        }
        anyhow::Ok(())
    })?;
    Ok((threads * each) as f64 / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_have_names_and_unknown_ones_numbers() {
        assert_eq!(name_of(0xEF53), "ext4");
        assert!(name_of(0x0102_1994).contains("nothing here is durable"));
        assert_eq!(name_of(0x1234), "file system 0x1234");
    }

    #[test]
    fn a_folder_takes_what_its_files_take() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let before = used(folder.path()).unwrap();
        fs::write(inner.join("file"), vec![7; 64 * 1024]).unwrap();
        File::open(inner.join("file")).unwrap().sync_all().unwrap();
        assert!(used(folder.path()).unwrap() >= before + 64 * 1024);
        assert!(used(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(commits(folder.path(), 3).unwrap().len(), 3);
        assert_eq!(syncs(folder.path(), 3).unwrap().len(), 3);
        assert!(commits_per_second(folder.path(), 2, 3).unwrap() > 0.0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(!file_system(folder.path()).unwrap().is_empty());
    }
}
