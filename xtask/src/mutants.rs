//! `cargo xtask mutants`: shows that the simulation bites. Each deliberate mistake
//! of `tests/mutations/` is made in a scratch copy of the workspace, which is
//! built and simulated; one that is not noticed is a failure.

use crate::simulate::{self, Played, Simulation};
use anyhow::{Context as _, Result, ensure};
use clutch_tests::mutations::{self, Mutation};
use clutch_tests::{binaries, workspace};
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// Folders that are not part of the source.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// A mistake changes a line or two, so as little as possible is compiled again for it.
/// Cargo tells packages apart by their settings, not by the workspace
/// that they are in. The packages that are compiled here have settings of their own, so
/// that the copy and the checkout do not take each other's packages for their own.
const QUICKLY: [&str; 14] = [
    "--config",
    "build.incremental=true",
    "--config",
    "profile.release.package.clutch-endpoint.opt-level=1",
    "--config",
    "profile.release.package.clutch-endpoint.debug=0",
    "--config",
    "profile.release.package.clutch-common.opt-level=2",
    "--config",
    "profile.release.package.clutch-common.debug=0",
    "--config",
    "profile.release.package.clutch-service.opt-level=1",
    "--config",
    "profile.release.package.clutch-service.debug=0",
];

/// Which mistakes to make.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this one
    name: Option<String>,
    /// How many seeds may notice it
    #[arg(long, default_value_t = 500)]
    seeds: u64,
}

/// Makes the mistakes one after the other and prints which seed noticed each.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut mutations = mutations::all()?;
    if let Some(name) = &options.name {
        mutations.retain(|mutation| mutation.name == *name);
        ensure!(!mutations.is_empty(), "there is no tests/mutations/{name}.toml");
    }
    let copy = binaries::target().join("mutants");
    copy_changed(&workspace(), &copy)?;
    println!("playing {} seeds of the code as it is …", options.seeds);
    for simulation in Simulation::ALL {
        let needed = |mutation: &Mutation| Simulation::of(&mutation.code) == simulation;
        if mutations.iter().any(needed) {
            let sound = play(simulation, &copy, options.seeds)?;
            ensure!(sound.good, "without any mistake a promise is broken:\n{}", sound.printed);
        }
    }

    let width = mutations.iter().map(|mutation| mutation.name.len()).max().unwrap_or(0);
    println!("{:width$}  noticed by", "mutation");
    let mut survived = 0;
    for mutation in &mutations {
        let played = mutate(mutation, &copy, options.seeds)
            .with_context(|| format!("the mutation {}", mutation.name))?;
        let noticed = if played.good {
            survived += 1;
            format!("NOTHING: {}", mutation.mistake)
        } else {
            first_words(&played.printed).to_owned()
        };
        println!("{:width$}  {noticed}", mutation.name);
    }
    println!("{} mutations, {survived} survived", mutations.len());
    Ok(if survived == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays the copy with a mistake in it, and takes the mistake out again.
fn mutate(mutation: &Mutation, copy: &Path, seeds: u64) -> Result<Played> {
    let mistaken = mutation.apply_below(copy)?;
    let path = copy.join(&mistaken.file);
    let sound = std::fs::read(&path)?;
    std::fs::write(&path, mistaken.text)?;
    let played = play(Simulation::of(&mutation.code), copy, seeds);
    std::fs::write(&path, sound)?;
    played
}

fn play(simulation: Simulation, copy: &Path, seeds: u64) -> Result<Played> {
    simulate::play(simulation, &simulation.build(copy, &QUICKLY)?, 0..seeds, false)
}

/// The line that says which seed broke which promise.
fn first_words(printed: &str) -> &str {
    printed.lines().find(|line| line.starts_with("seed")).unwrap_or("a crash of the test")
}

/// Makes the copy the same as the source. A file that is the same already is left
/// alone, so that it is not compiled again.
fn copy_changed(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(to)? {
        let path = entry?.path();
        let gone = path.file_name().is_some_and(|name| !from.join(name).exists());
        if gone && path.is_dir() {
            std::fs::remove_dir_all(&path)?;
        } else if gone {
            std::fs::remove_file(&path)?;
        }
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let (source, copy) = (entry.path(), to.join(&name));
        if LEFT_OUT.iter().any(|left_out| name == OsStr::new(left_out)) {
            continue;
        }
        if kind.is_dir() {
            copy_changed(&source, &copy)?;
        } else if kind.is_file() {
            let text = std::fs::read(&source)?;
            if std::fs::read(&copy).ok().as_ref() != Some(&text) {
                std::fs::write(&copy, text)
                    .with_context(|| format!("writing {}", copy.display()))?;
            }
        }
    }
    Ok(())
}
