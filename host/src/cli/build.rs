//! `beespace build`: look at builds, and act on them.

use beespace_core::sanitize;
use clap::Subcommand;

use super::approve::{self, ApprovalArgs};
use super::build_common::{build_name, build_path, exit_for_status, post_action, reason_suffix};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, log, print_stdout, table};
use crate::api::dto::{ApprovalAnswerBody, BuildBody};
use crate::urls::{API_PREFIX, BuildKey, api_repository};

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
    Approve(ApprovalArgs),
    /// Say no to what waits for a person's word
    Decline(ApprovalArgs),
}

/// # Errors
/// [`Failure`], to be said and exited with.
pub async fn run(context: &Context, command: BuildCommand) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        BuildCommand::List { status, limit } => list(context, &client, status, limit).await,
        BuildCommand::Show { build } => {
            let build: BuildBody = client.get(&build_path(context, build)?).await?;
            show(context, &client, &build)
        }
        BuildCommand::Log { build, step, follow } => {
            log::run(&client, &build_path(context, build)?, step.as_deref(), follow).await
        }
        BuildCommand::Restart { build } => {
            post_action(context, &client, build, "restart", &ApprovalAnswerBody::default(), "builds once more").await
        }
        BuildCommand::Cancel { build } => {
            post_action(context, &client, build, "cancel", &ApprovalAnswerBody::default(), "is being stopped").await
        }
        BuildCommand::Approve(args) => approve::approve(context, &client, args).await,
        BuildCommand::Decline(args) => approve::decline(context, &client, args).await,
    }
}

async fn list(context: &Context, client: &Client, status: Option<String>, limit: usize) -> Result<Exit, Failure> {
    let base = match &context.target.repo {
        Some(name) => format!("{}/builds", api_repository(name)),
        None => format!("{API_PREFIX}/builds"),
    };
    let status = status.map_or_else(String::new, |status| format!("&status={}", crate::urls::encode(&status)));
    let builds: Vec<BuildBody> = client.get(&format!("{base}?limit={limit}{status}")).await?;
    table::print_list(context.output, &builds, ["repository", "build", "status", "branch", "commit", "by", "title"], |build| {
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
        table::print_json(build)?;
        return Ok(exit_for_status(&build.status));
    }
    print_stdout(&format!("{}  {}  {}", build_name(build), build.status, sanitize::line(&build.title)))?;
    print_stdout(&format!(
        "{} by {}  {}",
        build.sha.get(..7).unwrap_or_default(),
        sanitize::line(&build.actor),
        client.page_url(&build.href)
    ))?;
    for text in build.reason.iter().map(ToString::to_string).chain(build.diagnostics.iter().cloned()) {
        print_stdout(&format!("  {}", sanitize::line(&text)))?;
    }
    for stage in &build.stages {
        print_stdout(&format!("\n{}  {}{}", sanitize::line(&stage.name), stage.status, reason_suffix(stage.reason.as_ref())))?;
        for approval in &stage.approvals {
            if approval.missing.is_empty() {
                continue;
            }
            print_stdout(&format!(
                "  {} waits for a word: {}",
                sanitize::line(&approval.description),
                sanitize::line(&approval.missing.join("; "))
            ))?;
            for line in approval.runs.iter().chain([&approval.subject]) {
                print_stdout(&format!("    {}", sanitize::line(line)))?;
            }
        }
        for step in &stage.steps {
            print_stdout(&format!(
                "  {:>2}  {:<8}  {}{}",
                step.number,
                step.status,
                sanitize::line(&step.name),
                reason_suffix(step.reason.as_ref())
            ))?;
        }
    }
    Ok(exit_for_status(&build.status))
}
