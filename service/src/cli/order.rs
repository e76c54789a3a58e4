//! The arguments of `submit` about the order in which tasks start, and the room that they take.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clutch_common::task::priority::Priority;

#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// How early the tasks start among those that wait for their endpoint. Of eight starts, at
    /// least one is that of the task that waits longest, whatever its level [default: normal]
    #[arg(long, value_name = "LEVEL", value_parser = level())]
    pub(crate) priority: Option<Priority>,
    /// How many of the endpoint's slots each task takes while it runs; its process finds the
    /// number in CLUTCH_CORES [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cores: Option<u32>,
}

fn level() -> impl clap::builder::TypedValueParser<Value = Priority> {
    PossibleValuesParser::new(Priority::ALL.map(Priority::as_str))
        .try_map(|level| level.parse::<Priority>())
}
