//! `beespace notice`: lists, shows and retries notices.

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Context, print_stderr, table};
use crate::api::notice::NoticeBody;
use crate::urls::{API_PREFIX, encode};

#[derive(Debug, Subcommand)]
pub enum NoticeCommand {
    /// List notices, newest first
    List {
        /// Only notices in this state: pending, sent, dead_letter or suspended
        #[arg(long)]
        state: Option<String>,
        /// Maximum number of notices
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show a notice with its content
    Show {
        /// Id of the notice, see `notice list`
        id: String,
    },
    /// Send a dead letter or a suspended notice again
    Retry {
        /// Id of the notice, see `notice list`
        id: String,
    },
}

/// # Errors
/// [`Failure`] if the server is unreachable or refuses.
pub async fn run(context: &Context, command: NoticeCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        NoticeCommand::List { state, limit } => {
            let state = state.map_or_else(String::new, |state| format!("&status={}", encode(&state)));
            let all: Vec<NoticeBody> = client.get(&format!("{API_PREFIX}/notices?limit={limit}{state}")).await?;
            table::print_list(context.output, &all, ["id", "kind", "notifier", "state", "attempts", "error"], |body| {
                [
                    body.id.clone(),
                    body.kind.clone(),
                    body.notifier.clone(),
                    body.state.clone(),
                    body.attempts.to_string(),
                    body.last_error.clone().unwrap_or_default(),
                ]
            })?;
        }
        NoticeCommand::Show { id } => {
            table::print_json(&client.get::<NoticeBody>(&format!("{API_PREFIX}/notices/{}", encode(&id))).await?)?;
        }
        NoticeCommand::Retry { id } => {
            let body: NoticeBody = client.post(&format!("{API_PREFIX}/notices/{}/retry", encode(&id)), &()).await?;
            print_stderr(&format!("notice {} queued again for notifier {}", body.id, body.notifier));
        }
    }
    Ok(Exit::Ok)
}
