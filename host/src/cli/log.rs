//! `beespace build log`: what the steps of a build print, as it stands or as it grows.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use beespace_core::status::Status;
use beespace_core::visible;

use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal::Tamed;
use super::{about, say};
use crate::api::body::{BuildBody, StageBody, StepBody};

/// How often a build that is followed is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// The numbers of a stage and of one of its steps, and which attempt at it this is: each has a log of its own.
type Place = (u16, u16, u16);

/// What of a build has been written so far.
#[derive(Debug, Default)]
struct Written {
    logs: BTreeMap<Place, Part>,
    /// Whose output came last.
    last: Option<Place>,
    /// What was said last of what the build waits for.
    waits: Vec<String>,
}

/// What of one log has been written.
#[derive(Debug, Default)]
struct Part {
    bytes: u64,
    /// The step was over before its log was read: nothing is added to it.
    is_whole: bool,
    /// A file or a program gets every byte; a terminal would obey some.
    tamed: Option<Tamed>,
}

/// Writes the logs of a build, or of the `wanted` step; stays with `follow` until that is over.
///
/// # Errors
/// [`Failure`] where there is no such step, or the server does not give the log.
pub(super) async fn run(client: &Client, path: &str, wanted: Option<&str>, follow: bool) -> Result<Exit, Failure> {
    let mut written = Written::default();
    loop {
        let build: BuildBody = client.get(path).await?;
        let found = build.stages.iter().flat_map(|stage| stage.steps.iter().map(move |step| (stage, step)));
        let steps: Vec<_> = found.filter(|(_, step)| wanted.is_none_or(|wanted| is_meant(step, wanted))).collect();
        if let Some(wanted) = wanted.filter(|_| steps.is_empty() && !(follow && build.stages.is_empty())) {
            return Err(no_such_step(&build, wanted));
        }
        // One that has not begun has nothing to tell.
        for (stage, step) in steps.iter().filter(|(_, step)| step.started_at.is_some()) {
            written.add(client, path, stage, step, steps.len() > 1).await?;
        }
        let is_done = is_over(&build.status) || (wanted.is_some() && steps.iter().all(|(_, step)| is_over(&step.status)));
        if is_done && follow {
            say(&format!("{}: {}{}", about::place(&build), build.status, about::why(build.reason.as_ref())));
            return Ok(about::exit_of(&build.status));
        }
        if !follow {
            return Ok(Exit::Ok);
        }
        written.tell_of_waiting(&build);
        tokio::time::sleep(LOOK).await;
    }
}

fn no_such_step(build: &BuildBody, wanted: &str) -> Failure {
    let names: Vec<String> = build
        .stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .map(|step| format!("{} {}", step.number, visible::line(&step.name)))
        .collect();
    let help = if names.is_empty() { "it has no steps".to_owned() } else { format!("it has {}", names.join(", ")) };
    Failure::new(Exit::NotFound, format!("no step {wanted:?} in this build")).help(help)
}

fn is_over(status: &str) -> bool {
    Status::ALL.into_iter().any(|known| known.as_str() == status && known.is_over())
}

/// What a build that is not over waits for: the engine, Gogs, room, a person's word. The build's own reason often is that of its stage.
fn waits_for(build: &BuildBody) -> Vec<String> {
    let stages = build.stages.iter().filter(|stage| !is_over(&stage.status));
    let reasons = build.reason.iter().chain(stages.filter_map(|stage| stage.reason.as_ref()));
    let mut waits: Vec<String> = reasons.map(ToString::to_string).collect();
    waits.dedup();
    waits
}

fn is_meant(step: &StepBody, wanted: &str) -> bool {
    step.name == wanted || wanted.parse() == Ok(step.number)
}

impl Written {
    /// Says what the build waits for, once; an empty screen would tell nothing.
    fn tell_of_waiting(&mut self, build: &BuildBody) {
        let waits = waits_for(build);
        for news in waits.iter().filter(|wait| !self.waits.contains(wait)) {
            say(&format!("{}: {}", build.status, visible::line(news)));
        }
        self.waits = waits;
    }

    /// Writes what a step has printed since the last look.
    async fn add(
        &mut self,
        client: &Client,
        path: &str,
        stage: &StageBody,
        step: &StepBody,
        titled: bool,
    ) -> Result<(), Failure> {
        let place = (stage.number, step.number, step.attempt);
        let fresh = || Part { tamed: io::stdout().is_terminal().then(Tamed::default), ..Part::default() };
        let part = self.logs.entry(place).or_insert_with(fresh);
        if part.is_whole {
            return Ok(());
        }
        let log = format!("{path}/stages/{}/steps/{}/log", stage.number, step.number);
        let mut stdout = io::stdout().lock();
        client
            .bytes_from(&log, part.bytes, |chunk| {
                if titled && self.last != Some(place) && !chunk.is_empty() {
                    say(&format!("── {} · {}", visible::line(&stage.name), visible::line(&step.name)));
                    self.last = Some(place);
                }
                part.bytes += chunk.len() as u64;
                match &mut part.tamed {
                    Some(tamed) => stdout.write_all(tamed.pass(chunk).as_bytes())?,
                    None => stdout.write_all(chunk)?,
                }
                Ok(())
            })
            .await?;
        // Others write next: the program's colours stop, and go on with its next output.
        stdout.write_all(part.tamed.as_mut().map_or("", Tamed::pause).as_bytes())?;
        stdout.flush()?;
        part.is_whole = is_over(&step.status);
        Ok(())
    }
}
