//! The `clutch-service` program.
mod api;
mod cli;
mod config;
mod endpoint_file;
mod expand;
mod failure;
mod output;
mod pack;
mod paths;
mod store;
fn main() {}
