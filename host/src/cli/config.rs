//! `beespace config`: is the configuration right, and where does each value come from.

use std::path::PathBuf;

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::{say, table};
use crate::config::{Config, Loaded};

#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The file; else beespace.toml here, then /etc/beespace/beespace.toml
    #[arg(long, env = "BEESPACE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong
    Check(ConfigArgs),
    /// Every key with its value; secrets are not shown
    Show {
        #[command(flatten)]
        args: ConfigArgs,
        /// Where each value comes from
        #[arg(long)]
        origin: bool,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, serde::Serialize)]
struct Line {
    key: String,
    value: String,
    origin: String,
}

/// # Errors
/// [`Failure`], to be said and exited with.
pub fn run(command: &ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(args) => {
            let loaded = load(args)?;
            let file = loaded.path.map_or_else(|| "the environment".to_owned(), |path| path.display().to_string());
            say(&format!("{file} is right"));
        }
        ConfigCommand::Show { args, origin, output } => {
            let entries = load(args)?.entries;
            let line =
                |entry: crate::config::Entry| Line { key: entry.key, value: entry.value, origin: entry.origin.to_string() };
            let lines: Vec<Line> = entries.into_iter().map(line).collect();
            if *origin {
                let row = |line: &Line| [line.key.clone(), line.value.clone(), line.origin.clone()];
                table::list(*output, &lines, ["key", "value", "origin"], row)?;
            } else {
                table::list(*output, &lines, ["key", "value"], |line| [line.key.clone(), line.value.clone()])?;
            }
        }
    }
    Ok(Exit::Ok)
}

/// Reads the configuration, with every problem as one failure.
///
/// # Errors
/// [`Failure`] that tells all of them.
pub fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    Config::load(args.config.as_deref(), std::env::vars()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::new(Exit::Config, format!("the configuration is wrong:\n  {}", lines.join("\n  ")))
    })
}
