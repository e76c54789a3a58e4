//! x
mod executor;
fn main() {}
