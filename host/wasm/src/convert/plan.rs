//! Conversion of step-type plans from WIT. Malformed plans are rejected here; the baseline policy and the policies decide what a
//! plan may do.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use beespace_core::plan::{Container, Limits, Mount, MountSource, Network, SecretMount, SecretTarget, StepPlan, is_container_id};
use beespace_core::policy::ErrorClass;
use beespace_core::status::Status;
use beespace_core::step_type::{Conclusion, Directive};

use super::from_wit::OutputReader;
use crate::bindings::step::beespace::plugin::exec_types;
use crate::bindings::step::exports::beespace::plugin::step;
use crate::error::PluginError;
use crate::sanitize::sanitize;

const MAX_CONTAINERS: usize = 64;
/// Maximum number of entries in each list of a container: variables, mounts, secrets, arguments.
const MAX_LIST_LEN: usize = 256;
const MAX_STATE_BYTES: usize = 64 << 10;

/// The step that a plan belongs to.
pub(crate) struct StepIdentity<'a> {
    pub(crate) step: &'a str,
    pub(crate) uses: &'a str,
}

impl OutputReader<'_> {
    pub(crate) fn directive(&mut self, planned: &StepIdentity<'_>, directive: step::Directive) -> Result<Directive, PluginError> {
        match directive {
            step::Directive::Run(plan) => self.plan(planned, plan).map(Directive::Run),
            step::Directive::Done(outcome) => self.conclusion(outcome).map(Directive::Done),
        }
    }

    fn conclusion(&mut self, outcome: step::Outcome) -> Result<Conclusion, PluginError> {
        self.charge(outcome.outputs.len())?;
        let outputs = if outcome.outputs.is_empty() { "{}" } else { &outcome.outputs };
        Ok(Conclusion {
            status: match outcome.status {
                step::ResultStatus::Success => Status::Success,
                step::ResultStatus::Failure => Status::Failure,
                step::ResultStatus::Skipped => Status::Skipped,
            },
            outputs: serde_json::from_str(outputs).map_err(|_| self.malformed("outputs that are not a JSON object"))?,
            findings: self.findings(outcome.findings)?,
            message: self.sentence(&outcome.message)?,
        })
    }

    pub(crate) fn plan(&mut self, planned: &StepIdentity<'_>, plan: exec_types::Plan) -> Result<StepPlan, PluginError> {
        self.check_count("containers", plan.containers.len(), MAX_CONTAINERS)?;
        if plan.state.len() > MAX_STATE_BYTES {
            let message = format!("{} returned {} bytes of state; the limit is {MAX_STATE_BYTES}", self.label, plan.state.len());
            return Err(PluginError::new(ErrorClass::OutputTooLarge, message));
        }
        if !plan.artifacts.is_empty() {
            let message = format!("{} declares artifacts, which this version of Beespace does not support", self.label);
            return Err(PluginError::new(ErrorClass::Incompatible, message));
        }
        let containers = plan.containers.into_iter().map(|container| self.container(container));
        let plan = StepPlan {
            step: planned.step.to_owned(),
            uses: Some(planned.uses.to_owned()),
            containers: containers.collect::<Result<_, _>>()?,
            summary: self.sentence(&plan.summary)?,
            state: base64::prelude::BASE64_STANDARD.encode(plan.state),
        };
        self.check_graph(&plan)?;
        Ok(plan)
    }

    /// Checks that ids are unique and that `needs` refers only to earlier containers, which also excludes cycles.
    fn check_graph(&self, plan: &StepPlan) -> Result<(), PluginError> {
        let mut seen = BTreeSet::new();
        for container in &plan.containers {
            if let Some(unknown) = container.needs.iter().find(|needed| !seen.contains(needed.as_str())) {
                let id = &container.id;
                let unknown = sanitize(unknown, 100);
                return Err(self
                    .malformed(format_args!("container {id:?}, which needs {unknown:?}, but no earlier container has that id")));
            }
            if !seen.insert(container.id.as_str()) {
                return Err(self.malformed(format_args!("two containers with the id {:?}", container.id)));
            }
        }
        Ok(())
    }

    fn container(&mut self, container: exec_types::Container) -> Result<Container, PluginError> {
        if container.script.is_some() && (container.entrypoint.is_some() || container.args.is_some()) {
            return Err(self.malformed("a container that has a script and also an entrypoint or arguments"));
        }
        self.check_count("variables", container.env.len(), MAX_LIST_LEN)?;
        self.check_count("secrets", container.secrets.len(), MAX_LIST_LEN)?;
        self.check_count("mounts", container.mounts.len(), MAX_LIST_LEN)?;
        Ok(Container {
            id: self.container_id(container.id)?,
            image: self.image(container.image)?,
            entrypoint: container.entrypoint.map(|texts| self.texts(texts)).transpose()?,
            args: container.args.map(|texts| self.texts(texts)).transpose()?,
            script: container.script.map(|script| self.text(script)).transpose()?,
            env: self.env(container.env)?,
            secrets: container.secrets.into_iter().map(|secret| self.secret(secret)).collect::<Result<_, _>>()?,
            pull: None,
            workdir: container.workdir.map(|path| self.path(path)).transpose()?,
            user: container.user.map(|user| self.identifier("user", user)).transpose()?,
            mounts: container.mounts.into_iter().map(|mount| self.mount(mount)).collect::<Result<_, _>>()?,
            limits: Limits {
                cpu_millis: container.limits.cpu_millis,
                memory_bytes: container.limits.memory_bytes,
                pids: container.limits.pids,
                timeout_seconds: container.limits.timeout_seconds,
            },
            network: match container.network {
                exec_types::Network::None => Network::None,
                exec_types::Network::EgressAllowList => Network::EgressAllowList,
                exec_types::Network::BuildDefault => Network::BuildDefault,
            },
            shell: None,
            privileged: false,
            devices: Vec::new(),
            tmpfs: BTreeMap::new(),
            needs: self.texts(container.needs)?,
            service: container.service,
        })
    }

    fn env(&mut self, env: Vec<(String, String)>) -> Result<BTreeMap<String, String>, PluginError> {
        env.into_iter().map(|(name, value)| Ok((self.variable(name)?, self.text(value)?))).collect()
    }

    fn secret(&mut self, mount: exec_types::SecretMount) -> Result<SecretMount, PluginError> {
        Ok(SecretMount {
            secret: self.identifier("secret name", mount.secret)?,
            target: match mount.target {
                exec_types::SecretTarget::Env(name) => SecretTarget::Env(self.variable(name)?),
                exec_types::SecretTarget::File(path) => SecretTarget::File(self.path(path)?),
            },
        })
    }

    fn mount(&mut self, mount: exec_types::Mount) -> Result<Mount, PluginError> {
        Ok(Mount {
            source: match mount.source {
                exec_types::MountSource::Workspace => MountSource::Workspace,
                exec_types::MountSource::Cache(cache) => {
                    MountSource::Cache { key: self.text(cache.key)?, restore_keys: self.texts(cache.restore_keys)? }
                }
                exec_types::MountSource::Volume(container) => MountSource::Volume(self.container_id(container)?),
            },
            path: self.path(mount.path)?,
            read_only: mount.read_only,
        })
    }

    /// Text without a zero byte: a program in a container would read it only up to that byte.
    fn text(&mut self, text: String) -> Result<String, PluginError> {
        self.charge(text.len())?;
        if text.contains('\0') { Err(self.malformed("a text with a zero byte")) } else { Ok(text) }
    }

    fn texts(&mut self, texts: Vec<String>) -> Result<Vec<String>, PluginError> {
        self.check_count("texts in one list", texts.len(), MAX_LIST_LEN)?;
        texts.into_iter().map(|text| self.text(text)).collect()
    }

    /// Checks the rule of the baseline policy, so that the error appears here already and names the plugin.
    fn container_id(&mut self, id: String) -> Result<String, PluginError> {
        self.charge(id.len())?;
        if is_container_id(&id) {
            return Ok(id);
        }
        let rule = "1 to 63 of a-z, 0-9 and `-`, starting with a letter or digit";
        Err(self.malformed(format_args!("the container id {:?}, which is not {rule}", sanitize(&id, 100))))
    }

    /// Accepts 1 to 100 of `[A-Za-z0-9_.:-]`.
    fn identifier(&mut self, what: &str, word: String) -> Result<String, PluginError> {
        self.charge(word.len())?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':');
        if (1..=100).contains(&word.len()) && word.bytes().all(plain) {
            return Ok(word);
        }
        Err(self.malformed(format_args!("the {what} {:?}, which is not 1 to 100 of A-Z, a-z, 0-9, `_.:-`", sanitize(&word, 100))))
    }

    fn variable(&mut self, name: String) -> Result<String, PluginError> {
        self.charge(name.len())?;
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if (1..=256).contains(&name.len()) && plain && !name.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(name);
        }
        Err(self.malformed(format_args!("{:?}, which is not a variable name", sanitize(&name, 100))))
    }

    fn image(&mut self, image: String) -> Result<String, PluginError> {
        self.charge(image.len())?;
        if (1..=512).contains(&image.len()) && image.bytes().all(|b| b.is_ascii_graphic()) && !image.starts_with('-') {
            return Ok(image);
        }
        Err(self.malformed(format_args!("{:?}, which is not an image name", sanitize(&image, 100))))
    }

    /// Accepts an absolute path without `..` and control characters.
    fn path(&mut self, path: String) -> Result<String, PluginError> {
        self.charge(path.len())?;
        let stays = path.split('/').all(|part| part != "..") && !path.chars().any(char::is_control);
        if path.starts_with('/') && path.len() <= 4 << 10 && stays {
            return Ok(path);
        }
        Err(self.malformed(format_args!("{:?}, which is not an absolute path without `..`", sanitize(&path, 100))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str) -> exec_types::Container {
        exec_types::Container {
            id: id.to_owned(),
            image: "rust:1.95".to_owned(),
            entrypoint: None,
            args: None,
            script: Some("cargo test".to_owned()),
            env: vec![("A".to_owned(), "b".to_owned())],
            workdir: None,
            user: None,
            mounts: vec![mount("/workspace")],
            secrets: Vec::new(),
            limits: exec_types::Limits { cpu_millis: None, memory_bytes: Some(1 << 30), pids: None, timeout_seconds: None },
            network: exec_types::Network::BuildDefault,
            needs: Vec::new(),
            service: false,
        }
    }

    fn mount(path: &str) -> exec_types::Mount {
        exec_types::Mount { source: exec_types::MountSource::Workspace, path: path.to_owned(), read_only: false }
    }

    fn read(containers: Vec<exec_types::Container>) -> Result<StepPlan, PluginError> {
        let plan = exec_types::Plan { containers, artifacts: Vec::new(), summary: "tests".to_owned(), state: b"state".to_vec() };
        OutputReader::new("step \"x\"", 1 << 20).plan(&StepIdentity { step: "test", uses: "cargo" }, plan)
    }

    #[test]
    fn a_plan_is_converted_without_loss() {
        let needing = exec_types::Container { needs: vec!["a".to_owned()], ..container("b") };
        let plan = read(vec![container("a"), needing]).unwrap();
        assert_eq!((plan.step.as_str(), plan.uses.as_deref(), plan.state.as_str()), ("test", Some("cargo"), "c3RhdGU="));
        let first = &plan.containers[0];
        assert_eq!((first.image.as_str(), first.script.as_deref()), ("rust:1.95", Some("cargo test")));
        assert_eq!(first.limits.memory_bytes, Some(1 << 30));
        assert_eq!(plan.containers[1].needs, ["a"]);
    }

    #[test]
    fn a_container_id_follows_the_rule_of_the_wit_file_and_the_baseline_policy() {
        let longest = "a".repeat(63);
        for id in ["a", "0", "unit-tests", "a-", longest.as_str()] {
            let plan = read(vec![container(id)]).unwrap();
            let findings =
                beespace_core::baseline_policy::evaluate(&plan, &beespace_core::baseline_policy::StepBounds::default()).findings;
            assert!(findings.iter().all(|finding| !finding.rule_id.contains("container-id")), "{id}: {findings:?}");
        }
        let too_long = "a".repeat(64);
        for id in ["", "-a", "Unit", "a_b", "a.b", "a:b", "é", too_long.as_str()] {
            let error = read(vec![container(id)]).unwrap_err();
            assert_eq!(error.class, ErrorClass::Malformed, "{id}");
            assert!(error.message.contains("1 to 63 of a-z, 0-9 and `-`"), "{}", error.message);
        }
        let wit = include_str!("../../../../wit/step.wit");
        assert!(wit.contains("1 to 63 of a-z, 0-9 and `-`"), "the WIT file documents another rule");
    }

    #[test]
    fn malformed_plans_are_rejected() {
        let change = |change: &dyn Fn(&mut exec_types::Container)| {
            let mut one = container("a");
            change(&mut one);
            vec![one]
        };
        let wrong: &[(&str, Vec<exec_types::Container>)] = &[
            ("a duplicate id", vec![container("a"), container("a")]),
            ("an unknown need", change(&|one| one.needs = vec!["b".to_owned()])),
            ("a container that needs itself", change(&|one| one.needs = vec!["a".to_owned()])),
            ("an invalid id", change(&|one| one.id = "../a".to_owned())),
            ("an image that is an option", change(&|one| one.image = "--privileged".to_owned())),
            ("an image with a line break", change(&|one| one.image = "a\nb".to_owned())),
            ("a script and arguments", change(&|one| one.args = Some(Vec::new()))),
            ("a zero byte", change(&|one| one.script = Some("a\0b".to_owned()))),
            ("a variable with =", change(&|one| one.env = vec![("A=B".to_owned(), String::new())])),
            ("a variable that is a number", change(&|one| one.env = vec![("1A".to_owned(), String::new())])),
            ("a path with ..", change(&|one| one.mounts = vec![mount("/workspace/../etc")])),
            ("a relative path", change(&|one| one.workdir = Some("src".to_owned()))),
        ];
        for (what, containers) in wrong {
            assert_eq!(read(containers.clone()).unwrap_err().class, ErrorClass::Malformed, "{what}");
        }
    }

    #[test]
    fn oversized_plans_are_rejected() {
        let many = (0..65).map(|number| container(&format!("c{number}"))).collect();
        assert_eq!(read(many).unwrap_err().class, ErrorClass::OutputTooLarge);
        let long = exec_types::Container { script: Some("x".repeat(2 << 20)), ..container("a") };
        assert_eq!(read(vec![long]).unwrap_err().class, ErrorClass::OutputTooLarge);
    }

    #[test]
    fn outputs_must_be_a_json_object() {
        let end = |outputs: &str| {
            let outcome = step::Outcome {
                status: step::ResultStatus::Skipped,
                outputs: outputs.to_owned(),
                findings: Vec::new(),
                message: "nothing\u{202e} to do".to_owned(),
            };
            OutputReader::new("step \"x\"", 1 << 20).conclusion(outcome)
        };
        assert!(end("[]").is_err());
        let conclusion = end(r#"{"a": 1}"#).unwrap();
        assert_eq!((conclusion.status, conclusion.message.as_str()), (Status::Skipped, "nothing to do"));
        assert!(end("").unwrap().outputs.is_empty());
    }
}
