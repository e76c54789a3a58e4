//! The arguments of `results`.

use super::Selection;
use clap::Args;
use std::path::PathBuf;

/// How files are named.
const HELP: &str = "\
With --to, a task's files are named by its index in the submission and its name, as 007-sweep.stdout,
.stderr and .value.json; a stream that is empty has none. A file appears whole or not at all, and one
that is there already is never overwritten: repeated, the command writes what is missing.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ResultsArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Write the tasks' standard output and nothing else, one after the other
    #[arg(long, conflicts_with_all = ["json", "values", "to"])]
    pub(crate) stdout_only: bool,
    /// Write what the calls returned, one JSON value per line, in order; null for a task without one
    #[arg(long, conflicts_with_all = ["json", "to"])]
    pub(crate) values: bool,
    /// Write a file for each task and stream into this folder, made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}
