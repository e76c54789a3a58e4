//! A checksum of every file in a list, once through Clutch and once directly.

use crate::world::{Endpoint, World};
use anyhow::{Context as _, Result, ensure};

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A list of real files and what `sha256sum` says of each.
#[derive(Clone, Debug)]
pub struct Files {
    /// The file that holds the list, one name a line.
    pub list: PathBuf,
    /// How many there are.
    pub count: usize,
    /// The output of `xargs sha256sum` for the list.
    pub expected: Vec<u8>,
    /// How long that took on all cores, one process per file.
    pub direct: Duration,
}

impl Files {
    /// Up to `count` readable files below `folders`, in a list inside `into`.
    pub fn find(folders: &[&str], count: usize, into: &Path) -> Result<Self> {
        let mut names = Vec::new();
        for folder in folders {
            collect(Path::new(folder), count, &mut names);
        }
        ensure!(!names.is_empty(), "there are no files in {folders:?}");
        let list = into.join("files");
        std::fs::write(&list, names.join("\n") + "\n")?;
        let cores = std::thread::available_parallelism()?.get().to_string();
        let started = Instant::now();
        xargs(&["-n", "1", "-P", &cores], &list)?;
        let direct = started.elapsed();
        Ok(Self { count: names.len(), expected: xargs(&[], &list)?, list, direct })
    }
}

fn collect(folder: &Path, count: usize, names: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if names.len() == count {
            return;
        }
        let Ok(kind) = path.symlink_metadata() else { continue };
        let name = path.to_str().filter(|name| !name.contains(['\n', '\r', '\\']));
        if kind.is_dir() {
            collect(&path, count, names);
        } else if let (true, Some(name)) = (kind.is_file(), name)
            && std::fs::File::open(&path).is_ok()
        {
            names.push(name.to_owned());
        }
    }
}

fn xargs(options: &[&str], list: &Path) -> Result<Vec<u8>> {
    let output = Command::new("xargs")
        .args(options)
        .args(["-d", "\\n", "sha256sum"])
        .stdin(std::fs::File::open(list)?)
        .stderr(Stdio::inherit())
        .output()
        .context("running xargs")?;
    ensure!(output.status.success(), "xargs sha256sum failed: {}", output.status);
    Ok(output.stdout)
}

/// How the outputs compare.
#[derive(Clone, Debug)]
pub struct Compared {
    /// How many tasks were submitted.
    pub submitted: usize,
    /// How many recorded outputs are, at their place in the list, what was
    /// computed directly.
    pub equal: usize,
    /// How many tasks have a recorded outcome, each task counted once.
    pub recorded: usize,
    /// From the call of `submit` to its end.
    pub elapsed: Duration,
}

/// Sums the files by one `submit --each-line … --wait`, under the key `files`,
/// and compares.
pub fn files(world: &World, endpoint: &Endpoint, files: &Files) -> Result<Compared> {
    let list = files.list.display().to_string();
    let started = Instant::now();
    world
        .submit(
            endpoint,
            "files",
            &["--each-line", &list, "--", "sha256sum", "{}"],
            Duration::from_secs(900),
        )?
        .ok()
        .context("submitting")?;
    compare(world, "files", files, started.elapsed())
}

/// Compares what is recorded under `key` with what was computed directly.
pub fn compare(world: &World, key: &str, files: &Files, elapsed: Duration) -> Result<Compared> {
    let outputs = world
        .service_within(&["results", "--key", key, "--stdout-only"], Duration::from_secs(120))?;
    let outputs = outputs.ok()?.stdout;
    let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let equal = lines(&outputs).iter().zip(lines(&files.expected)).filter(|(a, b)| *a == b).count();
    let results = world.results(key)?;
    let recorded = World::ids(results.iter().filter(|task| !task["result"].is_null()));
    let exact = outputs == files.expected;
    ensure!(exact == (equal == files.count), "there is more output than there are files");
    Ok(Compared { submitted: files.count, equal, recorded: recorded.len(), elapsed })
}

impl Compared {
    /// Whether every output is there and right.
    #[must_use]
    pub fn perfect(&self) -> bool {
        self.equal == self.submitted && self.recorded == self.submitted
    }

    /// Writes the figures for people.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn report(&self, files: &Files, out: &mut impl std::io::Write) -> Result<()> {
        let rate = |time: Duration| self.submitted as f64 / time.as_secs_f64().max(1e-9);
        writeln!(out, "{} of {} outcomes recorded", self.recorded, self.submitted)?;
        writeln!(out, "{} of {} outputs equal, line by line", self.equal, self.submitted)?;
        writeln!(
            out,
            "{:.1} s through Clutch ({:.0} tasks/s), {:.1} s by xargs on the same cores ({:.0}/s)",
            self.elapsed.as_secs_f64(),
            rate(self.elapsed),
            files.direct.as_secs_f64(),
            rate(files.direct)
        )?;
        out.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_as_many_files_as_asked_for_and_their_sums() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source/deep");
        std::fs::create_dir_all(&source).unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(source.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("a", source.join("aa")).unwrap();
        let from = folder.path().join("source").display().to_string();
        let files = Files::find(&[&from], 2, folder.path()).unwrap();
        assert_eq!(files.count, 2);
        let expected = String::from_utf8(files.expected).unwrap();
        let of_a = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        assert!(expected.starts_with(of_a), "{expected}");
        assert_eq!(expected.lines().count(), 2);
    }
}
