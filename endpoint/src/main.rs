//! The program `clutch-endpoint`: the library of that name, started.

use std::process::ExitCode;

fn main() -> ExitCode {
    clutch_endpoint::main()
}
