//! The commits of the event (`beespace.event/v1`).

use serde::Deserialize;

/// A commit of the push.
#[derive(Debug, Deserialize)]
pub(crate) struct Commit {
    pub(crate) sha: String,
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    commits: Vec<Commit>,
}

pub(crate) fn commits(json: &str) -> Result<Vec<Commit>, String> {
    let event: Event = serde_json::from_str(json).map_err(|error| format!("the event is invalid: {error}"))?;
    Ok(event.commits)
}
