//! `beespace delivery`: what Gogs sent, and what came of it.

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Context, say, table};
use crate::address::{API, encode};
use crate::api::delivery::DeliveryBody;

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
            let all: Vec<DeliveryBody> = client.get(&format!("{API}/deliveries?limit={limit}")).await?;
            table::list(context.output, &all, ["id", "repository", "event", "received", "fate", "build or reason"], |body| {
                [
                    body.id.clone(),
                    body.repository.clone(),
                    body.event.clone(),
                    body.received_at.clone(),
                    body.fate.clone(),
                    body.place.clone().or_else(|| body.reason.clone()).unwrap_or_default(),
                ]
            })?;
        }
        DeliveryCommand::Show { id } => {
            table::one(&client.get::<DeliveryBody>(&format!("{API}/deliveries/{}", encode(&id))).await?)?;
        }
        DeliveryCommand::Replay { id } => {
            let body: DeliveryBody = client.post(&format!("{API}/deliveries/{}/replay", encode(&id)), &()).await?;
            say(&format!("delivery {} goes its way again", body.id));
        }
    }
    Ok(Exit::Ok)
}
