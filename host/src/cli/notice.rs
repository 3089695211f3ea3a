//! `beespace notice`: what people were told, and whether it arrived.

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Context, print_stderr, table};
use crate::api::notice::NoticeBody;
use crate::urls::{API_PREFIX, encode};

#[derive(Debug, Subcommand)]
pub enum NoticeCommand {
    /// Notices, newest first
    List {
        /// pending, sent, dead or suspended
        #[arg(long)]
        state: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// One notice, with what it tells
    Show {
        /// Its id, as `notice list` shows it
        id: String,
    },
    /// Send a notice that was given up once more
    Replay {
        /// Its id, as `notice list` shows it
        id: String,
    },
}

/// # Errors
/// [`Failure`], to be said and exited with.
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
        NoticeCommand::Replay { id } => {
            let body: NoticeBody = client.post(&format!("{API_PREFIX}/notices/{}/retry", encode(&id)), &()).await?;
            print_stderr(&format!("notice {} goes out again through {}", body.id, body.notifier));
        }
    }
    Ok(Exit::Ok)
}
