//! Whole runs with their size as a parameter: the suite plays them small,
//! `cargo xtask acceptance` in full. A scenario measures and returns figures;
//! its caller says what they must be.

mod backlog;
mod faults;
mod files;
mod islands;
mod long_task;

pub use backlog::{Backlog, backlog};
pub use faults::{Faults, Survived, faults};
pub use files::{Compared, Files, compare, files};
pub use islands::{Islands, islands, islands_permitted};
pub use long_task::{LongTask, long_task};
