//! The command line: nouns, then verbs. Data goes to stdout, words about it to stderr, and [`exit::Exit`] says how it ended.
//!
//! Commands talk to a server through its API and to nothing else, but for `server`, `lint` and `config`.

pub mod ansi_filter;
pub mod approve;
pub mod build;
mod build_common;
pub mod client;
pub mod config;
pub mod delivery;
pub mod diagnostics;
pub mod doctor;
pub mod exit;
pub mod lint;
pub mod log;
pub mod login;
pub mod notice;
pub mod output;
pub mod repo;
pub mod secret;
pub mod server;
pub mod table;
pub mod target;

use std::io::{self, Write as _};
use std::process::ExitCode;

use beespace_core::sanitize;
use clap::{CommandFactory as _, Parser, Subcommand};

use client::Client;
use exit::{Exit, Failure};
use output::Output;
use target::Target;

use crate::seal;

/// The CI server for Gogs
#[derive(Debug, Parser)]
#[command(name = "beespace", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 configuration or pipeline file, 4 not found, 5 refused, \
                          6 sign-in, 7 server unreachable, 70 bug";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Server(server::ServerArgs),
    /// Remember a server and its admin token
    Login(login::LoginArgs),
    /// Repositories that build here
    Repo(Remote<repo::RepoCommand>),
    /// Builds
    Build(Remote<build::BuildCommand>),
    /// What Gogs sent
    Delivery(Remote<delivery::DeliveryCommand>),
    /// What people were told
    Notice(Remote<notice::NoticeCommand>),
    /// Secrets of a repository or of the instance
    Secret(Remote<secret::SecretCommand>),
    /// Find out what is wrong, and what to do
    Doctor(Context),
    Lint(lint::LintArgs),
    /// The server's configuration
    Config {
        #[command(subcommand)]
        command: config::ConfigCommand,
    },
    /// Completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// A noun whose verbs go to a server.
#[derive(Debug, clap::Args)]
struct Remote<C: Subcommand> {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: C,
}

/// Where a command goes and how it answers.
#[derive(Debug, Clone, clap::Args)]
pub struct Context {
    #[command(flatten)]
    pub target: Target,
    /// How data is written
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Output,
}

impl Context {
    /// The API of the server that is meant.
    ///
    /// # Errors
    /// [`Failure`] where none is known.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::new(self.target.server()?)
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // Nobody listens where this fails.
            let _ = error.print();
            return code.into();
        }
    };
    if let Command::Lint(args) = &cli.command {
        return lint::run(args);
    }
    let ended = seal::forbid_core_dumps()
        .map_err(|error| Failure::new(Exit::Bug, format!("core dumps cannot be switched off: {error}")))
        // What is asked of it holds tokens and secrets.
        .and_then(|()| run(cli.command));
    match ended {
        Ok(exit) => exit.into(),
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
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "beespace", &mut io::stdout());
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
            Command::Secret(Remote { context, command }) => secret::run(&context, command).await,
            Command::Doctor(context) => doctor::run(&context).await,
            Command::Server(_) | Command::Lint(_) | Command::Config { .. } | Command::Completions { .. } => Ok(Exit::Ok),
        }
    })
}

/// Words, on stderr. Whatever strangers have put into them does not steer the terminal.
fn print_stderr(text: &str) {
    // Who closed stderr does not want to know.
    let _ = writeln!(io::stderr(), "{}", sanitize::lines(text));
}

/// Data for people, on stdout: it steers no terminal either.
///
/// # Errors
/// Where stdout is closed.
fn print_stdout(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout(), "{}", sanitize::lines(text))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command and all below it.
    fn commands(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let path = format!("{path} {}", command.get_name());
        let below = command.get_subcommands().flat_map(|one| commands(one, &path));
        below.chain([(path.clone(), command.clone())]).collect()
    }

    #[test]
    fn help_says_something_about_every_command_and_argument() {
        let mut silent = Vec::new();
        for (path, command) in commands(&Cli::command(), "") {
            silent.extend(command.get_about().is_none().then(|| path.clone()));
            let arguments = command.get_arguments().filter(|argument| argument.get_help().is_none());
            silent.extend(arguments.map(|argument| format!("{path}: {}", argument.get_id())));
        }
        assert!(silent.is_empty(), "{silent:#?}");
    }
}
