//! The microbenchmarks, `cargo xtask micro`: how long each of the [`operations`]
//! takes on a batch of tasks. As `micro count OPERATION PASSES PREPARED FOLDER` it
//! does one of them so many times and nothing else, for `cargo xtask instructions`.
//! Touches a temporary folder, or the one it is given.

#![allow(clippy::print_stderr, reason = "a program for people at a terminal")]
#![allow(clippy::expect_used, reason = "a benchmark that fails has nobody to tell")]

mod operations;

use anyhow::{Result, bail, ensure};
use divan::Bencher;
use divan::counter::ItemsCount;
use operations::{BATCH, NAMES};
use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|first| first != "count") {
        divan::main();
        return ExitCode::SUCCESS;
    }
    match count(&arguments[1..]) {
        // What is open is left to the system: its end is not counted.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does an operation so many times. What it needs is prepared before, for as many
/// passes as are said: so that runs of more and of fewer passes differ in nothing
/// but these.
fn count(arguments: &[String]) -> Result<()> {
    let [name, passes, prepared, folder] = arguments else {
        bail!("usage: micro count OPERATION PASSES PREPARED FOLDER");
    };
    let (passes, prepared): (u32, u32) = (passes.parse()?, prepared.parse()?);
    ensure!(passes <= prepared, "more passes than are prepared");
    let mut operation = operations::open(name, Path::new(folder))?;
    (0..prepared).try_for_each(|_| operation.prepare())?;
    (0..passes).try_for_each(|_| operation.pass())
}

/// One pass over a batch.
#[divan::bench(args = NAMES)]
fn operation(bencher: Bencher<'_, '_>, name: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let operation = operations::open(name, folder.path()).expect("an operation");
    let operation = RefCell::new(operation);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| operation.borrow_mut().prepare().expect("prepared"))
        .bench_local_values(|()| operation.borrow_mut().pass().expect("passed"));
}
