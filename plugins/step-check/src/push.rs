//! The commits of the event (`beespace.event/v1`).

use serde::Deserialize;

/// A commit of the push.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Commit {
    pub(crate) sha: String,
    pub(crate) message: String,
    /// Whether the end of the message is missing.
    #[serde(default)]
    pub(crate) message_truncated: bool,
    pub(crate) parent_count: Option<u64>,
}

impl Commit {
    /// Whether git wrote the message. Only the parents show it: anyone can begin a message with "Merge".
    pub(crate) fn is_merge(&self) -> bool {
        self.parent_count.is_some_and(|count| count > 1)
    }
}

/// The commits of a push, as far as the event lists them.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Push {
    #[serde(default)]
    pub(crate) commits: Vec<Commit>,
    /// The true number; none if git could not determine it.
    pub(crate) commit_count: Option<u64>,
}

impl Push {
    pub(crate) fn read(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| format!("the event is invalid: {error}"))
    }

    #[cfg(test)]
    pub(crate) fn of_count(count: usize) -> Self {
        Self { commit_count: u64::try_from(count).ok(), ..Self::default() }
    }

    /// Which commits the event does not list, in words. `None`: it lists all.
    pub(crate) fn unlisted(&self) -> Option<String> {
        let listed = u64::try_from(self.commits.len()).unwrap_or(u64::MAX);
        match self.commit_count {
            Some(count) if count <= listed => None,
            Some(count) => Some(format!("{} of {count} commits were not checked", count.saturating_sub(listed))),
            None => Some("the commits of the push are unknown and were not checked".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_that_the_event_does_not_list_are_counted() {
        let unlisted = |event: &str| Push::read(event).unwrap().unlisted();
        let one = r#"{"sha": "a", "message": "b", "parent_count": 1}"#;
        assert_eq!(unlisted(&format!(r#"{{"commits": [{one}], "commit_count": 1}}"#)), None);
        let missing = unlisted(&format!(r#"{{"commits": [{one}], "commit_count": 61, "truncated": true}}"#));
        assert_eq!(missing.as_deref(), Some("60 of 61 commits were not checked"));
        let unknown = unlisted(r#"{"commits": [], "commit_count": null}"#).unwrap();
        assert_eq!(unknown, "the commits of the push are unknown and were not checked");
    }
}
