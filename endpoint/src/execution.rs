//! Runs tasks: chooses which is next, and runs it as a process or as a function call.
//!
//! [`engine`] starts tasks while slots are free, [`executor`] is the seam to the two
//! ways of running one: [`process`] and [`function`]. Both start their programs through
//! [`os`], capture output in [`capture`] and judge its end in [`verdict`]. [`task_side`] is what a
//! process is told of the socket that answers it.

pub(crate) mod capture;
pub(crate) mod dispatcher;
pub(crate) mod engine;
pub(crate) mod events;
pub(crate) mod executor;
pub(crate) mod function;
pub(crate) mod live;
pub(crate) mod os;
pub(crate) mod process;
pub(crate) mod task_side;
pub(crate) mod truncation;
mod verdict;
