//! `beespace notice`: lists, shows and retries notices.

use beespace_core::ids::NoticeId;
use clap::Subcommand;
use reqwest::Method;

use super::exit::{Exit, Failure};
use super::queue_commands::Collection;
use super::{Context, print_stderr, table, times, values};
use crate::api::notice::NoticeBody;
use crate::clock::now;
use crate::urls::{API_PREFIX, encode};

#[derive(Debug, Subcommand)]
pub enum NoticeCommand {
    /// List notices, newest first
    List {
        /// Only notices in this state
        #[arg(long, value_parser = values::notice_state())]
        state: Option<String>,
        /// Maximum number of notices
        #[arg(long, default_value_t = 20, value_parser = values::limit())]
        limit: usize,
    },
    /// Show a notice with its content
    Show {
        /// Id of the notice, see `notice list`
        #[arg(value_parser = values::notice_id)]
        id: NoticeId,
    },
    /// Send a notice again, or all waiting notices of a notifier at once
    Retry {
        /// Id of the notice, see `notice list`
        #[arg(required_unless_present = "notifier", conflicts_with = "notifier", value_parser = values::notice_id)]
        id: Option<NoticeId>,
        /// Send all notices of this notifier that are suspended or waiting for their next attempt
        #[arg(long, value_name = "NAME")]
        notifier: Option<String>,
    },
}

/// # Errors
/// [`Failure`] if the server is unreachable or refuses.
pub async fn run(context: &Context, command: NoticeCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    let notices = Collection { client: &client, name: "notices" };
    match command {
        NoticeCommand::List { state, limit } => {
            let all: Vec<NoticeBody> = notices.list(limit, state.as_deref()).await?;
            let now = now();
            table::print_list(
                context.output,
                &all,
                ["id", "build", "kind", "notifier", "state", "attempts", "next", "error"],
                |body| {
                    [
                        body.id.clone(),
                        body.build_label.clone().unwrap_or_else(|| "removed".to_owned()),
                        body.kind.clone(),
                        body.notifier.clone(),
                        body.state.clone(),
                        body.attempts.to_string(),
                        times::until(body.next_attempt_at.as_deref(), now),
                        body.last_error.clone().unwrap_or_default(),
                    ]
                },
            )?;
        }
        NoticeCommand::Show { id } => notices.show::<NoticeBody>(&id.to_string()).await?,
        NoticeCommand::Retry { id: Some(id), .. } => {
            let body: NoticeBody = notices.retry(&id.to_string()).await?;
            print_stderr(&format!("notice {} queued again for notifier {} at {}", body.id, body.notifier, client.url()));
        }
        NoticeCommand::Retry { id: None, notifier } => {
            let name = notifier.unwrap_or_default();
            client.execute(Method::POST, &format!("{API_PREFIX}/notifiers/{}/retry", encode(&name)), None::<&()>).await?;
            print_stderr(&format!("all waiting notices of notifier {name} are sent now by {}", client.url()));
        }
    }
    Ok(Exit::Ok)
}
