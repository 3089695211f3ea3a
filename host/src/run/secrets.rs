//! The secrets of a stage: decrypted once, given to the steps that name them, and masked in all of the stage's logs.

use std::collections::{BTreeMap, BTreeSet};

use beespace_core::build::{Build, Stage};
use beespace_core::mask;
use beespace_core::pipeline::eval_when::StageConditions;
use beespace_core::plan::StepPlan;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::time::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use crate::app::App;
use crate::encryption::Sealed;
use crate::store::secret::{SecretScope, Secrets as _};
use crate::store::{Read, StoreError};

/// Values by name.
#[derive(Debug, Default)]
pub(super) struct StageSecrets {
    values: BTreeMap<String, SecretString>,
    /// Other values that the stage's containers may have: earlier values, and those of a scope that is not the nearest any more.
    also_masked: Vec<SecretString>,
    /// The code is untrusted: every secret is an empty value.
    are_withheld: bool,
    /// Names that only plugins may use.
    of_plugins: BTreeSet<String>,
    /// `owner/name` of the stage's repository, for the commands that people are told.
    repository: String,
}

impl StageSecrets {
    /// Decrypts the secrets that `names` contains. A repository's secret takes precedence over the instance's secret of the
    /// same name; secrets of plugins are never opened. Names without a secret are left out. For untrusted code nothing is opened,
    /// not even for the mask: masked output would confirm what the code guesses.
    ///
    /// `began`: when the stage started. Values that it may have got since then are masked, even if they were replaced.
    ///
    /// # Errors
    /// A secret that cannot be read or decrypted, as a reason for people.
    pub(super) fn open(app: &App, build: &Build, names: &BTreeSet<String>, began: Option<Timestamp>) -> Result<Self, Reason> {
        let mut secrets = Self { repository: build.event.repository.name.to_string(), ..Self::default() };
        if !build.trust().permits_secrets() {
            return Ok(Self { are_withheld: true, ..secrets });
        }
        let read = app.store.read().map_err(|error| unavailable(&error))?;
        let repository = SecretScope::Repository(build.event.repository.id);
        for name in names {
            for scope in [repository, SecretScope::Instance] {
                if let Some(row) = read.secret(scope, name).map_err(|error| unavailable(&error))? {
                    let value = decrypt(app, scope, name, &row.value)?;
                    if secrets.values.contains_key(name) {
                        secrets.also_masked.push(value);
                    } else {
                        secrets.values.insert(name.clone(), value);
                    }
                }
                secrets.also_masked.extend(earlier_values(app, &read, (scope, name), began)?);
            }
            if read.secret(SecretScope::Plugins, name).map_err(|error| unavailable(&error))?.is_some() {
                secrets.of_plugins.insert(name.clone());
            }
        }
        Ok(secrets)
    }

    /// The values that the stage's logs must not show.
    ///
    /// # Errors
    /// A value that is too large to be masked.
    pub(super) fn mask(&self) -> Result<mask::Secrets, Reason> {
        let values = self.values.values().chain(&self.also_masked).map(|value| value.expose_secret().as_bytes());
        mask::Secrets::new(values).map_err(|error| Reason::new(ReasonCode::SecretTooLarge, error.to_string()))
    }

    /// The values of the secrets that a plan names.
    ///
    /// # Errors
    /// The first name without a secret.
    pub(super) fn for_plan(&self, plan: &StepPlan) -> Result<BTreeMap<String, SecretString>, Reason> {
        let value = |name: &String| match self.values.get(name) {
            _ if self.are_withheld => Ok((name.clone(), SecretString::from(""))),
            Some(value) => Ok((name.clone(), value.clone())),
            None => Err(self.missing(name)),
        };
        names_of(plan).map(value).collect()
    }

    /// Why a stage must not start: every secret that is missing for a step that may run.
    pub(super) fn missing_for(&self, stage: &Stage, conditions: &StageConditions) -> Option<Reason> {
        if self.are_withheld {
            return None;
        }
        let may_run = |number| conditions.may_run(number);
        let plans = stage.steps.iter().filter(|step| may_run(step.number)).filter_map(|step| step.round.as_ref());
        let names: BTreeSet<&String> = plans.flat_map(|round| names_of(&round.plan)).collect();
        let mut missing: Vec<Reason> =
            names.into_iter().filter(|name| !self.values.contains_key(*name)).map(|name| self.missing(name)).collect();
        match missing.len() {
            0 | 1 => missing.pop(),
            count => {
                let all = Reason::new(ReasonCode::SecretMissing, format!("{count} secrets are missing"));
                Some(missing.into_iter().fold(all, Reason::part))
            }
        }
    }

    fn missing(&self, name: &str) -> Reason {
        let repository = &self.repository;
        if self.of_plugins.contains(name) {
            let message = format!("secret {name:?} is reserved for plugins: no pipeline can read it");
            return Reason::new(ReasonCode::SecretOfPlugins, message).help(format!(
                "an administrator can set it for pipelines with `beespace secret set {name} --repo {repository}` or \
                 `beespace secret set {name} --instance`"
            ));
        }
        Reason::new(ReasonCode::SecretMissing, format!("secret {name:?} is not set for this repository"))
            .help(format!("an administrator can set it with `beespace secret set {name} --repo {repository}`"))
    }
}

fn names_of(plan: &StepPlan) -> impl Iterator<Item = &String> {
    plan.containers.iter().flat_map(|container| &container.secrets).map(|mount| &mount.secret)
}

/// The values that were replaced or removed since the stage began.
fn earlier_values(
    app: &App,
    read: &Read,
    (scope, name): (SecretScope, &str),
    began: Option<Timestamp>,
) -> Result<Vec<SecretString>, Reason> {
    let Some(began) = began else { return Ok(Vec::new()) };
    let replaced = read.replaced_secrets(scope, name, began).map_err(|error| unavailable(&error))?;
    // A value that cannot be decrypted was never given to a step of this server.
    Ok(replaced.iter().filter_map(|one| decrypt(app, scope, name, &one.value).ok()).collect())
}

fn decrypt(app: &App, scope: SecretScope, name: &str, value: &Sealed) -> Result<SecretString, Reason> {
    let value = app.key.open(&scope.associated_data(name), value).map_err(|error| unreadable(name, &error))?;
    Ok(SecretString::from(String::from_utf8(value.to_vec()).map_err(|error| unreadable(name, &error))?))
}

fn unavailable(error: &StoreError) -> Reason {
    Reason::new(ReasonCode::StoreUnavailable, error.to_string())
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> Reason {
    Reason::new(ReasonCode::SecretUnreadable, format!("secret {name:?} cannot be decrypted: {error}"))
        .help("set the secret again: a new key file cannot decrypt secrets that were encrypted with the old one")
}
