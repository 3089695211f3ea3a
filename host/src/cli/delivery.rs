//! `beespace delivery`: lists, shows and retries webhook deliveries.

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Context, print_stderr, table};
use crate::api::delivery::DeliveryBody;
use crate::urls::{API_PREFIX, encode};

#[derive(Debug, Subcommand)]
pub enum DeliveryCommand {
    /// List deliveries, newest first
    List {
        /// Maximum number of deliveries
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show a delivery with its payload
    Show {
        /// Id of the delivery, see `delivery list`
        id: String,
    },
    /// Reprocess a delivery that was ignored or is a dead letter
    Retry {
        /// Id of the delivery, see `delivery list`
        id: String,
    },
}

/// # Errors
/// [`Failure`] if the server is unreachable or refuses.
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
        DeliveryCommand::Retry { id } => {
            let body: DeliveryBody = client.post(&format!("{API_PREFIX}/deliveries/{}/retry", encode(&id)), &()).await?;
            print_stderr(&format!("delivery {} queued again", body.id));
        }
    }
    Ok(Exit::Ok)
}
