//! The file system that a path is on: whether other hosts can have it mounted as well.
//!
//! Touches: `statfs`, and `/proc/self/mountinfo`. The decision is pure.

use rustix::fs::{major, minor, statfs};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Network file systems by the number that `statfs` gives them (`statfs(2)`, `linux/magic.h`).
const BY_NUMBER: [(u32, &str); 15] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb2"),
    (0x0BD0_0BD0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0x00C3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x5346_414F, "afs"),
    (0x6B41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0xAAD7_AAEA, "panfs"),
    (0x2003_0528, "pvfs2"),
    (0x564C, "ncpfs"),
];
/// Network file systems by the type of their mount, without the prefix `fuse.`.
const BY_TYPE: [&str; 38] = [
    "9p",
    "afs",
    "beegfs",
    "beegfs_nodev",
    "ceph",
    "ceph-fuse",
    "cifs",
    "coda",
    "curlftpfs",
    "davfs",
    "davfs2",
    "gcsfuse",
    "glusterfs",
    "goofys",
    "gpfs",
    "hdfs",
    "juicefs",
    "lizardfs",
    "lustre",
    "mfs",
    "moosefs",
    "ncpfs",
    "nfs",
    "nfs3",
    "nfs4",
    "obsfs",
    "ossfs",
    "panfs",
    "pvfs2",
    "quobyte",
    "rclone",
    "s3fs",
    "saunafs",
    "seaweedfs",
    "smb3",
    "smbfs",
    "sshfs",
    "wekafs",
];

/// The kind of the network file system that a path is on; nothing if it is on a file system of
/// this host. A path that is not there counts as its nearest folder that is.
///
/// # Errors
/// When the system does not tell.
pub fn network_kind(path: &Path) -> io::Result<Option<String>> {
    let path = std::path::absolute(path)?;
    for place in path.ancestors() {
        let device = match std::fs::metadata(place) {
            Ok(found) => found.dev(),
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let number = statfs(place)?.f_type;
        // Without it the number alone has to tell.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        return Ok(kind(number, &mounts, (major(device), minor(device))));
    }
    Ok(None)
}

/// The kind of a network file system by its number, and by the mount of its device. File systems
/// of user space have one number for all; only the mount tells them apart.
fn kind(number: impl Into<i64>, mounts: &str, device: (u32, u32)) -> Option<String> {
    let mounted = mounts.lines().filter_map(mount).find(|(of, _)| *of == device);
    let by_type = mounted.map(|(_, name)| name).filter(|name| {
        let plain = name.strip_prefix("fuse.").unwrap_or(name).to_ascii_lowercase();
        BY_TYPE.contains(&plain.as_str())
    });
    // A number above 2^31 is negative on some machines.
    let number = number.into() & 0xFFFF_FFFF;
    let by_number = BY_NUMBER.iter().find(|(known, _)| i64::from(*known) == number);
    by_type.or(by_number.map(|(_, name)| *name)).map(str::to_owned)
}

/// The device and the type of a line of `mountinfo` (`proc_pid_mountinfo(5)`).
fn mount(line: &str) -> Option<((u32, u32), &str)> {
    let (place, kind) = line.split_once(" - ")?;
    let (major, minor) = place.split(' ').nth(2)?.split_once(':')?;
    Some(((major.parse().ok()?, minor.parse().ok()?), kind.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /tmp rw,nosuid shared:9 - tmpfs tmpfs rw
41 22 0:50 / /home rw shared:22 master:3 - nfs4 server:/home rw,vers=4.2
42 22 0:51 / /mnt/a\\040b rw - fuse.sshfs you@host:/ rw,user_id=0
43 22 0:52 / /mnt/win rw - fuseblk /dev/sdb1 rw
44 22 0:53 / /mnt/merged rw - fuse.mergerfs a:b rw
45 22 0:54 / /jfs rw - fuse.JuiceFS JuiceFS:jfs rw
46 22 0:55 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw
a line that is none
";

    #[test]
    fn the_mount_of_a_device_tells_the_kind() {
        let of = |minor| kind(0, MOUNTS, (0, minor));
        for (minor, name) in
            [(50, "nfs4"), (51, "fuse.sshfs"), (54, "fuse.JuiceFS"), (55, "lustre")]
        {
            assert_eq!(of(minor).as_deref(), Some(name));
        }
        for local in [26, 52, 53, 99] {
            assert_eq!(of(local), None, "0:{local}");
        }
        assert_eq!(kind(0, MOUNTS, (8, 1)), None);
    }

    #[test]
    fn the_number_tells_the_kind_where_the_mount_does_not() {
        for (number, name) in BY_NUMBER {
            assert_eq!(kind(number, MOUNTS, (8, 1)).as_deref(), Some(name), "{number:x}");
            assert_eq!(kind(number, "", (0, 0)).as_deref(), Some(name), "{number:x}");
        }
        assert_eq!(kind(0xFF53_4D42_u32.cast_signed(), "", (0, 0)).as_deref(), Some("cifs"));
        // ext4, xfs, btrfs, tmpfs, overlay, zfs, and file systems of user space.
        for local in [
            0xEF53_i64,
            0x5846_5342,
            0x9123_683E,
            0x0102_1994,
            0x794C_7630,
            0x2FC1_2FC1,
            0x6573_5546,
        ] {
            assert_eq!(kind(local, MOUNTS, (8, 1)), None, "{local:x}");
        }
    }

    #[test]
    fn a_path_counts_as_its_nearest_folder_that_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let here = network_kind(temp.path()).unwrap();
        assert_eq!(network_kind(&temp.path().join("not/there")).unwrap(), here);
        std::fs::write(temp.path().join("file"), "").unwrap();
        assert_eq!(network_kind(&temp.path().join("file/below")).unwrap(), here);
        assert_eq!(network_kind(Path::new("/proc")).unwrap(), None);
    }
}
