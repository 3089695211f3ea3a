//! The program. Its commands are in [`beespace::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    beespace::cli::main()
}
