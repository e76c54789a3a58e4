//! `cargo xtask simulate`: seeded simulations of the endpoint, of messages between tasks, of the
//! service's schedules, and of where tasks of topics are placed, each a unit test. A seed that breaks a promise prints how to replay it.

use anyhow::{Context as _, Result, ensure};
use clutch_tests::{binaries, poll, workspace};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A simulation: a unit test that plays seeds.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Simulation {
    /// The endpoint's parts together
    Endpoint,
    /// Messages between tasks of two endpoints
    Messages,
    /// The rules of schedules, and what becomes of their instants
    Schedules,
    /// Where tasks of topics are placed
    Topics,
}

impl Simulation {
    /// Every one.
    pub(crate) const ALL: [Self; 4] =
        [Self::Endpoint, Self::Messages, Self::Schedules, Self::Topics];

    /// The simulation of the code in a folder.
    pub(crate) fn of(code: &str) -> Self {
        if code.starts_with("service/src/topics") || code.starts_with("service/src/store") {
            Self::Topics
        } else if code.starts_with("service/") {
            Self::Schedules
        } else if code.starts_with("endpoint/src/messages") {
            Self::Messages
        } else {
            Self::Endpoint
        }
    }

    fn test(self) -> &'static str {
        match self {
            Self::Endpoint => "simulation::tests::every_seed_keeps_the_promises",
            Self::Messages => "messages::simulation::every_seed_keeps_the_promises",
            Self::Schedules => "schedule::simulation::tests::every_seed_keeps_the_promises",
            Self::Topics => "store::topic_placer::simulation::every_seed_keeps_the_promises",
        }
    }

    /// Builds the program that has the test.
    pub(crate) fn build(self, source: &Path, options: &[&str]) -> Result<PathBuf> {
        let package = match self {
            Self::Endpoint | Self::Messages => binaries::ENDPOINT,
            Self::Schedules | Self::Topics => binaries::SERVICE,
        };
        binaries::build_unit_tests(package, source, options)
    }
}

/// The variables that the tests read their wishes from.
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
    /// Only this simulation
    #[arg(long)]
    only: Option<Simulation>,
}

/// The outcome of some seeds.
pub(crate) struct Played {
    /// Whether every promise was kept.
    pub(crate) good: bool,
    /// The output; the trace of a run that broke one is in it.
    pub(crate) printed: String,
}

/// Plays them, one simulation after the other.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut good = true;
    for simulation in Simulation::ALL {
        if options.only.is_none_or(|only| only == simulation) {
            good &= simulate(simulation, options)?;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays the seeds of a simulation, as many at a time as there are processors. Whether every
/// promise was kept.
fn simulate(simulation: Simulation, options: &Options) -> Result<bool> {
    println!("building {} (release) …", simulation.test());
    let program = simulation.build(&workspace(), &[])?;
    let started = Instant::now();
    if let Some(seed) = options.seed {
        let played = play(simulation, &program, seed..seed + 1, true)?;
        print!("{}", played.printed);
        return Ok(played.good);
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let bound = |part: u64| options.seeds * part / processors;
    let all: Vec<Result<Played>> = std::thread::scope(|scope| {
        let program = &program;
        let play = move |part| play(simulation, program, bound(part)..bound(part + 1), false);
        let threads: Vec<_> = (0..processors).map(|part| scope.spawn(move || play(part))).collect();
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
    Ok(good)
}

/// Plays a range of seeds; those after one that broke a promise are left out.
pub(crate) fn play(
    simulation: Simulation,
    program: &Path,
    seeds: Range<u64>,
    trace: bool,
) -> Result<Played> {
    let test = simulation.test();
    let output = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(program);
    command
        .args(["--exact", test, "--nocapture"])
        .env(SEEDS, format!("{}..{}", seeds.start, seeds.end))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(output.as_file().try_clone()?)
        .stderr(output.as_file().try_clone()?);
    if trace {
        command.env(TRACE, "1");
    }
    let mut running = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    // A run that turns in a circle makes no end.
    let within = Duration::from_secs(60 + (seeds.end - seeds.start) / 2);
    let ended = poll::until("the simulation to end", within, || Ok(running.try_wait()?));
    if ended.is_err() {
        running.kill()?;
        running.wait()?;
    }
    let mut printed = std::fs::read_to_string(output.path())?;
    let good = match ended {
        Ok(status) => status.success(),
        Err(error) => {
            printed.push_str(&format!("seeds {seeds:?}: {error}\n"));
            false
        }
    };
    ensure!(!good || printed.contains("1 passed"), "{test} did not run:\n{printed}");
    Ok(Played { good, printed })
}
