//! `beespace build`: look at builds, and act on them.

use beespace_core::visible;
use clap::Subcommand;

use super::about::{act, exit_of, path, place, why};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::word::{self, WordArgs};
use super::{Context, log, put, table};
use crate::address::{API, BuildKey, api_repository};
use crate::api::body::{BuildBody, WordBody};

#[derive(Debug, Subcommand)]
pub enum BuildCommand {
    /// Builds, newest first; of one repository with --repo
    List {
        /// Those of this status: pending, running, blocked, success, failure, …
        #[arg(long)]
        status: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// One build: why it stands as it does, its stages and steps
    Show {
        /// Its number, or its id
        build: BuildKey,
    },
    /// The logs of a build, or of one step
    Log {
        /// Its number, or its id
        build: BuildKey,
        /// The step, by name or number; all where none is given
        step: Option<String>,
        /// Stay until the build is over
        #[arg(short, long)]
        follow: bool,
    },
    /// Build the same event once more
    Restart {
        /// Its number, or its id
        build: BuildKey,
    },
    /// Stop a build
    Cancel {
        /// Its number, or its id
        build: BuildKey,
    },
    /// Say yes to what waits for a person's word
    Approve(WordArgs),
    /// Say no to what waits for a person's word
    Decline(WordArgs),
}

/// # Errors
/// [`Failure`], to be said and exited with.
pub async fn run(context: &Context, command: BuildCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        BuildCommand::List { status, limit } => list(context, &client, status, limit).await,
        BuildCommand::Show { build } => {
            let build: BuildBody = client.get(&path(context, build)?).await?;
            show(context, &client, &build)
        }
        BuildCommand::Log { build, step, follow } => log::run(&client, &path(context, build)?, step.as_deref(), follow).await,
        BuildCommand::Restart { build } => {
            act(context, &client, build, "restart", &WordBody::default(), "builds once more").await
        }
        BuildCommand::Cancel { build } => act(context, &client, build, "cancel", &WordBody::default(), "is being stopped").await,
        BuildCommand::Approve(args) => word::approve(context, &client, args).await,
        BuildCommand::Decline(args) => word::decline(context, &client, args).await,
    }
}

async fn list(context: &Context, client: &Client, status: Option<String>, limit: usize) -> Result<Exit, Failure> {
    let base = match &context.target.repo {
        Some(name) => format!("{}/builds", api_repository(name)),
        None => format!("{API}/builds"),
    };
    let status = status.map_or_else(String::new, |status| format!("&status={}", crate::address::encode(&status)));
    let builds: Vec<BuildBody> = client.get(&format!("{base}?limit={limit}{status}")).await?;
    table::list(context.output, &builds, ["repository", "build", "status", "branch", "commit", "by", "title"], |build| {
        [
            build.repository.clone(),
            build.number.map_or_else(|| build.id.clone(), |number| number.to_string()),
            build.status.clone(),
            build.branch.clone().unwrap_or_default(),
            build.sha.get(..7).unwrap_or_default().to_owned(),
            build.actor.clone(),
            build.title.clone(),
        ]
    })?;
    Ok(Exit::Ok)
}

fn show(context: &Context, client: &Client, build: &BuildBody) -> Result<Exit, Failure> {
    if context.output == Output::Json {
        table::one(build)?;
        return Ok(exit_of(&build.status));
    }
    put(&format!("{}  {}  {}", place(build), build.status, visible::line(&build.title)))?;
    put(&format!("{} by {}  {}", build.sha.get(..7).unwrap_or_default(), visible::line(&build.actor), client.page(&build.href)))?;
    for text in build.reason.iter().map(ToString::to_string).chain(build.diagnostics.iter().cloned()) {
        put(&format!("  {}", visible::line(&text)))?;
    }
    for stage in &build.stages {
        put(&format!("\n{}  {}{}", visible::line(&stage.name), stage.status, why(stage.reason.as_ref())))?;
        for approval in &stage.approvals {
            if approval.missing.is_empty() {
                continue;
            }
            put(&format!(
                "  {} waits for a word: {}",
                visible::line(&approval.what),
                visible::line(&approval.missing.join("; "))
            ))?;
            for line in approval.runs.iter().chain([&approval.subject]) {
                put(&format!("    {}", visible::line(line)))?;
            }
        }
        for step in &stage.steps {
            put(&format!(
                "  {:>2}  {:<8}  {}{}",
                step.number,
                step.status,
                visible::line(&step.name),
                why(step.reason.as_ref())
            ))?;
        }
    }
    Ok(exit_of(&build.status))
}
