//! The command line as users run it, built together with the tests that run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    beespace::cli::main()
}
