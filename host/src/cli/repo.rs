//! `beespace repo`: enables, repairs and disables repositories.

use beespace_core::ids::RepositoryName;
use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, print_stderr, table, times};
use crate::api::repository::{EnableBody, RepositoryBody};
use crate::clock::now;
use crate::urls::{API_PREFIX, api_repository};

#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Enable builds for a repository: create its webhook in Gogs
    Enable {
        /// Repository, `OWNER/NAME` [default: the git remote `origin` of the current directory]
        name: Option<RepositoryName>,
    },
    /// List all repositories that are or were enabled
    List,
    /// Disable builds for a repository: remove its webhook, keep its builds
    Disable {
        /// Repository, `OWNER/NAME` [default: the git remote `origin` of the current directory]
        name: Option<RepositoryName>,
    },
    /// Recreate the webhook with a new secret
    Repair {
        /// Repository, `OWNER/NAME` [default: the git remote `origin` of the current directory]
        name: Option<RepositoryName>,
    },
}

/// # Errors
/// [`Failure`] if no repository is given, or the server or Gogs refuses.
pub async fn run(context: &Context, command: RepoCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    let named = |name: Option<RepositoryName>| name.map_or_else(|| context.target.repository(), Ok);
    match command {
        RepoCommand::List => {
            let all: Vec<RepositoryBody> = client.get(&format!("{API_PREFIX}/repositories")).await?;
            let now = now();
            table::print_list(context.output, &all, ["name", "state", "branch", "since"], |body| {
                let state = if body.is_enabled { "enabled" } else { "disabled" };
                [body.name.clone(), state.to_owned(), body.default_branch.clone(), times::age(&body.enabled_at, now)]
            })?;
        }
        RepoCommand::Enable { name } => {
            let name = named(name)?;
            let body: RepositoryBody =
                client.post(&format!("{API_PREFIX}/repositories"), &EnableBody { name: name.to_string() }).await?;
            print_repository(context, &body, &format!("{name} enabled: {}", client.page_url(&body.href)))?;
        }
        RepoCommand::Disable { name } => {
            let name = named(name)?;
            client.execute(reqwest::Method::DELETE, &api_repository(&name), None::<&()>).await?;
            print_stderr(&format!("{name} disabled at {}; its builds are kept", client.url()));
        }
        RepoCommand::Repair { name } => {
            let name = named(name)?;
            let body: RepositoryBody = client.post(&format!("{}/repair", api_repository(&name)), &()).await?;
            let server = client.url();
            print_repository(
                context,
                &body,
                &format!("{name} has a new webhook and secret at {server}; the old secret stays valid for one day"),
            )?;
        }
    }
    Ok(Exit::Ok)
}

fn print_repository(context: &Context, body: &RepositoryBody, message: &str) -> Result<(), Failure> {
    print_stderr(message);
    if context.output == Output::Json { table::print_json(body) } else { Ok(()) }
}
