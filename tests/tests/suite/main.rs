//! The integration suite: real binaries, a real broker, one module per
//! subject. Each test has a vhost and a folder of its own and may run beside
//! the others; those that load the machine take turns (see [`heavy`]).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;
