//! The stages of a build as a whole.

use crate::build::Stage;
use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::status::{Status, fold};
use crate::time::Timestamp;
use crate::user_action;

/// Most pipelines that the reason of a skipped build lists. Its row holds them.
const MAX_LISTED: usize = 20;

/// The status of a build and its reason: those of the stage that decides. If the build has several stages, the reason begins with
/// the name of that stage, because it is also shown where the stage is not. `caused_by` is the stable id of the user who caused
/// the build.
#[must_use]
pub fn status(stages: &[Stage], caused_by: &str, now: Timestamp) -> (Status, Option<Reason>) {
    let status = fold(stages.iter().map(Stage::display_status));
    let decisive = stages.iter().find(|stage| stage.display_status() == status);
    let reason = decisive.and_then(|stage| user_action::status_reason(stage, caused_by, now));
    let reason = match (stages, decisive) {
        ([] | [_], _) => reason,
        _ if status == Status::Skipped => Some(all_skipped(stages)),
        (_, Some(stage)) => reason.map(|reason| of_stage(stage, reason)),
        (_, None) => reason,
    };
    (status, reason)
}

fn of_stage(stage: &Stage, reason: Reason) -> Reason {
    Reason { message: format!("{}: {}", stage.pipeline.name, reason.message), ..reason }
}

fn all_skipped(stages: &[Stage]) -> Reason {
    let reasons = stages.iter().filter_map(|stage| Some(of_stage(stage, stage.reason.clone()?))).take(MAX_LISTED);
    let reason = reasons.fold(Reason::new(ReasonCode::WhenMismatch, "no pipeline runs for this event"), Reason::part);
    match stages.len().saturating_sub(MAX_LISTED) {
        0 => reason,
        more => reason.part(Reason::new(ReasonCode::WhenMismatch, format!("and {more} more pipelines"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BuildId, StageId, StageNumber};

    fn stage(name: &str, number: u16, status: Status, reason: &str) -> Stage {
        let file = format!("name: {name}\nsteps: [{{ name: a, image: x }}]\n");
        let pipeline = crate::pipeline::read("f", file.as_bytes()).unwrap().pipeline;
        let id = StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(number) };
        let mut stage = Stage::pending(id, pipeline, None, Vec::new(), Timestamp(0));
        (stage.status, stage.reason) = (status, Some(Reason::new(ReasonCode::ExitCode, reason)));
        stage
    }

    fn reason(stages: &[Stage]) -> String {
        status(stages, "gogs:1", Timestamp(0)).1.unwrap().to_string()
    }

    #[test]
    fn the_reason_of_a_build_names_the_stage_that_decides() {
        let stages = [stage("lint", 1, Status::Success, ""), stage("test", 2, Status::Failure, "step a: exit code 1")];
        assert_eq!(status(&stages, "gogs:1", Timestamp(0)).0, Status::Failure);
        assert_eq!(reason(&stages), "test: step a: exit code 1");
        assert_eq!(reason(&stages[1..]), "step a: exit code 1", "the only stage needs no name");
    }

    #[test]
    fn a_build_of_which_no_pipeline_runs_lists_the_reasons() {
        let stages: Vec<Stage> = (1..=22).map(|number| stage(&format!("p{number}"), number, Status::Skipped, "no")).collect();
        let text = reason(&stages);
        assert!(text.starts_with("no pipeline runs for this event: p1: no"), "{text}");
        assert!(text.contains("p20: no") && !text.contains("p21") && text.contains("and 2 more pipelines"), "{text}");
    }
}
