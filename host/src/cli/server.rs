//! `beespace server`: runs the server until it receives a stop signal.

use super::config::{ConfigArgs, load};
use super::exit::{Exit, Failure};
use crate::server::{self, StartError};
use crate::telemetry::{self, LogFormat};

#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Format of the server's log
    #[arg(long, env = "BEESPACE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Log filter, for example `info,beespace=debug`
    #[arg(long, env = "BEESPACE_LOG", default_value = "info", value_parser = telemetry::check_filter)]
    log: String,
}

/// # Errors
/// [`Failure`] if the configuration is invalid or the server cannot start.
pub fn run(args: &ServerArgs) -> Result<Exit, Failure> {
    telemetry::start(args.log_format, &args.log);
    let config = load(&args.config)?.config;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(server::serve(config));
    // A hanging blocking call must not delay the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    served.map_err(|error| start_failure(&error))?;
    tracing::info!("the server has stopped");
    Ok(Exit::Ok)
}

fn start_failure(error: &anyhow::Error) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("{error:#}"));
    match error.downcast_ref::<StartError>() {
        Some(start) => failure.help(&start.help),
        None => failure,
    }
}
