//! `beespace notice`: lists, shows and retries notices.

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::queue_commands::Collection;
use super::{Context, print_stderr, table};
use crate::api::notice::NoticeBody;

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
    /// Retry a notice that is a dead letter or suspended
    Retry {
        /// Id of the notice, see `notice list`
        id: String,
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
                        body.next_attempt_at.clone().unwrap_or_default(),
                        body.last_error.clone().unwrap_or_default(),
                    ]
                },
            )?;
        }
        NoticeCommand::Show { id } => notices.show::<NoticeBody>(&id).await?,
        NoticeCommand::Retry { id } => {
            let body: NoticeBody = notices.retry(&id).await?;
            print_stderr(&format!("notice {} queued again for notifier {} at {}", body.id, body.notifier, client.url()));
        }
    }
    Ok(Exit::Ok)
}
