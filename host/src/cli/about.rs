//! What the commands about one build share: its address, how it is called, what is asked of it, how the command ends.

use beespace_core::visible;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, say, table};
use crate::address::{BuildKey, api_build};
use crate::api::body::{BuildBody, Reason, WordBody};

pub(super) fn path(context: &Context, build: BuildKey) -> Result<String, Failure> {
    Ok(api_build(&context.target.repository()?, build))
}

/// `acme/app #12`; with its id while nobody knows whether there is a pipeline file, and it has no number.
pub(super) fn place(build: &BuildBody) -> String {
    match build.number {
        Some(number) => format!("{} #{number}", build.repository),
        None => format!("{} {}", build.repository, build.id),
    }
}

/// A reason at the end of a line; nothing where there is none.
pub(super) fn why(reason: Option<&Reason>) -> String {
    reason.map_or_else(String::new, |reason| format!("  {}", visible::line(&reason.to_string())))
}

/// A build that did not succeed makes the command fail, so that scripts can go by it.
pub(super) fn exit_of(status: &str) -> Exit {
    match status {
        "failure" | "error" | "killed" => Exit::Failed,
        "declined" => Exit::Refused,
        _ => Exit::Ok,
    }
}

pub(super) async fn act(
    context: &Context,
    client: &Client,
    build: BuildKey,
    verb: &str,
    body: &WordBody,
    says: &str,
) -> Result<Exit, Failure> {
    let build: BuildBody = client.post(&format!("{}/{verb}", path(context, build)?), body).await?;
    if context.output == Output::Json {
        table::one(&build)?;
    } else {
        say(&format!("{} {says}: {}", place(&build), client.page(&build.href)));
    }
    Ok(Exit::Ok)
}
