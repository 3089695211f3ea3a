//! `beespace delivery`: what Gogs sent, and what came of it.

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Context, print_stderr, table};
use crate::api::delivery::DeliveryBody;
use crate::urls::{API_PREFIX, encode};

#[derive(Debug, Subcommand)]
pub enum DeliveryCommand {
    /// Deliveries, newest first
    List {
        /// How many at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// One delivery, with what Gogs sent
    Show {
        /// Its id, as `delivery list` shows it
        id: String,
    },
    /// Let a delivery that has no build go its way again
    Replay {
        /// Its id, as `delivery list` shows it
        id: String,
    },
}

/// # Errors
/// [`Failure`], to be said and exited with.
pub async fn run(context: &Context, command: DeliveryCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        DeliveryCommand::List { limit } => {
            let all: Vec<DeliveryBody> = client.get(&format!("{API_PREFIX}/deliveries?limit={limit}")).await?;
            table::print_list(
                context.output,
                &all,
                ["id", "repository", "event", "received", "fate", "build or reason"],
                |body| {
                    [
                        body.id.clone(),
                        body.repository.clone(),
                        body.event.clone(),
                        body.received_at.clone(),
                        body.outcome.clone(),
                        body.build_label.clone().or_else(|| body.reason.clone()).unwrap_or_default(),
                    ]
                },
            )?;
        }
        DeliveryCommand::Show { id } => {
            table::print_json(&client.get::<DeliveryBody>(&format!("{API_PREFIX}/deliveries/{}", encode(&id))).await?)?;
        }
        DeliveryCommand::Replay { id } => {
            let body: DeliveryBody = client.post(&format!("{API_PREFIX}/deliveries/{}/retry", encode(&id)), &()).await?;
            print_stderr(&format!("delivery {} goes its way again", body.id));
        }
    }
    Ok(Exit::Ok)
}
