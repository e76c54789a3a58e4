//! `cargo xtask instructions`: counts the instructions that each operation of a
//! task's way takes, by callgrind, and compares them with those that
//! `bench/instructions.toml` keeps ([`baseline`]). A count does not depend on how
//! busy the machine is; it does on the compiler.
//!
//! An operation is done in two runs, twice as often in the second: the difference
//! leaves out everything that a program does once. Threads that wait for each other
//! may spin: what seems to take too much is counted again.

mod baseline;

use anyhow::{Context as _, Result, bail, ensure};
use baseline::Baseline;
use clutch_tests::{binaries, machine, workspace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The baseline, from the workspace on.
const BASELINE: &str = "bench/instructions.toml";

/// The operations that are counted, and in how many passes over [`BATCH`] tasks.
const OPERATIONS: [(&str, u32); 8] = [
    ("encode-tasks", 100),
    ("decode-tasks", 100),
    ("encode-results", 100),
    ("decode-results", 100),
    ("choose", 100),
    ("disk-queue", 40),
    ("begin", 20),
    ("record", 20),
];
/// As many as the benchmarks have in a pass.
const BATCH: u64 = 100;

/// glibc chooses its `memcpy` and its like by what the processor can. That these
/// are the plainest ones makes machines alike.
const TUNABLES: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-SSSE3,-SSE4_2",
);

/// Whether to compare the counts or keep them.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these operations
    operations: Vec<String>,
    /// Keeps what was counted as the new baseline; say why in the commit
    #[arg(long, conflicts_with = "operations")]
    record: bool,
}

/// Counts and compares, or records. Fails when an operation takes a tenth more.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(reason) = missing() {
        bail!("{reason}");
    }
    let good = if options.record {
        record()?;
        true
    } else {
        compare(&options.operations)?
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts and compares all; whether nothing takes too much.
pub(crate) fn check() -> Result<bool> {
    compare(&[])
}

/// Records the middle one of three counts.
fn record() -> Result<()> {
    let all = [measure(&[])?, measure(&[])?, measure(&[])?];
    let measured = Baseline::middle(&all);
    std::fs::write(workspace().join(BASELINE), measured.text())
        .with_context(|| format!("writing {BASELINE}"))?;
    println!("{} operations recorded in {BASELINE}", measured.per_task.len());
    Ok(())
}

fn compare(operations: &[String]) -> Result<bool> {
    let kept = std::fs::read_to_string(workspace().join(BASELINE))
        .with_context(|| format!("reading {BASELINE}"))?;
    let kept = Baseline::parse(&kept)?;
    let mut measured = measure(operations)?;
    let dearer = kept.dearer(&measured);
    if !dearer.is_empty() {
        println!("counting again: {}", dearer.join(", "));
        measured.per_task.extend(measure(&dearer)?.per_task);
    }
    let verdict = kept.compare(&measured)?;
    print!("{}", verdict.text);
    Ok(verdict.good)
}

/// Why nothing can be counted here, if so. Valgrind is installed where that is
/// possible.
pub(crate) fn missing() -> Option<String> {
    let there = machine::find("valgrind").is_some()
        || machine::can_install() && machine::install(&["valgrind"]).is_ok();
    (!there).then(|| "there is no valgrind, and it cannot be installed".to_owned())
}

/// The instructions per task of the operations with these names, or of all.
fn measure(names: &[String]) -> Result<Baseline> {
    let known = |name: &String| OPERATIONS.iter().any(|(operation, _)| operation == name);
    let unknown: Vec<&String> = names.iter().filter(|name| !known(name)).collect();
    ensure!(unknown.is_empty(), "there is no operation {unknown:?}");
    println!("building the microbenchmarks (release) …");
    let program = binaries::build_micro(&workspace())?;
    let profiles = binaries::target().join("instructions");
    std::fs::create_dir_all(&profiles)?;
    let mut per_task = BTreeMap::new();
    for (name, passes) in OPERATIONS {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let run = Run { program: &program, name, prepared: 2 * passes };
        let once = run.count(passes, &profiles.join(format!("{name}.half")))?;
        let twice = run.count(2 * passes, &profiles.join(name))?;
        let more = twice.checked_sub(once).context("more passes took fewer instructions")?;
        per_task.insert(name.to_owned(), more / (u64::from(passes) * BATCH));
    }
    Ok(Baseline { arch: std::env::consts::ARCH.to_owned(), rustc: rustc()?, per_task })
}

/// An operation under callgrind.
struct Run<'a> {
    program: &'a Path,
    name: &'a str,
    prepared: u32,
}

impl Run<'_> {
    /// How many instructions a whole run takes; its profile is left in a file.
    fn count(&self, passes: u32, profile: &Path) -> Result<u64> {
        let folder = tempfile::tempdir()?;
        let mut option = std::ffi::OsString::from("--callgrind-out-file=");
        option.push(profile);
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet", "--fair-sched=yes"])
            .arg(option)
            .arg(self.program);
        command.args(["count", self.name, &passes.to_string(), &self.prepared.to_string()]);
        let output = command.arg(folder.path()).env(TUNABLES.0, TUNABLES.1).output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {}\n{words}", output.status);
        let profile = std::fs::read_to_string(profile)?;
        let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
        total.context("callgrind wrote no total")?.trim().parse().context("reading the total")
    }
}

/// The compiler's version.
fn rustc() -> Result<String> {
    let program = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let output = Command::new(&program).arg("--version").current_dir(workspace()).output();
    let output = output.with_context(|| format!("running {}", program.display()))?;
    let words = String::from_utf8_lossy(&output.stdout);
    words.split(' ').nth(1).map(str::to_owned).context("rustc tells no version")
}
