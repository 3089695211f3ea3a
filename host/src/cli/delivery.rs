//! `beespace delivery`: lists, shows and retries webhook deliveries.

use beespace_core::ids::DeliveryId;
use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::queue_commands::Collection;
use super::{Context, print_stderr, table, times, values};
use crate::api::delivery::DeliveryBody;
use crate::clock::now;

#[derive(Debug, Subcommand)]
pub enum DeliveryCommand {
    /// List deliveries, newest first
    List {
        /// Only deliveries with this outcome
        #[arg(long, value_parser = values::delivery_outcome())]
        outcome: Option<String>,
        /// Maximum number of deliveries
        #[arg(long, default_value_t = 20, value_parser = values::limit())]
        limit: usize,
    },
    /// Show a delivery with its payload
    Show {
        /// Id of the delivery, see `delivery list`
        #[arg(value_parser = values::delivery_id)]
        id: DeliveryId,
    },
    /// Retry a delivery that was ignored or is a dead letter
    Retry {
        /// Id of the delivery, see `delivery list`
        #[arg(value_parser = values::delivery_id)]
        id: DeliveryId,
    },
}

/// # Errors
/// [`Failure`] if the server is unreachable or refuses.
pub async fn run(context: &Context, command: DeliveryCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    let deliveries = Collection { client: &client, name: "deliveries" };
    match command {
        DeliveryCommand::List { outcome, limit } => {
            let all: Vec<DeliveryBody> = deliveries.list(limit, outcome.as_deref()).await?;
            let now = now();
            let header = ["id", "repository", "event", "received", "outcome", "build or reason"];
            table::print_list(context.output, &all, header, |body| {
                [
                    body.id.clone(),
                    body.repository.clone(),
                    body.event.clone(),
                    times::age(&body.received_at, now),
                    body.outcome.clone(),
                    body.build_label.clone().or_else(|| body.reason.clone()).unwrap_or_default(),
                ]
            })?;
        }
        DeliveryCommand::Show { id } => deliveries.show::<DeliveryBody>(&id.to_string()).await?,
        DeliveryCommand::Retry { id } => {
            let body: DeliveryBody = deliveries.retry(&id.to_string()).await?;
            print_stderr(&format!("delivery {} queued again at {}", body.id, client.url()));
        }
    }
    Ok(Exit::Ok)
}
