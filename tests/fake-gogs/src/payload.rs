//! The payloads of the three events that a push causes, with fields in Gogs' order.

use serde::Serialize;

use super::commit::{CommitObject, Signature, YEAR_ONE, ZERO};
use super::repository::RepositoryObject;
use super::user::UserObject;

#[derive(Debug, Serialize)]
pub(super) struct Push {
    #[serde(rename = "ref")]
    pub(super) name: String,
    pub(super) before: String,
    pub(super) after: String,
    pub(super) compare_url: String,
    pub(super) commits: Vec<CommitObject>,
    pub(super) repository: RepositoryObject,
    pub(super) pusher: UserObject,
    pub(super) sender: UserObject,
}

#[derive(Debug, Serialize)]
pub(super) struct Create {
    #[serde(rename = "ref")]
    pub(super) name: String,
    pub(super) ref_type: &'static str,
    /// Empty for a branch. For a tag it is the object that the ref points to: with an annotated tag the tag object, not the
    /// commit.
    pub(super) sha: String,
    pub(super) default_branch: String,
    pub(super) repository: RepositoryObject,
    pub(super) sender: UserObject,
}

#[derive(Debug, Serialize)]
pub(super) struct Delete {
    #[serde(rename = "ref")]
    pub(super) name: String,
    pub(super) ref_type: &'static str,
    pub(super) pusher_type: &'static str,
    pub(super) repository: RepositoryObject,
    pub(super) sender: UserObject,
}

impl Push {
    /// The payload of a test delivery: the head of the default branch with `before == after`, or a fake commit in an empty
    /// repository.
    pub(super) fn test(head: Option<CommitObject>, repository: RepositoryObject, sender: UserObject) -> Self {
        let commit = match head {
            Some(head) => CommitObject { timestamp: YEAR_ONE.to_owned(), ..head },
            None => fake_commit(&repository),
        };
        Self {
            name: format!("refs/heads/{}", repository.default_branch),
            before: commit.id.clone(),
            after: commit.id.clone(),
            compare_url: String::new(),
            commits: vec![commit],
            repository,
            pusher: sender.clone(),
            sender,
        }
    }
}

fn fake_commit(repository: &RepositoryObject) -> CommitObject {
    let ghost = Signature { name: "Ghost".to_owned(), email: String::new(), username: "Ghost".to_owned() };
    CommitObject {
        id: ZERO.to_owned(),
        message: "This is a fake commit".to_owned(),
        url: format!("{}/commit/{ZERO}", repository.html_url),
        author: ghost.clone(),
        committer: ghost,
        added: None,
        removed: None,
        modified: None,
        timestamp: YEAR_ONE.to_owned(),
    }
}
