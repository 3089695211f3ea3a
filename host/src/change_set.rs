//! What a build is about: the change, as conditions are held against it and as policies and step types read it, and the files it leads to.
//!
//! Git tells it of two commits that stay where they are, so that it is the same whenever it is asked: when the build is prepared, when a stage
//! runs, after a restart.

use std::sync::Arc;

use beespace_core::build::{Base, Build, Head};
use beespace_core::digest::Document;
use beespace_core::event::Commit;
use beespace_core::pipeline::eval_when::{ChangedPaths, Facts};
use beespace_core::plugin_context::{MAX_COMMITS, event_document};

use crate::app::App;
use crate::resolve::CommitFiles;
use crate::source::Mirror;

/// A change, told to everyone in their way.
#[derive(Debug, Clone)]
pub struct Change {
    /// For conditions: every path.
    pub facts: Facts,
    /// For plugins: `beespace.event/v1`.
    pub event: Document,
    /// For step types.
    pub files: Arc<CommitFiles>,
}

impl Change {
    /// Asks the mirror. What it cannot tell is told as unknown: conditions on it hold, and policies see that it is missing.
    pub async fn of(app: &App, build: &Build) -> Self {
        let mirror = app.mirrors.of(build.event.repository.id);
        let unknown = "its commit is not fetched yet".to_owned();
        let (changed, (commits, count)) = match &build.head {
            Some(head) => tokio::join!(changed_paths(&mirror, head), commits(&mirror, head)),
            None => (ChangedPaths::Unknown(unknown), (Vec::new(), None)),
        };
        let event = event_document(build, &changed, &commits, count);
        Self { facts: Facts::of_event(&build.event, changed), event, files: CommitFiles::of(mirror, build) }
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
            tracing::warn!(sha = %head.sha, %error, "the commits of a push cannot be told");
            (Vec::new(), None)
        }
    }
}
