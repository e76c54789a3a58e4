//! `cargo xtask simulate`: seeded simulations of the endpoint, which are a unit
//! test of it. A seed that breaks a promise prints its trace and how to replay it.

use anyhow::{Context as _, Result, ensure};
use clutch_tests::{binaries, poll, workspace};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The unit test that plays seeds, and what it reads its wishes from.
const TEST: &str = "simulation::tests::every_seed_keeps_the_promises";
const SEEDS: &str = "CLUTCH_SIMULATE_SEEDS";
const TRACE: &str = "CLUTCH_SIMULATE_TRACE";

/// Which seeds to play.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seeds, from 0 on
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Only this seed, with its trace
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
}

/// The outcome of some seeds.
pub(crate) struct Played {
    /// Whether every promise was kept.
    pub(crate) good: bool,
    /// The output; the trace of a run that broke one is in it.
    pub(crate) printed: String,
}

/// Plays them, as many at a time as there are processors.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    println!("building the endpoint's tests (release) …");
    let program = binaries::build_endpoint_tests(&workspace(), &[])?;
    let started = Instant::now();
    if let Some(seed) = options.seed {
        let played = play(&program, seed..seed + 1, true)?;
        print!("{}", played.printed);
        return Ok(code(played.good));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let bound = |part: u64| options.seeds * part / processors;
    let all: Vec<Result<Played>> = std::thread::scope(|scope| {
        let program = &program;
        let threads: Vec<_> = (0..processors)
            .map(|part| scope.spawn(move || play(program, bound(part)..bound(part + 1), false)))
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    ensure!(all.len() as u64 == processors, "a thread that watched a simulation panicked");
    let mut good = true;
    for played in all {
        let played = played?;
        good &= played.good;
        if !played.good {
            print!("{}", played.printed);
        }
    }
    let verdict = if good { "every promise was kept" } else { "a promise was BROKEN" };
    println!("{} seeds in {:.0} s: {verdict}", options.seeds, started.elapsed().as_secs_f64());
    Ok(code(good))
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a range of seeds; those after one that broke a promise are left out.
pub(crate) fn play(program: &Path, seeds: Range<u64>, trace: bool) -> Result<Played> {
    let output = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(program);
    command
        .args(["--exact", TEST, "--nocapture"])
        .env(SEEDS, format!("{}..{}", seeds.start, seeds.end))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(output.reopen()?)
        .stderr(output.as_file().try_clone()?);
    if trace {
        command.env(TRACE, "1");
    }
    let mut test = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    // A run that turns in a circle makes no end.
    let within = Duration::from_secs(60 + (seeds.end - seeds.start) / 2);
    let ended = poll::until("the simulation to end", within, || Ok(test.try_wait()?));
    if ended.is_err() {
        test.kill()?;
        test.wait()?;
    }
    let mut printed = std::fs::read_to_string(output.path())?;
    let good = match ended {
        Ok(status) => status.success(),
        Err(error) => {
            printed.push_str(&format!("seeds {seeds:?}: {error}\n"));
            false
        }
    };
    ensure!(!good || printed.contains("1 passed"), "{TEST} did not run:\n{printed}");
    Ok(Played { good, printed })
}
