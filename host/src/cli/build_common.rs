//! Functions that the commands for one build share: its API path, its name in messages, actions on it, and the exit code.

use beespace_core::reason::Reason;
use beespace_core::sanitize;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, print_stderr, table};
use crate::api::dto::{ApprovalAnswerBody, BuildBody};
use crate::urls::{BuildKey, api_build};

pub(super) fn build_path(context: &Context, build: BuildKey) -> Result<String, Failure> {
    Ok(api_build(&context.target.repository()?, build))
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
    build: BuildKey,
    verb: &str,
    body: &ApprovalAnswerBody,
    outcome: &str,
) -> Result<Exit, Failure> {
    let build: BuildBody = client.post(&format!("{}/{verb}", build_path(context, build)?), body).await?;
    if context.output == Output::Json {
        table::print_json(&build)?;
    } else {
        print_stderr(&format!("{} {outcome}: {}", build_name(&build), client.page_url(&build.href)));
    }
    Ok(Exit::Ok)
}
