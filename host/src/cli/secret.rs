//! `beespace secret`: sets, lists and removes secrets. A value is read from stdin, a file or a prompt, never from an argument,
//! because every user on the machine can see the arguments of a process.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Subcommand;
use reqwest::Method;

use super::exit::{Exit, Failure};
use super::{Context, login, print_stderr, table, times, values};
use crate::api::secret::{SecretBody, SecretSetBody, SecretValue};
use crate::clock::now;
use crate::urls::{API_PREFIX, api_repository, encode};

#[derive(Debug, clap::Args)]
pub struct Scope {
    /// Use the secrets of the instance, which every pipeline can read, instead of a repository's
    #[arg(long)]
    instance: bool,
    /// Use the secrets of plugins, which no pipeline can read
    #[arg(long, conflicts_with = "instance")]
    plugins: bool,
}

#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Set a secret; the command reads its value from stdin or a prompt
    Set {
        /// Name that pipelines and plugins use
        #[arg(value_parser = values::secret_name)]
        name: String,
        #[command(flatten)]
        scope: Scope,
        /// Read the value from this file
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// List the names of secrets; values are never shown
    List {
        #[command(flatten)]
        scope: Scope,
    },
    /// Remove a secret
    Remove {
        /// Name of the secret
        #[arg(value_parser = values::secret_name)]
        name: String,
        #[command(flatten)]
        scope: Scope,
    },
}

/// # Errors
/// [`Failure`] if the value cannot be read or the server refuses.
pub async fn run(context: &Context, command: SecretCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        SecretCommand::List { scope } => {
            let all: Vec<SecretBody> = client.get(&secrets_path(context, &scope)?).await?;
            let now = now();
            let row = |body: &SecretBody| [body.name.clone(), times::age(&body.changed_at, now)];
            table::print_list(context.output, &all, ["name", "changed"], row)?;
        }
        SecretCommand::Set { name, scope, file } => {
            let body = SecretValue { value: read_value(file)? };
            let set: SecretSetBody = client.put(&format!("{}/{}", secrets_path(context, &scope)?, encode(&name)), &body).await?;
            print_stderr(&format!("secret {name} set for {} at {}", scope_name(context, &scope)?, client.url()));
            if let Some(weakness) = set.weakness {
                print_stderr(&format!("warning: {weakness}"));
            }
        }
        SecretCommand::Remove { name, scope } => {
            let path = format!("{}/{}", secrets_path(context, &scope)?, encode(&name));
            client.execute(Method::DELETE, &path, None::<&()>).await?;
            print_stderr(&format!("secret {name} removed for {} at {}", scope_name(context, &scope)?, client.url()));
        }
    }
    Ok(Exit::Ok)
}

fn secrets_path(context: &Context, scope: &Scope) -> Result<String, Failure> {
    Ok(if scope.plugins {
        format!("{API_PREFIX}/plugin-secrets")
    } else if scope.instance {
        format!("{API_PREFIX}/secrets")
    } else {
        format!("{}/secrets", api_repository(&context.target.repository()?))
    })
}

/// The owner of the secrets, for messages.
fn scope_name(context: &Context, scope: &Scope) -> Result<String, Failure> {
    Ok(match scope {
        Scope { plugins: true, .. } => "plugins".to_owned(),
        Scope { instance: true, .. } => "the instance".to_owned(),
        _ => context.target.repository()?.to_string(),
    })
}

/// Reads a value: from a file as it is, from stdin without the final line break that `echo` adds, or from a hidden prompt.
fn read_value(file: Option<PathBuf>) -> Result<String, Failure> {
    if let Some(path) = file {
        return std::fs::read_to_string(&path)
            .map_err(|error| Failure::new(Exit::NotFound, format!("{}: {error}", path.display())));
    }
    if io::stdin().is_terminal() {
        return login::prompt_hidden("Value: ");
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text.strip_suffix('\n').map_or(text.clone(), |text| text.strip_suffix('\r').unwrap_or(text).to_owned()))
}
