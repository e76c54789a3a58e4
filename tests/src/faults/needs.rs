//! Tools and rights that some faults take besides a broker, and whether the machine has them.

use crate::machine;
use crate::pids::Pids;
use std::process::{Command, Stdio};

/// Something that not every machine has or permits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// To mount file systems.
    Mount,
    /// To put a file system into a file (ext4, a loop device) and to break it.
    LoopDevice,
    /// To limit the processes of a control group.
    Pids,
    /// Python 3, with SQLite in its library.
    Python,
    /// libfaketime.
    FakeTime,
    /// Much time: it is played only when it is asked for.
    Hours,
}

impl Need {
    /// Why a fault that needs this cannot be played here, if it cannot. What
    /// can be installed is.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Mount => (!mounts()).then(|| "mounting is not permitted here".to_owned()),
            Self::LoopDevice => {
                let tools = has("mkfs.ext4", "e2fsprogs") && has("losetup", "mount");
                let works = tools && mounts() && runs("losetup", &["--find"]);
                (!works).then(|| "there are no loop devices with ext4 here".to_owned())
            }
            Self::Pids => Pids::make().err().map(|why| why.to_string()),
            Self::Python => (!has("python3", "python3")).then(|| "there is no python3".to_owned()),
            Self::Hours => None,
            Self::FakeTime => {
                let works = has("faketime", "faketime") && runs("faketime", &["-f", "+1h", "true"]);
                (!works).then(|| "there is no libfaketime".to_owned())
            }
        }
    }
}

fn mounts() -> bool {
    machine::is_root() && runs("unshare", &["--mount", "true"])
}

fn has(program: &str, package: &str) -> bool {
    machine::find(program).is_some()
        || machine::can_install() && machine::install(&[package]).is_ok()
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let quiet = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
