//! The operating system as both daemons use it: its clock, file systems, folders, signals, and what a
//! process is started with. Each file names what it touches.

pub mod clock;
pub mod file_system;
pub mod folder;
pub mod host;
pub mod inherited;
pub mod removal;
pub mod signals;
