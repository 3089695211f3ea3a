//! `beespace build approve` and `beespace build decline`. An approval is bound to the digest of the subject that the person has
//! reviewed.

use std::io::{self, IsTerminal as _, Write as _};

use beespace_core::digest::Digest;
use beespace_core::sanitize;

use super::build_common::BuildName;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, build_common, login, print_stderr, table, values};
use crate::api::dto::{ApprovalAnswerBody, ApprovalBody, BuildBody, StageBody};

#[derive(Debug, clap::Args)]
pub struct ApprovalArgs {
    /// Number or id of the build, or `latest`
    build: BuildName,
    /// Number of the stage, if several are waiting for approval
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    stage: Option<u16>,
    /// Act on this digest only; the command fails if the plan has changed. Without a digest, `build approve` shows the plan and
    /// asks for confirmation; `build decline` does not
    #[arg(long, value_name = "DIGEST", value_parser = values::digest)]
    subject: Option<Digest>,
    /// Reason to record and show on the build's page
    #[arg(long)]
    reason: Option<String>,
}

/// Shows each selected subject, approves it by its digest, and prints which approvals are still missing.
///
/// # Errors
/// [`Failure`] if nothing is waiting for approval, the person does not confirm, or the server refuses the approval.
pub(super) async fn approve(context: &Context, client: &Client, args: ApprovalArgs) -> Result<Exit, Failure> {
    let path = build_common::build_path(context, client, args.build).await?;
    let mut now: BuildBody = client.get(&path).await?;
    let shown = now.clone();
    let waiting: Vec<_> = pending_approvals(&shown).filter(|(stage, approval)| is_selected(&args, stage, approval)).collect();
    if waiting.is_empty() {
        return Err(nothing_to_approve(&shown, &args));
    }
    if args.subject.is_none() && !io::stdin().is_terminal() {
        waiting.iter().for_each(|(stage, approval)| print_approval(client, &shown, stage, approval));
        return Err(digest_required(waiting.iter().map(|(_, approval)| *approval)));
    }
    for (stage, approval) in waiting {
        print_approval(client, &shown, stage, approval);
        if args.subject.is_none() && !confirm()? {
            return Err(Failure::new(Exit::Refused, "not approved; nothing was sent to the server"));
        }
        let subject = Some(approval.subject.clone());
        let answer = ApprovalAnswerBody { stage: Some(stage.number), subject, reason: args.reason.clone() };
        now = client.post(&format!("{path}/approve"), &answer).await?;
    }
    print_stderr(&approved_message(client, &now));
    if context.output == Output::Json {
        table::print_json(&now)?;
    }
    Ok(Exit::Ok)
}

/// Declines the given subject, or everything in the stage that is waiting for approval.
///
/// # Errors
/// [`Failure`] if nothing is waiting for approval, or the server refuses.
pub(super) async fn decline(context: &Context, client: &Client, args: ApprovalArgs) -> Result<Exit, Failure> {
    let answer =
        ApprovalAnswerBody { stage: args.stage, subject: args.subject.map(|digest| digest.to_string()), reason: args.reason };
    build_common::post_action(context, client, args.build, "decline", &answer, "declined").await
}

/// The approvals that are still missing, each with its stage.
fn pending_approvals(build: &BuildBody) -> impl Iterator<Item = (&StageBody, &ApprovalBody)> {
    let all = build.stages.iter().flat_map(|stage| stage.approvals.iter().map(move |approval| (stage, approval)));
    all.filter(|(_, approval)| !approval.missing.is_empty())
}

fn is_selected(args: &ApprovalArgs, stage: &StageBody, approval: &ApprovalBody) -> bool {
    args.stage.is_none_or(|number| number == stage.number) && args.subject.is_none_or(|digest| is_subject(approval, digest))
}

fn is_subject(approval: &ApprovalBody, digest: Digest) -> bool {
    approval.subject == digest.to_string()
}

fn nothing_to_approve(build: &BuildBody, args: &ApprovalArgs) -> Failure {
    let others: Vec<String> =
        pending_approvals(build).map(|(_, approval)| format!("{} {}", approval.description, approval.subject)).collect();
    let message = match &args.subject {
        Some(subject) if !others.is_empty() => {
            format!("{subject} is not waiting for approval: the plan has changed, or the approval was already decided")
        }
        _ => format!("nothing is waiting for approval; the build is {}", build.status),
    };
    let failure = Failure::new(Exit::Refused, message);
    if others.is_empty() { failure } else { failure.help(format!("waiting for approval: {}", others.join(", "))) }
}

/// Prints the build, the plan and its digest, for review.
fn print_approval(client: &Client, build: &BuildBody, stage: &StageBody, approval: &ApprovalBody) {
    print_stderr(&format!("{}  {}", build_common::build_name(build), sanitize::line(&build.title)));
    print_stderr(&format!(
        "{} by {}  {}",
        build.sha.as_deref().unwrap_or("unknown commit"),
        sanitize::line(&build.actor),
        client.page_url(&build.href)
    ));
    print_stderr(&format!(
        "{}: {} is waiting for approval",
        sanitize::line(&stage.title()),
        sanitize::line(&approval.description)
    ));
    for line in &approval.runs {
        print_stderr(&format!("    {}", sanitize::line(line)));
    }
    for line in &approval.reasons {
        print_stderr(&format!("  {}", sanitize::line(line)));
    }
    for given in &approval.given {
        let reason = given.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        print_stderr(&format!("  approved by {}{}", given.by, sanitize::line(&reason)));
    }
    print_stderr(&format!("  {}", approval.subject));
}

/// Nobody can be asked, so the command line must name what the person has reviewed.
fn digest_required<'a>(waiting: impl Iterator<Item = &'a ApprovalBody>) -> Failure {
    let options: Vec<String> = waiting.map(|approval| format!("--subject {}", approval.subject)).collect();
    let help = match options.as_slice() {
        [only] => format!("if you have reviewed the plan above, pass {only}"),
        all => format!("approve each plan above that you have reviewed with a command of its own: {}", all.join(", or ")),
    };
    Failure::new(Exit::Usage, "stdin is not a terminal: pass --subject DIGEST").help(help)
}

fn confirm() -> Result<bool, Failure> {
    write!(io::stderr(), "Approve this plan? [y/N] ")?;
    Ok(matches!(login::read_line()?.to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn approved_message(client: &Client, build: &BuildBody) -> String {
    let missing: Vec<&str> = pending_approvals(build).flat_map(|(_, approval)| &approval.missing).map(String::as_str).collect();
    let (place, page) = (build_common::build_name(build), client.page_url(&build.href));
    if missing.is_empty() {
        return format!("{place} approved: {page}");
    }
    format!("approval recorded; {place} still needs {}: {page}", sanitize::line(&missing.join(", and ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn without_a_terminal_every_waiting_plan_is_named() {
        let approval = |subject: &str| -> ApprovalBody {
            let body = json!({ "description": "the pipeline", "subject": subject, "runs": [], "reasons": [], "missing": [],
                "approved_by": [], "given": [] });
            serde_json::from_value(body).unwrap()
        };
        let help = |all: &[ApprovalBody]| digest_required(all.iter()).help.unwrap();
        assert!(help(&[approval("sha256:0a")]).ends_with("pass --subject sha256:0a"));
        let two = help(&[approval("sha256:0a"), approval("sha256:0b")]);
        assert!(two.ends_with("--subject sha256:0a, or --subject sha256:0b"), "{two}");
    }
}
