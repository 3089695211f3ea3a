//! Functions that the commands for one build share: its API path, its name in messages, actions on it, and the exit code.

use std::str::FromStr;

use beespace_core::ids::RepositoryName;
use beespace_core::reason::Reason;
use beespace_core::sanitize;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, print_stderr, table};
use crate::api::dto::{ApprovalAnswerBody, BuildBody};
use crate::urls::{BuildKey, api_build, api_repository};

/// A build as commands name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildName {
    /// The newest build of the repository.
    Latest,
    Key(BuildKey),
}

impl FromStr for BuildName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latest" => Ok(Self::Latest),
            _ => text.parse().map(Self::Key).map_err(|_| format!("{text:?} is not a build: use its number, its id, or `latest`")),
        }
    }
}

/// The API path of a build.
///
/// # Errors
/// [`Failure`] if no repository is given, or it has no builds and `latest` is requested.
pub(super) async fn build_path(context: &Context, client: &Client, build: BuildName) -> Result<String, Failure> {
    let repository = context.target.repository()?;
    let key = match build {
        BuildName::Key(key) => key,
        BuildName::Latest => latest(client, &repository).await?,
    };
    Ok(api_build(&repository, key))
}

/// The newest build of a repository by its id, which does not change while the build gets its number.
async fn latest(client: &Client, repository: &RepositoryName) -> Result<BuildKey, Failure> {
    let newest: Vec<BuildBody> = client.get(&format!("{}/builds?limit=1", api_repository(repository))).await?;
    let id = newest.first().and_then(|build| build.id.parse().ok());
    id.ok_or_else(|| Failure::new(Exit::NotFound, format!("{repository} has no builds")).help("push a commit to it"))
}

/// The first seven digits of the commit; empty while it is unknown.
pub(super) fn short_sha(build: &BuildBody) -> &str {
    build.sha.as_deref().and_then(|sha| sha.get(..7)).unwrap_or_default()
}

/// `acme/app #12`. A build gets its number when its pipeline file has been found; until then the name contains its id.
pub(super) fn build_name(build: &BuildBody) -> String {
    match build.number {
        Some(number) => format!("{} #{number}", build.repository),
        None => format!("{} {}", build.repository, build.id),
    }
}

/// A reason to append to a line; empty if there is none.
pub(super) fn reason_suffix(reason: Option<&Reason>) -> String {
    reason.map_or_else(String::new, |reason| format!("  {}", sanitize::line(&reason.to_string())))
}

/// The exit code for a build's status, so that scripts can test it.
pub(super) fn exit_for_status(status: &str) -> Exit {
    match status {
        "failure" | "error" | "killed" => Exit::Failed,
        "declined" => Exit::Refused,
        _ => Exit::Ok,
    }
}

pub(super) async fn post_action(
    context: &Context,
    client: &Client,
    build: BuildName,
    verb: &str,
    body: &ApprovalAnswerBody,
    outcome: &str,
) -> Result<Exit, Failure> {
    let build: BuildBody = client.post(&format!("{}/{verb}", build_path(context, client, build).await?), body).await?;
    print_stderr(&format!("{} {outcome}: {}", build_name(&build), client.page_url(&build.href)));
    if context.output == Output::Json {
        table::print_json(&build)?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_named_by_its_number_its_id_or_latest() {
        assert_eq!("latest".parse(), Ok(BuildName::Latest));
        assert_eq!("7".parse(), Ok(BuildName::Key(BuildKey::Number(7))));
        assert!("newest".parse::<BuildName>().unwrap_err().contains("`latest`"));
    }
}
