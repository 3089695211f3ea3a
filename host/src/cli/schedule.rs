//! `beespace schedule`: lists, sets, removes and runs schedules.

use clap::Subcommand;
use reqwest::Method;

use super::exit::{Exit, Failure};
use super::start::{self, ParamArgs};
use super::times::timestamp;
use super::{Context, print_stderr, table};
use crate::api::dto::BuildBody;
use crate::api::schedule::{ScheduleBody, ScheduleSetBody};
use crate::clock::now;
use crate::urls::{api_repository, encode};
use crate::view::time;

#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List the schedules of a repository with their next times
    List,
    /// Set a schedule that builds the newest commit of a branch
    Set(SetArgs),
    /// Remove a schedule; one of the pipeline file is removed there
    Remove {
        /// Name of the schedule
        name: String,
    },
    /// Start a build of a schedule now
    Run {
        /// Name of the schedule
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// Name of the schedule; pipelines choose it with `when: { cron: … }`
    name: String,
    /// Times: five fields such as `0 3 * * *`, or `@daily`
    cron: String,
    /// Time zone, for example `Europe/Berlin` [default: UTC]
    #[arg(long)]
    zone: Option<String>,
    /// Branch to build [default: the default branch]
    #[arg(long)]
    branch: Option<String>,
    /// Keep the schedule, but start no builds
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    params: ParamArgs,
}

/// # Errors
/// [`Failure`] if the server is unreachable or refuses.
pub async fn run(context: &Context, command: ScheduleCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    let base = format!("{}/schedules", api_repository(&context.target.repository()?));
    match command {
        ScheduleCommand::List => {
            let all: Vec<ScheduleBody> = client.get(&base).await?;
            print_list(context, &all)?;
        }
        ScheduleCommand::Set(SetArgs { name, cron, zone, branch, disabled, params }) => {
            let body = ScheduleSetBody { cron, zone, branch, params: params.into_body(), enabled: !disabled };
            let set: ScheduleBody = client.put(&format!("{base}/{}", encode(&name)), &body).await?;
            let next = set.next_at.as_deref().map_or_else(|| "disabled".to_owned(), |next| format!("next build at {next}"));
            print_stderr(&format!("schedule {} set: {next}", set.name));
        }
        ScheduleCommand::Remove { name } => {
            client.execute(Method::DELETE, &format!("{base}/{}", encode(&name)), None::<&()>).await?;
            print_stderr(&format!("schedule {name} removed"));
        }
        ScheduleCommand::Run { name } => {
            let build: BuildBody = client.post(&format!("{base}/{}/run", encode(&name)), &()).await?;
            return start::report(context, &client, &build);
        }
    }
    Ok(Exit::Ok)
}

fn print_list(context: &Context, all: &[ScheduleBody]) -> Result<(), Failure> {
    let now = now();
    table::print_list(context.output, all, ["name", "times", "zone", "branch", "next", "last", "set in"], |body| {
        let last = body.last_at.as_deref().and_then(timestamp).map_or_else(|| "never".to_owned(), |at| time::ago(at, now));
        [
            body.name.clone(),
            body.cron.clone(),
            body.zone.clone(),
            body.branch.clone().unwrap_or_else(|| "default".to_owned()),
            body.next_at.clone().unwrap_or_else(|| "disabled".to_owned()),
            last,
            if body.origin == "file" { "pipeline file".to_owned() } else { "server".to_owned() },
        ]
    })
}
