//! `beespace build`: lists and shows builds, and acts on them.

use clap::Subcommand;

use super::approve::{self, ApprovalArgs};
use super::build_common::{BuildName, build_name, build_path, post_action, short_sha};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::start::{self, DeployArgs, StartArgs};
use super::times::{age, duration};
use super::{Context, build_text, ignored_pushes, log, print_stderr, table, values};
use crate::api::dto::{ApprovalAnswerBody, BuildBody, PullRequestBody};
use crate::clock::now;
use crate::urls::{API_PREFIX, api_repository};

#[derive(Debug, Subcommand)]
pub enum BuildCommand {
    /// List the builds of all repositories, newest first; with --repo, of one
    List {
        /// Only builds with this status; `failed` stands for failure, error and killed
        #[arg(long, value_parser = values::build_status())]
        status: Option<String>,
        /// Maximum number of builds
        #[arg(long, default_value_t = 20, value_parser = values::limit())]
        limit: usize,
    },
    /// Show a build with its reason, stages and steps
    Show {
        /// Number or id of the build, or `latest`
        build: BuildName,
    },
    /// Print the log of a build or of one step
    Log {
        /// Number or id of the build, or `latest`
        build: BuildName,
        /// Name or number of the step [default: all steps]
        step: Option<String>,
        /// Follow the log until the build has finished
        #[arg(short, long)]
        follow: bool,
    },
    /// Start a build of a branch, a tag or a commit
    Start(StartArgs),
    /// Promote a successful build: build its commit again for a target
    Promote(DeployArgs),
    /// Roll a target back to a successful build: build its commit again for the target
    Rollback(DeployArgs),
    /// Restart a build: build the same event again
    Restart {
        /// Number or id of the build, or `latest`
        build: BuildName,
    },
    /// Cancel a build; its status becomes `killed`
    Cancel {
        /// Number or id of the build, or `latest`
        build: BuildName,
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
            let build: BuildBody = client.get(&build_path(context, &client, build).await?).await?;
            build_text::show(context, &client, &build)
        }
        BuildCommand::Log { build, step, follow } => {
            log::run(&client, &build_path(context, &client, build).await?, step.as_deref(), follow).await
        }
        BuildCommand::Start(args) => start::start(context, &client, args).await,
        BuildCommand::Promote(args) => start::deploy(context, &client, "promote", args).await,
        BuildCommand::Rollback(args) => start::deploy(context, &client, "rollback", args).await,
        BuildCommand::Restart { build } => {
            let old = build_path(context, &client, build).await?;
            restart(context, &client, &old).await
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
    let is_filtered = status.is_some();
    let status = status.map_or_else(String::new, |status| format!("&status={}", crate::urls::encode(&status)));
    let builds: Vec<BuildBody> = client.get(&format!("{base}?limit={limit}{status}")).await?;
    let now = now();
    const HEADER: [&str; 9] = ["repository", "build", "status", "age", "duration", "branch", "commit", "by", "title"];
    table::print_list(context.output, &builds, HEADER, |build| {
        [
            build.repository.clone(),
            build.number.map_or_else(|| build.id.clone(), |number| number.to_string()),
            build.status.clone(),
            age(&build.created_at, now),
            duration(build.started_at.as_deref(), build.finished_at.as_deref(), now),
            branch(build),
            short_sha(build).to_owned(),
            build.actor.clone(),
            ignored_pushes::title(build),
        ]
    })?;
    if context.output == Output::Table && !is_filtered {
        ignored_pushes::report(context, client, &builds).await;
    }
    Ok(Exit::Ok)
}

/// The branch or the tag; `topic → main` for a pull request.
fn branch(build: &BuildBody) -> String {
    let of_pull = |pull: &PullRequestBody| format!("{} → {}", pull.source_label, pull.target_branch);
    let name = build.branch.clone().or_else(|| build.tag.clone());
    name.or_else(|| build.pull_request.as_ref().map(of_pull)).unwrap_or_default()
}

/// Restarts the build at the API path `old`, and prints the number and the page of the new build.
async fn restart(context: &Context, client: &Client, old: &str) -> Result<Exit, Failure> {
    let build: BuildBody = client.post(&format!("{old}/restart"), &()).await?;
    print_stderr(&format!("restarted as {}: {}", build_name(&build), client.page_url(&build.href)));
    if context.output == Output::Json {
        table::print_json(&build)?;
    }
    Ok(Exit::Ok)
}
