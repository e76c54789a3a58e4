//! The program `clutch-service`: the library of that name, started, with an
//! allocator of its own.

use std::process::ExitCode;

/// Most of what the service allocates is small and short-lived, and given back on
/// another thread than it was taken on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    clutch_service::main()
}
