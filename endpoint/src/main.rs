//! The Clutch endpoint daemon.

mod disk_queue;
mod journal;
mod spool;

fn main() {}
