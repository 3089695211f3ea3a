//! What every call of a plugin gets to know of the build it is about: the small, stable envelope around a document.

use serde::{Deserialize, Serialize};

use crate::build::Build;
use crate::event::{Actor, Claim, EventKind};
use crate::ids::{RepositoryName, Sha};
use crate::time::Timestamp;

/// How far the source of a change is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Pushed by someone whom the forge lets write to the repository.
    Trusted,
    /// Known, but with fewer rights than the repository's own people.
    Restricted,
    /// A fork, a stranger. What a forgotten field must mean.
    #[default]
    Untrusted,
}

/// The envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Correlates the call's log lines, its row in a decision and its placeholders for secrets.
    pub invocation_id: String,
    pub event: EventKind,
    pub repository: RepositoryName,
    /// Full name of the ref.
    pub git_ref: String,
    /// The commit that is built, resolved by us.
    pub sha: Sha,
    /// Number and the full name of the branch it wants to go into.
    pub pull_request: Option<(u64, String)>,
    pub build_number: Option<u64>,
    /// Vouched for by the forge: the only identity to decide on.
    pub actor: Actor,
    /// What the commit says about its author: a claim.
    pub author: Option<Claim>,
    pub trust: Trust,
    /// The only clock a plugin has; the same when a decision is replayed.
    pub now: Timestamp,
    pub labels: Vec<(String, String)>,
}

impl Context {
    /// The envelope for a call about `build`. A push comes from someone with write access, so it is trusted.
    #[must_use]
    pub fn of_build(build: &Build, invocation_id: String, now: Timestamp) -> Self {
        let head = build.head.as_ref();
        Self {
            invocation_id,
            event: build.event.kind(),
            repository: build.event.repository.name.clone(),
            git_ref: build.event.git_ref(),
            sha: head.map_or_else(|| build.event.sha().clone(), |head| head.sha.clone()),
            pull_request: None,
            build_number: build.number,
            actor: build.event.sender.clone(),
            author: head.map(|head| head.author.clone()),
            trust: match build.event.kind() {
                EventKind::Push => Trust::Trusted,
                _ => Trust::Untrusted,
            },
            now,
            labels: Vec::new(),
        }
    }
}
