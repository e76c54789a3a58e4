//! `cargo xtask acceptance`: the long scenarios at their full size.

use anyhow::Result;
use clutch_tests::binaries;
use clutch_tests::broker::Broker;
use clutch_tests::scenario::{self, Faults, Files};
use clutch_tests::world::World;
use std::path::Path;
use std::process::ExitCode;

/// The endpoint's limits.
const IDLE: u64 = 15 << 20;
const PEAK: u64 = 64 << 20;

/// The scenarios to play; all without an option.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this scenario
    #[arg(value_enum)]
    scenario: Option<Scenario>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Scenario {
    /// 10,000 files
    Files,
    /// 10,000 files, the endpoint killed three times, the broker restarted twice
    Faults,
    /// 60,000 tasks of 10 KB
    Backlog,
    /// A task longer than the broker's patience
    LongTask,
    /// 2 × 2,000 files at endpoints that share nothing but a folder with the
    /// service
    Islands,
}

/// Plays the scenarios and says of each what was measured and whether that is
/// good.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    println!("building the binaries (release) …");
    let binaries = binaries::build(true)?;
    let all = [
        Scenario::Files,
        Scenario::Faults,
        Scenario::Backlog,
        Scenario::LongTask,
        Scenario::Islands,
    ];
    let mut good = true;
    for scenario in all {
        if options.scenario.is_some_and(|only| only != scenario) {
            continue;
        }
        println!("── {scenario:?}");
        let passed = match scenario {
            Scenario::Files => files(&binaries),
            Scenario::Faults => faults(&binaries),
            Scenario::Backlog => backlog(&binaries),
            Scenario::LongTask => long_task(&binaries),
            Scenario::Islands => islands(&binaries),
        }?;
        println!("{}", if passed { "passed" } else { "FAILED" });
        good &= passed;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn files(binaries: &Path) -> Result<bool> {
    let broker = Broker::start()?;
    let world = World::at(broker.address(), binaries)?;
    let endpoint = world.provision("files")?;
    let _service = world.serve()?;
    let _daemon = world.run(&endpoint)?;
    let files = Files::find(&["/usr/share/doc", "/usr/include"], 10_000, world.folder())?;
    let compared = scenario::files(&world, &endpoint, &files)?;
    compared.report(&files, &mut std::io::stdout())?;
    Ok(compared.perfect())
}

fn faults(binaries: &Path) -> Result<bool> {
    let survived = scenario::faults(binaries, &Faults::over(10_000))?;
    survived.compared.report(&survived.files, &mut std::io::stdout())?;
    println!("{}", survived.verdict);
    println!(
        "at the kills: {} slots, {} processes of tasks",
        survived.slots_at_kills, survived.running_at_kills
    );
    Ok(survived.holds())
}

fn backlog(binaries: &Path) -> Result<bool> {
    let broker = Broker::start()?;
    let world = World::at(broker.address(), binaries)?;
    let measured = scenario::backlog(&world, 60_000, 10_000)?;
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{} of 60000 succeeded in {:.0} s; memory of the endpoint: {:.1} MiB idle, {:.1} MiB at \
         its peak, {:.1} MiB idle after a restart",
        measured.succeeded,
        measured.elapsed.as_secs_f64(),
        megabytes(measured.idle),
        megabytes(measured.peak),
        megabytes(measured.idle_again)
    );
    let idle = measured.idle.max(measured.idle_again);
    Ok(measured.succeeded == 60_000 && idle <= IDLE && measured.peak <= PEAK)
}

fn long_task(binaries: &Path) -> Result<bool> {
    let long = scenario::long_task(binaries)?;
    println!(
        "outcomes {:?}, {} start(s), {} lost link(s)",
        long.outcomes, long.starts, long.disengaged
    );
    Ok(long.holds())
}

fn islands(binaries: &Path) -> Result<bool> {
    let islands = scenario::islands(binaries, 2000)?;
    for (files, compared) in &islands.jobs {
        compared.report(files, &mut std::io::stdout())?;
    }
    println!("{} networks", islands.networks);
    Ok(islands.holds())
}
