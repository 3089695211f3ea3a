//! The program. What it does stands in [`beespace::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    beespace::cli::main()
}
