//! `cargo xtask broker`: a private broker for trying things out.

use anyhow::Result;
use clutch_tests::broker::{BROKER, MANAGEMENT, Options, Private};
use std::process::ExitCode;

/// Starts a broker, says where it is, and waits for the end of standard
/// input or an interrupt; the broker ends with this process.
pub(crate) fn run() -> Result<ExitCode> {
    let broker = Private::start(&Options::default())?;
    let address = broker.address();
    println!("{BROKER}={}", address.amqp);
    println!("{MANAGEMENT}={}", address.management);
    println!("export CLUTCH_BROKER={}", address.amqp);
    println!("Press Ctrl-C or Ctrl-D to end it.");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(ExitCode::SUCCESS)
}
