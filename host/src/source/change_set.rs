//! The change of a build: the event document of policies and step types, the files of its commit, and the facts that conditions
//! are evaluated against.
//!
//! Git computes it from two commits that the mirror keeps. The result is therefore the same whenever it is read: when the
//! build is prepared, when a stage runs, and after a restart.

use std::sync::Arc;

use beespace_core::build::{Base, Build, Head};
use beespace_core::digest::Document;
use beespace_core::event::Commit;
use beespace_core::pipeline::eval_when::{ChangedPaths, Facts};
use beespace_core::plugin_context::{MAX_COMMITS, event_document};

use super::Mirror;
use super::plugin_files::CommitFiles;

/// The change of a build as plugins see it.
#[derive(Debug, Clone)]
pub struct ChangeSet {
    /// For all plugins: `beespace.event/v1`.
    pub event: Document,
    /// For step types.
    pub files: Arc<CommitFiles>,
}

impl ChangeSet {
    /// Reads the change from the mirror, and the facts for conditions, which contain every changed path. A part that cannot be
    /// read is unknown: conditions on it hold, and policies see that it is missing.
    pub async fn read(mirror: Mirror, build: &Build) -> (Self, Facts) {
        let unknown = "the commit is not fetched yet".to_owned();
        let (changed, (commits, count)) = match &build.head {
            Some(head) => tokio::join!(changed_paths(&mirror, head), commits(&mirror, head)),
            None => (ChangedPaths::Unknown(unknown), (Vec::new(), None)),
        };
        let event = event_document(build, &changed, &commits, count);
        (Self { event, files: CommitFiles::of(mirror, build) }, Facts::of_event(&build.event, changed))
    }
}

async fn changed_paths(mirror: &Mirror, head: &Head) -> ChangedPaths {
    match &head.base {
        Base::Commit(base) => {
            mirror.changed_paths(base, &head.sha).await.unwrap_or_else(|error| ChangedPaths::Unknown(error.to_string()))
        }
        Base::Unknown(why) => ChangedPaths::Unknown(why.clone()),
    }
}

async fn commits(mirror: &Mirror, head: &Head) -> (Vec<Commit>, Option<u64>) {
    let base = match &head.base {
        Base::Commit(base) => Some(base),
        Base::Unknown(_) => None,
    };
    match mirror.commits(base, &head.sha, MAX_COMMITS).await {
        Ok((commits, count)) => (commits, Some(count)),
        Err(error) => {
            tracing::warn!(sha = %head.sha, %error, "could not read the commits of a push");
            (Vec::new(), None)
        }
    }
}
