//! The names and labels of everything that an instance makes in the engine. Names are derived from ids alone, so that a process
//! after a crash finds what the process before it has made.

use std::collections::HashMap;

use beespace_core::ids::{BuildId, StageId, StageNumber, StepId};

use crate::engine::EngineError;

/// On every object of an instance.
const INSTANCE: &str = "beespace.instance";
/// On every object of a stage: the stage's id as text.
const STAGE: &str = "beespace.stage";
const BUILD: &str = "beespace.build";
/// On every object of a step: the id of the attempt as text.
const STEP: &str = "beespace.step";
const ATTEMPT: &str = "beespace.attempt";
const CONTAINER: &str = "beespace.container";
/// On a network, on its pause container, and on the workspace of the stage that uses the network: the network's name.
const NETWORK: &str = "beespace.network";
/// On a container whose program waits for the start signal.
const DEFERRED_START: &str = "beespace.deferred-start";

pub(super) type Labels = HashMap<String, String>;

/// The names of one instance.
#[derive(Debug, Clone)]
pub(super) struct Names {
    instance: String,
}

impl Names {
    pub(super) fn new(instance: &str) -> Result<Self, EngineError> {
        let is_valid =
            (1..=32).contains(&instance.len()) && instance.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if is_valid { Ok(Self { instance: instance.to_owned() }) } else { Err(EngineError::InvalidInstance(instance.to_owned())) }
    }

    /// The volume that is the stage's workspace.
    pub(super) fn workspace(&self, stage: StageId) -> String {
        format!("beespace-{}-{stage}", self.instance)
    }

    /// The volume with the scripts of the stage's containers.
    pub(super) fn scripts(&self, stage: StageId) -> String {
        format!("{}-scripts", self.workspace(stage))
    }

    /// The container through which the workspace and the scripts are uploaded.
    pub(super) fn upload_container(&self, stage: StageId) -> String {
        format!("{}-fill", self.workspace(stage))
    }

    /// A network that does not exist yet. Its pause container has the same name.
    pub(super) fn new_network(&self) -> String {
        format!("beespace-{}-network-{}", self.instance, uuid::Uuid::now_v7().as_simple())
    }

    /// A container of a plan, by its index in the plan: the container's id is text from the repository.
    pub(super) fn container(&self, step: StepId, index: usize) -> String {
        format!("beespace-{}-{step}-{index}", self.instance)
    }

    /// The container that shows whether an init process works. No build has the nil id.
    pub(super) fn init_probe(&self) -> String {
        let no_stage = StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(0) };
        format!("{}-probe", self.workspace(no_stage))
    }

    /// The image of pause containers, by the digest of its program.
    pub(super) fn pause_image(&self, digest: &str) -> String {
        format!("beespace-pause:{}-{digest}", self.instance)
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

    pub(super) fn network_labels(&self, network: &str) -> Labels {
        let mut all = self.instance_labels();
        all.extend(labels([(NETWORK, network.to_owned())]));
        all
    }

    pub(super) fn workspace_labels(&self, stage: StageId, network: &str) -> Labels {
        let mut all = self.stage_labels(stage);
        all.extend(self.network_labels(network));
        all
    }
}

/// Marks a container whose program waits for the start signal.
pub(super) fn mark_deferred_start(labels: &mut Labels) {
    labels.insert(DEFERRED_START.to_owned(), "1".to_owned());
}

pub(super) fn is_deferred_start(labels: &Labels) -> bool {
    labels.contains_key(DEFERRED_START)
}

fn labels<const N: usize>(pairs: [(&str, String); N]) -> Labels {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A filter for objects that have all of `labels`.
pub(super) fn label_filter(labels: &Labels) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), labels.iter().map(|(key, value)| format!("{key}={value}")).collect())])
}

/// The stage that an object belongs to.
pub(super) fn stage_of(labels: &Labels) -> Option<StageId> {
    let (build, stage) = labels.get(STAGE)?.rsplit_once('.')?;
    Some(StageId { build: build.parse::<BuildId>().ok()?, stage: StageNumber(stage.parse().ok()?) })
}

/// The network that an object is part of, or that a workspace's stage uses.
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
    fn an_instance_name_is_short_and_alphanumeric() {
        for text in ["", "A", "a-b", "a b", "ä", &"a".repeat(33)] {
            assert!(Names::new(text).is_err(), "{text:?}");
        }
    }
}
