//! `beespace secret`: set, list by name, remove. A value comes from stdin, a file or a prompt, never from an argument: those are
//! seen by everybody on the machine.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Subcommand;
use reqwest::Method;

use super::exit::{Exit, Failure};
use super::{Context, login, print_stderr, table};
use crate::api::secret::{SecretBody, SecretSetBody, SecretValue};
use crate::urls::{API_PREFIX, api_repository, encode};

#[derive(Debug, clap::Args)]
pub struct Scope {
    /// A secret of the instance instead of a repository
    #[arg(long)]
    instance: bool,
}

#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Set a secret; its value is read from stdin, or asked for
    Set {
        /// What pipelines and plugins call it
        name: String,
        #[command(flatten)]
        scope: Scope,
        /// Read the value from this file
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Names of secrets; values are never shown
    List {
        #[command(flatten)]
        scope: Scope,
    },
    /// Remove a secret
    Remove {
        /// As it was set
        name: String,
        #[command(flatten)]
        scope: Scope,
    },
}

/// # Errors
/// [`Failure`], to be said and exited with.
pub async fn run(context: &Context, command: SecretCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        SecretCommand::List { scope } => {
            let all: Vec<SecretBody> = client.get(&secrets_path(context, &scope)?).await?;
            table::print_list(context.output, &all, ["name", "changed"], |body| [body.name.clone(), body.changed_at.clone()])?;
        }
        SecretCommand::Set { name, scope, file } => {
            let body = SecretValue { value: read_value(file)? };
            let set: SecretSetBody = client.put(&format!("{}/{}", secrets_path(context, &scope)?, encode(&name)), &body).await?;
            print_stderr(&format!("secret {name} is set"));
            if let Some(weakness) = set.weakness {
                print_stderr(&format!("warning: {weakness}"));
            }
        }
        SecretCommand::Remove { name, scope } => {
            let path = format!("{}/{}", secrets_path(context, &scope)?, encode(&name));
            client.change(Method::DELETE, &path, None::<&()>).await?;
            print_stderr(&format!("secret {name} is removed"));
        }
    }
    Ok(Exit::Ok)
}

fn secrets_path(context: &Context, scope: &Scope) -> Result<String, Failure> {
    Ok(if scope.instance {
        format!("{API_PREFIX}/secrets")
    } else {
        format!("{}/secrets", api_repository(&context.target.repository()?))
    })
}

/// From a file byte for byte; from stdin without the line's end that `echo` adds; from a person without showing it.
fn read_value(file: Option<PathBuf>) -> Result<String, Failure> {
    if let Some(path) = file {
        return std::fs::read_to_string(&path)
            .map_err(|error| Failure::new(Exit::NotFound, format!("{}: {error}", path.display())));
    }
    if io::stdin().is_terminal() {
        return login::prompt_hidden("value: ");
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text.strip_suffix('\n').map_or(text.clone(), |text| text.strip_suffix('\r').unwrap_or(text).to_owned()))
}
