//! Refusals of notices in a row, from which the host concludes that a notifier is misconfigured.
//!
//! One refused notice proves nothing: a receiver may refuse the text of a single build, and an attacker can choose it. Only
//! refusals of notices about several builds suspend a notifier, and if more than one repository is enabled, they must come from
//! more than one. An attacker who pushes to one repository therefore cannot silence a notifier for the others.

use serde::{Deserialize, Serialize};

use crate::ids::{BuildId, RepositoryId};

/// Builds whose notices must be refused in a row.
const BUILDS: usize = 3;

/// The builds whose notices a notifier has refused since it last delivered one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refusals(Vec<(BuildId, RepositoryId)>);

impl Refusals {
    /// Adds a refusal.
    pub fn add(&mut self, build: BuildId, repository: RepositoryId) {
        if self.0.iter().any(|(known, _)| *known == build) {
            return;
        }
        if self.0.len() < BUILDS {
            self.0.push((build, repository));
        } else if !self.has_two_repositories()
            && let Some(last) = self.0.last_mut()
        {
            // The list stays short, and a second repository is not missed.
            *last = (build, repository);
        }
    }

    /// Whether the notifier is to be suspended. `is_shared`: more than one repository is enabled.
    #[must_use]
    pub fn prove_misconfiguration(&self, is_shared: bool) -> bool {
        self.0.len() >= BUILDS && (self.has_two_repositories() || !is_shared)
    }

    fn has_two_repositories(&self) -> bool {
        self.0.first().is_some_and(|(_, first)| self.0.iter().any(|(_, repository)| repository != first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(of: &[(u128, u64)]) -> Refusals {
        let mut refusals = Refusals::default();
        for (build, repository) in of {
            refusals.add(BuildId(uuid::Uuid::from_u128(*build)), RepositoryId(*repository));
        }
        refusals
    }

    #[test]
    fn notices_of_one_build_prove_nothing() {
        assert!(!refusals(&[(1, 1), (1, 1), (1, 1), (1, 1)]).prove_misconfiguration(false));
    }

    #[test]
    fn notices_of_one_repository_prove_nothing_about_the_others() {
        let of_one = refusals(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
        assert!(!of_one.prove_misconfiguration(true));
        assert!(of_one.prove_misconfiguration(false), "the instance has no other repository");
    }

    #[test]
    fn notices_of_several_builds_and_repositories_prove_it() {
        assert!(refusals(&[(1, 1), (2, 1), (3, 2)]).prove_misconfiguration(true));
        assert!(refusals(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 2)]).prove_misconfiguration(true));
        assert!(!refusals(&[(1, 1), (2, 2)]).prove_misconfiguration(true));
    }
}
