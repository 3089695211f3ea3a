//! `beespace build`: lists and shows builds, and acts on them.

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
    /// List builds, newest first; with --repo, those of one repository
    List {
        /// Only builds with this status: pending, blocked, declined, running, success, failure, error, killed, skipped, or `failed` for
        /// failure, error and killed together
        #[arg(long)]
        status: Option<String>,
        /// Maximum number of builds
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show a build with its reason, stages and steps
    Show {
        /// Number or id of the build
        build: BuildKey,
    },
    /// Print the log of a build or of one step
    Log {
        /// Number or id of the build
        build: BuildKey,
        /// Name or number of the step [default: all steps]
        step: Option<String>,
        /// Follow the log until the build has finished
        #[arg(short, long)]
        follow: bool,
    },
    /// Restart a build: build the same event again
    Restart {
        /// Number or id of the build
        build: BuildKey,
    },
    /// Cancel a build; its status becomes `killed`
    Cancel {
        /// Number or id of the build
        build: BuildKey,
    },
    /// Approve a blocked build
    Approve(ApprovalArgs),
    /// Decline a blocked build
    Decline(ApprovalArgs),
}

/// # Errors
/// [`Failure`] if the server is unreachable or refuses.
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
            post_action(context, &client, build, "restart", &ApprovalAnswerBody::default(), "restarted").await
        }
        BuildCommand::Cancel { build } => {
            post_action(context, &client, build, "cancel", &ApprovalAnswerBody::default(), "is being cancelled").await
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
                "  {} is waiting for approval: {}",
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
