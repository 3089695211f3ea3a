//! What the commands about one build share: its address, how it is called, what is asked of it, how the command ends.

use beespace_core::outcome::Reason;
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

/// `acme/app #12`; with its id while nobody knows whether there is a pipeline file, and it has no number.
pub(super) fn build_name(build: &BuildBody) -> String {
    match build.number {
        Some(number) => format!("{} #{number}", build.repository),
        None => format!("{} {}", build.repository, build.id),
    }
}

/// A reason at the end of a line; nothing where there is none.
pub(super) fn reason_suffix(reason: Option<&Reason>) -> String {
    reason.map_or_else(String::new, |reason| format!("  {}", sanitize::line(&reason.to_string())))
}

/// A build that did not succeed makes the command fail, so that scripts can go by it.
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
    says: &str,
) -> Result<Exit, Failure> {
    let build: BuildBody = client.post(&format!("{}/{verb}", build_path(context, build)?), body).await?;
    if context.output == Output::Json {
        table::print_json(&build)?;
    } else {
        print_stderr(&format!("{} {says}: {}", build_name(&build), client.page_url(&build.href)));
    }
    Ok(Exit::Ok)
}
