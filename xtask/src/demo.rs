//! `cargo xtask demo`: what Clutch does, on real files, from nothing.

use anyhow::Result;
use clutch_tests::binaries;
use clutch_tests::broker::Broker;
use clutch_tests::scenario::{self, Files};
use clutch_tests::world::{SOON, World};
use std::process::ExitCode;

/// How large the demonstration is.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many files of /usr/share to sum
    #[arg(long, default_value_t = 2000)]
    files: usize,
}

/// Sums files through Clutch and directly, and succeeds only if both agree
/// line by line.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    println!("building the service and the endpoint (release) …");
    let binaries = binaries::build(true)?;
    println!("starting a broker …");
    let broker = Broker::start()?;
    let world = World::at(broker.address(), &binaries)?;
    println!("provisioning the endpoint 'demo' …");
    let endpoint = world.provision("demo")?;
    let mut service = world.serve()?;
    let mut daemon = world.run(&endpoint)?;
    let files = Files::find(&["/usr/share"], options.files, world.folder())?;
    println!("submitting {} tasks: sha256sum of each file …", files.count);
    let compared = scenario::files(&world, &endpoint, &files)?;
    compared.report(&files, &mut std::io::stdout())?;
    let stopped = (daemon.stop(SOON)?, service.stop(SOON)?);
    println!("endpoint and service stopped with exit codes {} and {}", stopped.0, stopped.1);
    if compared.perfect() && stopped == (0, 0) {
        println!("every output is right");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("something is missing or wrong");
        Ok(ExitCode::FAILURE)
    }
}
