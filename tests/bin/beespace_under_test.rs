//! The command line as users run it, with the fail points that the tests use.

use std::process::ExitCode;

fn main() -> ExitCode {
    beespace::cli::main()
}
