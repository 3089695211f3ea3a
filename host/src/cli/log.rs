//! `beespace build log`: prints the logs of a build's steps, once or following them.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use beespace_core::sanitize;
use beespace_core::status::Status;

use super::ansi_filter::AnsiFilter;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::{build_common, print_stderr};
use crate::api::dto::{BuildBody, StageBody, StepBody};

/// How often a followed build is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// How long a follower waits for a server that no longer responds.
const OUTAGE_PATIENCE: Duration = Duration::from_secs(600);

/// Stage number, step number and attempt. Each attempt has its own log.
type StepAttempt = (u16, u16, u16);

/// Prints the logs of a build and remembers what has been printed.
#[derive(Debug, Default)]
struct LogPrinter {
    logs: BTreeMap<StepAttempt, PrintedLog>,
    /// The attempt whose output was printed last.
    last_printed: Option<StepAttempt>,
    /// The reasons for waiting that were printed last.
    reported_waits: Vec<String>,
}

/// How much of one log has been printed.
#[derive(Debug, Default)]
struct PrintedLog {
    offset: u64,
    /// The step had finished before its log was last read, so nothing will be added.
    is_complete: bool,
    /// Set if stdout is a terminal, which would interpret control sequences. A file or a program gets every byte.
    filter: Option<AnsiFilter>,
}

/// Prints the logs of a build, or of the `wanted` step. With `follow`, continues until the build or step has finished, also
/// across a restart of the server.
///
/// # Errors
/// [`Failure`] if there is no such step, or the server does not return the log.
pub(super) async fn run(client: &Client, path: &str, wanted: Option<&str>, follow: bool) -> Result<Exit, Failure> {
    let (mut printer, mut contact) = (LogPrinter::default(), Contact::default());
    loop {
        match printer.print_build(client, path, wanted, follow).await {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => contact.succeeded(),
            Err(failure) if follow => contact.failed(failure)?,
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Whether a followed server responds. A server that restarts, or a proxy in front of it, ends requests and refuses connections
/// for a while; the build goes on.
#[derive(Debug, Default)]
struct Contact {
    has_succeeded: bool,
    lost_at: Option<Instant>,
}

impl Contact {
    fn succeeded(&mut self) {
        if self.lost_at.take().is_some() {
            print_stderr("the server responds again");
        }
        self.has_succeeded = true;
    }

    /// Returns the failure if another attempt is useless: the server has never responded, has refused, or is away for too long.
    fn failed(&mut self, failure: Failure) -> Result<(), Failure> {
        let is_new = self.lost_at.is_none();
        let lost_at = *self.lost_at.get_or_insert_with(Instant::now);
        if failure.exit != Exit::Unreachable || !self.has_succeeded || lost_at.elapsed() > OUTAGE_PATIENCE {
            return Err(failure);
        }
        if is_new {
            print_stderr(&format!("{}; trying again", sanitize::line(&failure.message)));
        }
        Ok(())
    }
}

fn no_such_step(build: &BuildBody, wanted: &str) -> Failure {
    let names: Vec<String> = build
        .stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .map(|step| format!("{} {}", step.number, sanitize::line(&step.name)))
        .collect();
    let help =
        if names.is_empty() { "the build has no steps".to_owned() } else { format!("steps of this build: {}", names.join(", ")) };
    Failure::new(Exit::NotFound, format!("no step {wanted:?} in this build")).help(help)
}

/// None of the steps has started: the reason of the build, or of the only selected step.
fn no_log(build: &BuildBody, steps: &[(&StageBody, &StepBody)]) -> Failure {
    let (what, status, reason) = match steps {
        [(_, step)] => (format!("step {}", step.name), &step.status, step.reason.as_ref()),
        _ => ("the build".to_owned(), &build.status, build.reason.as_ref()),
    };
    let why = build_common::reason_suffix(reason);
    let message = format!("{} has no log, because {what} has not started: {status}{why}", build_common::build_name(build));
    let failure = Failure::new(Exit::NotFound, message);
    // A step that is over, such as one of a declined build, will never have a log.
    if is_finished(status) { failure } else { failure.help("`--follow` waits for the log of a build that has not finished") }
}

fn is_finished(status: &str) -> bool {
    Status::ALL.into_iter().any(|known| known.as_str() == status && known.is_over())
}

/// The reasons why an unfinished build waits: the engine, Gogs, disk space, an approval. Build and stage often have the same
/// reason, which is listed once.
fn wait_reasons(build: &BuildBody) -> Vec<String> {
    let stages = build.stages.iter().filter(|stage| !is_finished(&stage.status));
    let reasons = build.reason.iter().chain(stages.filter_map(|stage| stage.reason.as_ref()));
    let mut unique: Vec<String> = reasons.map(ToString::to_string).collect();
    unique.dedup();
    unique
}

fn matches_step(step: &StepBody, wanted: &str) -> bool {
    step.name == wanted || wanted.parse() == Ok(step.number)
}

impl LogPrinter {
    /// Prints what is new in the logs of a build. Returns the exit code when there is nothing left to print.
    async fn print_build(
        &mut self,
        client: &Client,
        path: &str,
        wanted: Option<&str>,
        follow: bool,
    ) -> Result<Option<Exit>, Failure> {
        let build: BuildBody = client.get(path).await?;
        let found = build.stages.iter().flat_map(|stage| stage.steps.iter().map(move |step| (stage, step)));
        let steps: Vec<_> = found.filter(|(_, step)| wanted.is_none_or(|wanted| matches_step(step, wanted))).collect();
        if let Some(wanted) = wanted.filter(|_| steps.is_empty() && !(follow && build.stages.is_empty())) {
            return Err(no_such_step(&build, wanted));
        }
        if !follow && steps.iter().all(|(_, step)| step.started_at.is_none()) {
            return Err(no_log(&build, &steps));
        }
        // A step that has not started has no log.
        for (stage, step) in steps.iter().filter(|(_, step)| step.started_at.is_some()) {
            for attempt in 1..=step.attempt {
                self.print_new(client, path, (stage, step, attempt), steps.len() > 1 || step.attempt > 1).await?;
            }
        }
        if !follow {
            return Ok(Some(Exit::Ok));
        }
        let is_done = is_finished(&build.status) || (wanted.is_some() && steps.iter().all(|(_, step)| is_finished(&step.status)));
        if !is_done {
            self.report_waits(&build);
            return Ok(None);
        }
        let (name, reason) = (build_common::build_name(&build), build_common::reason_suffix(build.reason.as_ref()));
        print_stderr(&format!("{name}: {}{reason}", build.status));
        Ok(Some(build_common::exit_for_status(&build.status)))
    }

    /// Prints each new reason for waiting once, so that the screen does not stay empty without an explanation.
    fn report_waits(&mut self, build: &BuildBody) {
        let reasons = wait_reasons(build);
        for reason in reasons.iter().filter(|reason| !self.reported_waits.contains(reason)) {
            print_stderr(&format!("{}: {}", build.status, sanitize::line(reason)));
        }
        self.reported_waits = reasons;
    }

    /// Prints the output that an attempt at a step has written since the last poll.
    async fn print_new(
        &mut self,
        client: &Client,
        path: &str,
        (stage, step, attempt): (&StageBody, &StepBody, u16),
        has_heading: bool,
    ) -> Result<(), Failure> {
        let key = (stage.number, step.number, attempt);
        let suffix = if step.attempt > 1 { format!(" · attempt {attempt}") } else { String::new() };
        let new_log = || PrintedLog { filter: io::stdout().is_terminal().then(AnsiFilter::default), ..PrintedLog::default() };
        let printed = self.logs.entry(key).or_insert_with(new_log);
        if printed.is_complete {
            return Ok(());
        }
        let log = format!("{path}/stages/{}/steps/{}/log?attempt={attempt}", stage.number, step.number);
        let mut stdout = io::stdout().lock();
        client
            .stream_bytes(&log, printed.offset, |chunk| {
                if has_heading && self.last_printed != Some(key) && !chunk.is_empty() {
                    print_stderr(&format!("── {} · {}{suffix}", sanitize::line(&stage.title()), sanitize::line(&step.name)));
                    self.last_printed = Some(key);
                }
                printed.offset += chunk.len() as u64;
                match &mut printed.filter {
                    Some(filter) => stdout.write_all(filter.filter(chunk).as_bytes())?,
                    None => stdout.write_all(chunk)?,
                }
                Ok(())
            })
            .await?;
        // Other output follows: reset the program's colours until its next output.
        stdout.write_all(printed.filter.as_mut().map_or("", AnsiFilter::pause).as_bytes())?;
        stdout.flush()?;
        let is_last = attempt == step.attempt;
        printed.is_complete = !is_last || is_finished(&step.status);
        if is_last && printed.is_complete && step.reason.is_some() {
            let reason = build_common::reason_suffix(step.reason.as_ref());
            print_stderr(&format!("── {}: {}{reason}", sanitize::line(&step.name), step.status));
        }
        Ok(())
    }
}
