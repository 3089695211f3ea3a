//! The secrets of a stage: decrypted once, given to the steps that name them, and masked in all of the stage's logs.

use std::collections::{BTreeMap, BTreeSet};

use beespace_core::build::Build;
use beespace_core::mask;
use beespace_core::plan::StepPlan;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use secrecy::{ExposeSecret as _, SecretString};

use crate::app::App;
use crate::store::secret::{SecretScope, Secrets as _};

/// Values by name.
#[derive(Debug, Default)]
pub(super) struct StageSecrets {
    values: BTreeMap<String, SecretString>,
}

impl StageSecrets {
    /// Decrypts the secrets that `names` contains. A repository's secret takes precedence over the instance's secret of the
    /// same name. Names without a secret are left out: the step that needs one reports it when it starts.
    ///
    /// # Errors
    /// A secret that cannot be read or decrypted, as a reason for people.
    pub(super) fn open(app: &App, build: &Build, names: &BTreeSet<String>) -> Result<Self, Reason> {
        let mut values = BTreeMap::new();
        let read = app.store.read().map_err(|error| Reason::new(ReasonCode::StoreUnavailable, error.to_string()))?;
        for name in names {
            for scope in [SecretScope::Repository(build.event.repository.id), SecretScope::Instance] {
                let row =
                    read.secret(scope, name).map_err(|error| Reason::new(ReasonCode::StoreUnavailable, error.to_string()))?;
                let Some(row) = row else { continue };
                let value = app.key.open(&scope.associated_data(name), &row.value).map_err(|error| unreadable(name, &error))?;
                let text = String::from_utf8(value.to_vec()).map_err(|error| unreadable(name, &error))?;
                values.insert(name.clone(), SecretString::from(text));
                break;
            }
        }
        Ok(Self { values })
    }

    /// The values that the stage's logs must not show.
    ///
    /// # Errors
    /// A value that is too large to be masked.
    pub(super) fn mask(&self) -> Result<mask::Secrets, Reason> {
        let values = self.values.values().map(|value| value.expose_secret().as_bytes());
        mask::Secrets::new(values).map_err(|error| Reason::new(ReasonCode::SecretTooLarge, error.to_string()))
    }

    /// The values of the secrets that a plan names.
    ///
    /// # Errors
    /// The first name without a secret.
    pub(super) fn for_plan(&self, plan: &StepPlan) -> Result<BTreeMap<String, SecretString>, Reason> {
        let names = plan.containers.iter().flat_map(|container| &container.secrets).map(|mount| &mount.secret);
        names.map(|name| Ok((name.clone(), self.values.get(name).cloned().ok_or_else(|| missing(name))?))).collect()
    }
}

fn missing(name: &str) -> Reason {
    Reason::new(ReasonCode::SecretMissing, format!("secret {name:?} is not set for this repository"))
        .help(format!("an administrator can set it with `beespace secret set {name} --repo OWNER/NAME`"))
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> Reason {
    Reason::new(ReasonCode::SecretUnreadable, format!("secret {name:?} cannot be decrypted: {error}"))
        .help("set the secret again: a new key file cannot decrypt secrets that were encrypted with the old one")
}
