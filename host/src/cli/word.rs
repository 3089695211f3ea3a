//! `beespace build approve` and `decline`: a person's word about what waits for one. A yes is for a digest that the person has seen.

use std::io::{self, IsTerminal as _, Write as _};

use beespace_core::visible;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{Context, about, login, say, table};
use crate::address::BuildKey;
use crate::api::body::{ApprovalBody, BuildBody, StageBody, WordBody};

#[derive(Debug, clap::Args)]
pub struct WordArgs {
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
pub(super) async fn approve(context: &Context, client: &Client, args: WordArgs) -> Result<Exit, Failure> {
    let path = about::path(context, args.build)?;
    let mut now: BuildBody = client.get(&path).await?;
    let shown = now.clone();
    let waiting: Vec<_> = waiting(&shown).filter(|(stage, approval)| is_meant(&args, stage, approval)).collect();
    if waiting.is_empty() {
        return Err(nothing_waits(&shown, &args));
    }
    for (stage, approval) in waiting {
        show(client, &shown, stage, approval);
        if args.subject.is_none() && !is_wanted(approval)? {
            return Err(Failure::new(Exit::Refused, "not approved: nothing was said to the server"));
        }
        let subject = Some(approval.subject.clone());
        let word = WordBody { stage: Some(stage.number), subject, reason: args.reason.clone() };
        now = client.post(&format!("{path}/approve"), &word).await?;
    }
    if context.output == Output::Json {
        table::one(&now)?;
    } else {
        say(&approved(client, &now));
    }
    Ok(Exit::Ok)
}

/// Says no, whatever of the stage waits.
///
/// # Errors
/// [`Failure`] where nothing waits, or the server does not take it.
pub(super) async fn decline(context: &Context, client: &Client, args: WordArgs) -> Result<Exit, Failure> {
    let word = WordBody { stage: args.stage, subject: args.subject, reason: args.reason };
    about::act(context, client, args.build, "decline", &word, "is declined").await
}

/// What of a build waits for words, with its stage.
fn waiting(build: &BuildBody) -> impl Iterator<Item = (&StageBody, &ApprovalBody)> {
    let all = build.stages.iter().flat_map(|stage| stage.approvals.iter().map(move |approval| (stage, approval)));
    all.filter(|(_, approval)| !approval.missing.is_empty())
}

fn is_meant(args: &WordArgs, stage: &StageBody, approval: &ApprovalBody) -> bool {
    let is_digest = |wanted: &String| approval.subject == *wanted || approval.subject.split(':').next_back() == Some(wanted);
    args.stage.is_none_or(|number| number == stage.number) && args.subject.as_ref().is_none_or(is_digest)
}

fn nothing_waits(build: &BuildBody, args: &WordArgs) -> Failure {
    let others: Vec<String> = waiting(build).map(|(_, approval)| format!("{} {}", approval.what, approval.subject)).collect();
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
fn show(client: &Client, build: &BuildBody, stage: &StageBody, approval: &ApprovalBody) {
    say(&format!("{}  {}", about::place(build), visible::line(&build.title)));
    say(&format!("{} by {}  {}", build.sha, visible::line(&build.actor), client.page(&build.href)));
    say(&format!("{}: {} waits for a word", visible::line(&stage.name), visible::line(&approval.what)));
    for line in &approval.runs {
        say(&format!("    {}", visible::line(line)));
    }
    let given =
        Some(approval.approved_by.join(", ")).filter(|names| !names.is_empty()).map(|names| format!("approved by {names}"));
    for line in approval.reasons.iter().chain(&given) {
        say(&format!("  {}", visible::line(line)));
    }
    say(&format!("  {}", approval.subject));
}

fn is_wanted(approval: &ApprovalBody) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let help = format!("where this is what you have looked at: --subject {}", approval.subject);
        return Err(Failure::new(Exit::Usage, "nobody is there to be asked, so the digest has to be given").help(help));
    }
    write!(io::stderr(), "approve exactly this? [y/N] ")?;
    Ok(matches!(login::first_line()?.to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn approved(client: &Client, build: &BuildBody) -> String {
    let missing: Vec<&str> = waiting(build).flat_map(|(_, approval)| &approval.missing).map(String::as_str).collect();
    let (place, page) = (about::place(build), client.page(&build.href));
    if missing.is_empty() {
        return format!("{place} is approved: {page}");
    }
    format!("your word is kept; {place} still needs {}: {page}", visible::line(&missing.join(", and ")))
}
