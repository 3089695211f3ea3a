//! `beespace repo`: which repositories build here.

use beespace_core::ids::RepositoryName;
use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, print_stderr, table};
use crate::api::repository::{EnableBody, RepositoryBody};
use crate::urls::{API_PREFIX, api_repository};

#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Build pushes to a repository: makes its hook in Gogs
    Enable {
        /// `OWNER/NAME`; else the one of the git remote `origin` here
        name: Option<RepositoryName>,
    },
    /// All repositories that build here, or did
    List,
    /// Build pushes no more: removes the hook, keeps the builds
    Disable {
        /// `OWNER/NAME`; else the one of the git remote `origin` here
        name: Option<RepositoryName>,
    },
    /// Make the hook anew, with a new secret
    Repair {
        /// `OWNER/NAME`; else the one of the git remote `origin` here
        name: Option<RepositoryName>,
    },
}

/// # Errors
/// [`Failure`], to be said and exited with.
pub async fn run(context: &Context, command: RepoCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    let named = |name: Option<RepositoryName>| name.map_or_else(|| context.target.repository(), Ok);
    match command {
        RepoCommand::List => {
            let all: Vec<RepositoryBody> = client.get(&format!("{API_PREFIX}/repositories")).await?;
            table::print_list(context.output, &all, ["name", "state", "branch", "since"], |body| {
                let state = if body.is_enabled { "enabled" } else { "disabled" };
                [body.name.clone(), state.to_owned(), body.default_branch.clone(), body.enabled_at.clone()]
            })?;
        }
        RepoCommand::Enable { name } => {
            let name = named(name)?;
            let body: RepositoryBody =
                client.post(&format!("{API_PREFIX}/repositories"), &EnableBody { name: name.to_string() }).await?;
            print_repository(context, &body, &format!("{name} builds here from now on: {}", client.page_url(&body.href)))?;
        }
        RepoCommand::Disable { name } => {
            let name = named(name)?;
            client.change(reqwest::Method::DELETE, &api_repository(&name), None::<&()>).await?;
            print_stderr(&format!("{name} builds here no more; its builds stay"));
        }
        RepoCommand::Repair { name } => {
            let name = named(name)?;
            let body: RepositoryBody = client.post(&format!("{}/repair", api_repository(&name)), &()).await?;
            print_repository(
                context,
                &body,
                &format!("{name} has a new hook with a new secret; the old one stays good for a day"),
            )?;
        }
    }
    Ok(Exit::Ok)
}

fn print_repository(context: &Context, body: &RepositoryBody, words: &str) -> Result<(), Failure> {
    if context.output == Output::Json {
        return table::print_json(body);
    }
    print_stderr(words);
    Ok(())
}
