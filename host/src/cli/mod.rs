//! The command line: nouns, then verbs. Data goes to stdout, messages go to stderr, and [`exit::Exit`] lists the exit codes.
//!
//! Every command except `server`, `logout`, `lint`, `config` and `completions` uses the server's HTTP API and nothing else.

pub mod ansi_filter;
pub mod approve;
pub mod build;
mod build_common;
mod build_text;
pub mod client;
pub mod config;
pub mod delivery;
pub mod diagnostics;
pub mod doctor;
pub mod exit;
mod ignored_pushes;
pub mod lint;
pub mod log;
pub mod login;
pub mod notice;
pub mod output;
mod queue_commands;
pub mod repo;
pub mod saved_login;
pub mod schedule;
pub mod secret;
pub mod server;
pub mod server_and_repository;
pub mod start;
pub mod table;
mod times;
pub mod token;
mod values;

use std::io::{self, Write as _};
use std::process::ExitCode;

use beespace_core::sanitize;
use clap::{CommandFactory as _, Parser, Subcommand};

use client::Client;
use exit::{Exit, Failure};
use output::Output;
use server_and_repository::Target;

use crate::encryption;

/// The CI server for Gogs
#[derive(Debug, Parser)]
#[command(name = "beespace", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 success, 1 a build, a check or the server failed, 2 usage error, 3 invalid configuration \
                          or pipeline file, 4 not found, 5 refused, 6 authentication failed, 7 server or Gogs unavailable, \
                          70 internal error, 141 the reader of the output closed it";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Server(server::ServerArgs),
    /// Save a server's address and admin token for later commands
    Login(login::LoginArgs),
    /// Remove the saved address and admin token
    Logout,
    /// Enable, repair and disable repositories
    Repo(Remote<repo::RepoCommand>),
    /// List, show, start, restart, cancel and approve builds
    Build(Remote<build::BuildCommand>),
    /// Inspect and retry webhook deliveries from Gogs
    Delivery(Remote<delivery::DeliveryCommand>),
    /// Inspect and retry notices
    Notice(Remote<notice::NoticeCommand>),
    /// Set, list, remove and run schedules of a repository
    Schedule(Remote<schedule::ScheduleCommand>),
    /// Set, list and remove secrets of a repository, of the instance, or of plugins
    Secret(Remote<secret::SecretCommand>),
    /// Check that pushes can become builds, and print a remedy for each problem
    Doctor(Context),
    Lint(lint::LintArgs),
    /// Validate and print the server configuration
    Config {
        #[command(subcommand)]
        command: config::ConfigCommand,
    },
    /// Print shell completions
    Completions {
        /// Shell to generate completions for
        shell: clap_complete::Shell,
    },
}

/// A noun whose verbs call the server's API.
#[derive(Debug, clap::Args)]
struct Remote<C: Subcommand> {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: C,
}

/// The server a command calls, and the format of its output.
#[derive(Debug, Clone, clap::Args)]
pub struct Context {
    #[command(flatten)]
    pub target: Target,
    /// Output format
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Output,
}

impl Context {
    /// A client for the selected server.
    ///
    /// # Errors
    /// [`Failure`] if no server is configured.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::new(self.target.server()?)
    }
}

/// Parses the command line, runs the command and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // If stderr is closed, there is nowhere to report it.
            let _ = error.print();
            return code.into();
        }
    };
    let result = match cli.command {
        Command::Lint(args) => lint::run(&args),
        command => encryption::forbid_core_dumps()
            .map_err(|error| Failure::new(Exit::Bug, format!("cannot disable core dumps: {error}")))
            // A core dump would contain tokens and secrets.
            .and_then(|()| run(command)),
    };
    match result {
        Ok(exit) => exit.into(),
        // A closed pipe is normal: a reader such as `head` has read enough.
        Err(failure) if failure.exit == Exit::ClosedPipe => failure.exit.into(),
        Err(failure) => {
            print_stderr(&failure.to_string());
            failure.exit.into()
        }
    }
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Server(args) => return server::run(&args),
        Command::Config { command } => return config::run(&command),
        Command::Logout => return login::log_out(),
        Command::Completions { shell } => {
            // `clap_complete` panics if it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "beespace", &mut script);
            io::stdout().write_all(&script)?;
            return Ok(Exit::Ok);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Login(args) => login::run(args).await,
            Command::Repo(Remote { context, command }) => repo::run(&context, command).await,
            Command::Build(Remote { context, command }) => build::run(&context, command).await,
            Command::Delivery(Remote { context, command }) => delivery::run(&context, command).await,
            Command::Notice(Remote { context, command }) => notice::run(&context, command).await,
            Command::Schedule(Remote { context, command }) => schedule::run(&context, command).await,
            Command::Secret(Remote { context, command }) => secret::run(&context, command).await,
            Command::Doctor(context) => doctor::run(&context).await,
            Command::Server(_) | Command::Lint(_) | Command::Config { .. } | Command::Completions { .. } | Command::Logout => {
                Ok(Exit::Ok)
            }
        }
    })
}

/// Prints a message to stderr, sanitized: text from outside cannot control the terminal.
fn print_stderr(text: &str) {
    // If stderr is closed, there is nowhere to report it.
    let _ = writeln!(io::stderr(), "{}", sanitize::lines(text));
}

/// Prints data for people to stdout, sanitized like [`print_stderr`].
///
/// # Errors
/// [`Failure`] if stdout is closed.
fn print_stdout(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout(), "{}", sanitize::lines(text))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command and all its subcommands.
    fn commands(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let path = format!("{path} {}", command.get_name());
        let below = command.get_subcommands().flat_map(|one| commands(one, &path));
        below.chain([(path.clone(), command.clone())]).collect()
    }

    #[test]
    fn every_command_and_argument_has_help() {
        let mut undocumented = Vec::new();
        for (path, command) in commands(&Cli::command(), "") {
            undocumented.extend(command.get_about().is_none().then(|| path.clone()));
            let arguments = command.get_arguments().filter(|argument| argument.get_help().is_none());
            undocumented.extend(arguments.map(|argument| format!("{path}: {}", argument.get_id())));
        }
        assert!(undocumented.is_empty(), "{undocumented:#?}");
    }
}
