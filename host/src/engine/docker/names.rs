//! What we call things in the engine, and how we find them again. Names follow from ids alone, so that whoever comes after a crash
//! looks where the one before has put things.

use std::collections::HashMap;

use beespace_core::ids::{BuildId, StageId, StageNumber, StepId};

use crate::engine::EngineError;

/// On everything that we make.
const INSTANCE: &str = "beespace.instance";
/// On everything of a stage: its id as text.
const STAGE: &str = "beespace.stage";
const BUILD: &str = "beespace.build";
/// On everything of a step: the id of the attempt as text.
const STEP: &str = "beespace.step";
const ATTEMPT: &str = "beespace.attempt";
const CONTAINER: &str = "beespace.container";
/// On the parts of a room, and on the workspace whose room it is: the room's name.
const NETWORK: &str = "beespace.room";

/// On a container that begins with waiting for its turn.
const DEFERRED_START: &str = "beespace.waits";

pub(super) type Labels = HashMap<String, String>;

/// The names of one instance.
#[derive(Debug, Clone)]
pub(super) struct Names {
    instance: String,
}

impl Names {
    pub(super) fn new(instance: &str) -> Result<Self, EngineError> {
        let fits =
            (1..=32).contains(&instance.len()) && instance.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if fits { Ok(Self { instance: instance.to_owned() }) } else { Err(EngineError::InvalidInstance(instance.to_owned())) }
    }

    /// The stage's workspace.
    pub(super) fn workspace(&self, stage: StageId) -> String {
        format!("beespace-{}-{stage}", self.instance)
    }

    /// The scripts of the stage's containers.
    pub(super) fn scripts(&self, stage: StageId) -> String {
        format!("{}-scripts", self.workspace(stage))
    }

    /// The container through which the workspace is filled.
    pub(super) fn upload_container(&self, stage: StageId) -> String {
        format!("{}-fill", self.workspace(stage))
    }

    /// A room that is still to be made: its network and its holder are called so.
    pub(super) fn new_network(&self) -> String {
        format!("beespace-{}-room-{}", self.instance, uuid::Uuid::now_v7().as_simple())
    }

    /// A container of a plan, by its place there: its id is text that a stranger chose.
    pub(super) fn container(&self, step: StepId, place: usize) -> String {
        format!("beespace-{}-{step}-{place}", self.instance)
    }

    /// The gate's image, by what is in it.
    pub(super) fn pause_image(&self, digest: &str) -> String {
        format!("beespace-gate:{}-{digest}", self.instance)
    }

    pub(super) fn instance_labels(&self) -> Labels {
        labels([(INSTANCE, self.instance.clone())])
    }

    pub(super) fn stage_labels(&self, stage: StageId) -> Labels {
        let mut all = self.instance_labels();
        all.extend(labels([(BUILD, stage.build.to_string()), (STAGE, stage.to_string())]));
        all
    }

    pub(super) fn step_labels(&self, step: StepId) -> Labels {
        let mut all = self.stage_labels(step.stage_id());
        all.extend(labels([(STEP, step.to_string()), (ATTEMPT, step.attempt.to_string())]));
        all
    }

    pub(super) fn container_labels(&self, step: StepId, container: &str) -> Labels {
        let mut all = self.step_labels(step);
        all.extend(labels([(CONTAINER, container.to_owned())]));
        all
    }

    pub(super) fn network_labels(&self, room: &str) -> Labels {
        let mut all = self.instance_labels();
        all.extend(labels([(NETWORK, room.to_owned())]));
        all
    }

    pub(super) fn workspace_labels(&self, stage: StageId, room: &str) -> Labels {
        let mut all = self.stage_labels(stage);
        all.extend(self.network_labels(room));
        all
    }
}

/// Says of a container that it begins with waiting for its turn.
pub(super) fn mark_deferred_start(labels: &mut Labels) {
    labels.insert(DEFERRED_START.to_owned(), "1".to_owned());
}

pub(super) fn waits(labels: &Labels) -> bool {
    labels.contains_key(DEFERRED_START)
}

fn labels<const N: usize>(pairs: [(&str, String); N]) -> Labels {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What carries all of `labels`.
pub(super) fn label_filter(labels: &Labels) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), labels.iter().map(|(key, value)| format!("{key}={value}")).collect())])
}

/// The stage that something belongs to.
pub(super) fn stage_of(labels: &Labels) -> Option<StageId> {
    let (build, stage) = labels.get(STAGE)?.rsplit_once('.')?;
    Some(StageId { build: build.parse::<BuildId>().ok()?, stage: StageNumber(stage.parse().ok()?) })
}

/// The room that something is part of, or that a workspace has.
pub(super) fn network_of(labels: &Labels) -> Option<String> {
    labels.get(NETWORK).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_read_back_from_its_labels() {
        let names = Names::new("a1").unwrap();
        let stage = StageId { build: BuildId(uuid::Uuid::from_u128(7)), stage: StageNumber(2) };
        assert_eq!(stage_of(&names.stage_labels(stage)), Some(stage));
        assert_eq!(stage_of(&names.instance_labels()), None);
    }

    #[test]
    fn an_instance_is_a_short_plain_word() {
        for text in ["", "A", "a-b", "a b", "ä", &"a".repeat(33)] {
            assert!(Names::new(text).is_err(), "{text:?}");
        }
    }
}
