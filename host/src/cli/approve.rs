//! `beespace build approve` and `decline`: a person's word about what waits for one. A yes is for a digest that the person has seen.

use std::io::{self, IsTerminal as _, Write as _};

use beespace_core::sanitize;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, build_common, login, print_stderr, table};
use crate::api::dto::{ApprovalAnswerBody, ApprovalBody, BuildBody, StageBody};
use crate::urls::BuildKey;

#[derive(Debug, clap::Args)]
pub struct ApprovalArgs {
    /// Its number, or its id
    build: BuildKey,
    /// The stage, where several wait
    #[arg(long)]
    stage: Option<u16>,
    /// The digest you have looked at; where something else waits by now, nothing happens. Without it you are shown what waits, and asked
    #[arg(long, value_name = "DIGEST")]
    subject: Option<String>,
    /// Said to those who wait
    #[arg(long)]
    reason: Option<String>,
}

/// Says yes to each thing that was shown, with its digest, and tells what still waits then.
///
/// # Errors
/// [`Failure`] where nothing waits, the person does not say yes, or the server does not take it.
pub(super) async fn approve(context: &Context, client: &Client, args: ApprovalArgs) -> Result<Exit, Failure> {
    let path = build_common::build_path(context, args.build)?;
    let mut now: BuildBody = client.get(&path).await?;
    let shown = now.clone();
    let waiting: Vec<_> = pending_approvals(&shown).filter(|(stage, approval)| is_selected(&args, stage, approval)).collect();
    if waiting.is_empty() {
        return Err(nothing_to_approve(&shown, &args));
    }
    for (stage, approval) in waiting {
        print_approval(client, &shown, stage, approval);
        if args.subject.is_none() && !confirm(approval)? {
            return Err(Failure::new(Exit::Refused, "not approved: nothing was said to the server"));
        }
        let subject = Some(approval.subject.clone());
        let word = ApprovalAnswerBody { stage: Some(stage.number), subject, reason: args.reason.clone() };
        now = client.post(&format!("{path}/approve"), &word).await?;
    }
    if context.output == Output::Json {
        table::print_json(&now)?;
    } else {
        print_stderr(&approved_message(client, &now));
    }
    Ok(Exit::Ok)
}

/// Says no, whatever of the stage waits.
///
/// # Errors
/// [`Failure`] where nothing waits, or the server does not take it.
pub(super) async fn decline(context: &Context, client: &Client, args: ApprovalArgs) -> Result<Exit, Failure> {
    let word = ApprovalAnswerBody { stage: args.stage, subject: args.subject, reason: args.reason };
    build_common::post_action(context, client, args.build, "decline", &word, "is declined").await
}

/// What of a build waits for words, with its stage.
fn pending_approvals(build: &BuildBody) -> impl Iterator<Item = (&StageBody, &ApprovalBody)> {
    let all = build.stages.iter().flat_map(|stage| stage.approvals.iter().map(move |approval| (stage, approval)));
    all.filter(|(_, approval)| !approval.missing.is_empty())
}

fn is_selected(args: &ApprovalArgs, stage: &StageBody, approval: &ApprovalBody) -> bool {
    let is_digest = |wanted: &String| approval.subject == *wanted || approval.subject.split(':').next_back() == Some(wanted);
    args.stage.is_none_or(|number| number == stage.number) && args.subject.as_ref().is_none_or(is_digest)
}

fn nothing_to_approve(build: &BuildBody, args: &ApprovalArgs) -> Failure {
    let others: Vec<String> =
        pending_approvals(build).map(|(_, approval)| format!("{} {}", approval.description, approval.subject)).collect();
    let message = match &args.subject {
        Some(subject) if !others.is_empty() => {
            format!("{subject} is not what waits for a word now: it has changed, or was decided")
        }
        _ => format!("nothing waits for a word; the build is {}", build.status),
    };
    let failure = Failure::new(Exit::Refused, message);
    if others.is_empty() { failure } else { failure.help(format!("what waits: {}", others.join(", "))) }
}

/// The build, the plan and its digest: what a yes is about.
fn print_approval(client: &Client, build: &BuildBody, stage: &StageBody, approval: &ApprovalBody) {
    print_stderr(&format!("{}  {}", build_common::build_name(build), sanitize::line(&build.title)));
    print_stderr(&format!("{} by {}  {}", build.sha, sanitize::line(&build.actor), client.page_url(&build.href)));
    print_stderr(&format!("{}: {} waits for a word", sanitize::line(&stage.name), sanitize::line(&approval.description)));
    for line in &approval.runs {
        print_stderr(&format!("    {}", sanitize::line(line)));
    }
    let given =
        Some(approval.approved_by.join(", ")).filter(|names| !names.is_empty()).map(|names| format!("approved by {names}"));
    for line in approval.reasons.iter().chain(&given) {
        print_stderr(&format!("  {}", sanitize::line(line)));
    }
    print_stderr(&format!("  {}", approval.subject));
}

fn confirm(approval: &ApprovalBody) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let help = format!("where this is what you have looked at: --subject {}", approval.subject);
        return Err(Failure::new(Exit::Usage, "nobody is there to be asked, so the digest has to be given").help(help));
    }
    write!(io::stderr(), "approve exactly this? [y/N] ")?;
    Ok(matches!(login::read_line()?.to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn approved_message(client: &Client, build: &BuildBody) -> String {
    let missing: Vec<&str> = pending_approvals(build).flat_map(|(_, approval)| &approval.missing).map(String::as_str).collect();
    let (place, page) = (build_common::build_name(build), client.page_url(&build.href));
    if missing.is_empty() {
        return format!("{place} is approved: {page}");
    }
    format!("your word is kept; {place} still needs {}: {page}", sanitize::line(&missing.join(", and ")))
}
