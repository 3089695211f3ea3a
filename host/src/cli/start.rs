//! `beespace build start`, `promote` and `rollback`: start a build without an event of Gogs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::build_common::{BuildName, build_name, build_path};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, print_stderr, table};
use crate::api::dto::BuildBody;
use crate::api::start::{DeployBody, StartBody};
use crate::urls::api_repository;

/// The commit to build, and the values for the params.
#[derive(Debug, Clone, clap::Args)]
pub struct StartArgs {
    /// Build the newest commit of this branch [default: the default branch]
    #[arg(long, group = "revision")]
    branch: Option<String>,
    /// Build this tag
    #[arg(long, group = "revision")]
    tag: Option<String>,
    /// Build this commit, 40 hex digits
    #[arg(long, group = "revision")]
    sha: Option<String>,
    #[command(flatten)]
    params: ParamArgs,
}

/// The build whose commit is built again, and its target.
#[derive(Debug, Clone, clap::Args)]
pub struct DeployArgs {
    /// Number or id of the successful build, or `latest`
    build: BuildName,
    /// Target, for example `production`; pipelines choose it with `when: { target: … }`
    target: String,
    #[command(flatten)]
    params: ParamArgs,
}

/// Values for the `params` of the pipeline file.
#[derive(Debug, Clone, clap::Args)]
pub struct ParamArgs {
    /// Value for a param of the pipeline file; can be repeated
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, String)>,
}

impl ParamArgs {
    /// The values as the API takes them; the last one counts if a name is repeated.
    pub(super) fn into_body(self) -> BTreeMap<String, Value> {
        self.params.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
    }
}

fn param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn start(context: &Context, client: &Client, args: StartArgs) -> Result<Exit, Failure> {
    let StartArgs { branch, tag, sha, params } = args;
    let body = StartBody { branch, tag, sha, params: params.into_body() };
    let path = format!("{}/builds", api_repository(&context.target.repository()?));
    let build: BuildBody = client.post(&path, &body).await?;
    report(context, client, &build)
}

/// Promotes or rolls back, as `verb` says.
pub(super) async fn deploy(context: &Context, client: &Client, verb: &str, args: DeployArgs) -> Result<Exit, Failure> {
    let DeployArgs { build, target, params } = args;
    let body = DeployBody { target, params: params.into_body() };
    let build: BuildBody = client.post(&format!("{}/{verb}", build_path(context, client, build).await?), &body).await?;
    report(context, client, &build)
}

/// Prints the number and the page of a build that was started.
pub(super) fn report(context: &Context, client: &Client, build: &BuildBody) -> Result<Exit, Failure> {
    print_stderr(&format!("started {}: {}", build_name(build), client.page_url(&build.href)));
    if context.output == Output::Json {
        table::print_json(build)?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_param_is_split_at_its_first_equals_sign() {
        assert_eq!(param("url=a=b"), Ok(("url".to_owned(), "a=b".to_owned())));
        assert_eq!(param("empty="), Ok(("empty".to_owned(), String::new())));
        assert!(param("level").is_err());
    }
}
