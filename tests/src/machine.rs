//! Programs that the machine must have: finds them and, as root on Debian,
//! installs them.

use anyhow::{Result, bail, ensure};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that has Debian's maintainer scripts start no daemon: a broker of the
/// system's own is none of our business.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether we run as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds a program in `PATH`.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Whether [`install`] can work here.
#[must_use]
pub fn can_install() -> bool {
    is_root() && find("apt-get").is_some()
}

/// Installs Debian packages without starting their daemons.
///
/// # Errors
/// When this is not root on Debian, or `apt-get` fails.
pub fn install(packages: &[&str]) -> Result<()> {
    ensure!(can_install(), "installing {packages:?} needs root and apt-get");
    let ours = !Path::new(POLICY).exists();
    if ours {
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755))?;
    }
    let installed = apt_get(&["update", "-q"]).and_then(|()| {
        apt_get(&[&["install", "-qy", "--no-install-recommends"], packages].concat())
    });
    if ours {
        std::fs::remove_file(POLICY)?;
    }
    installed
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null())
        .status()?;
    if !status.success() {
        bail!("apt-get {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}
