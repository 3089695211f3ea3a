//! The schedules that the pipeline files of a build define.

use super::Build;
use crate::event::EventKind;
use crate::schedule::Schedule;

impl Build {
    /// The schedules of its pipeline files.
    pub fn schedules(&self) -> impl Iterator<Item = &Schedule> {
        self.files.iter().flat_map(|file| &file.schedules)
    }

    /// Whether its pipeline files define the schedules of the repository: they are the present files of the default branch, and
    /// have no problems. A repeated build has older files.
    #[must_use]
    pub fn defines_schedules(&self) -> bool {
        let is_present = matches!(self.event.kind(), EventKind::Push | EventKind::Manual | EventKind::Cron);
        let has_problems = self.files.iter().any(|file| !file.diagnostics.is_empty());
        is_present && self.is_on_default_branch() && self.restart_of.is_none() && !has_problems
    }

    /// Whether the branch that is built is the repository's default branch.
    #[must_use]
    pub fn is_on_default_branch(&self) -> bool {
        self.event.branch() == Some(self.event.repository.default_branch.as_str())
    }
}
