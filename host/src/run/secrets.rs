//! The secrets a stage may see: opened once, given to the steps that name them, masked in all logs.

use std::collections::{BTreeMap, BTreeSet};

use beespace_core::build::Build;
use beespace_core::mask;
use beespace_core::plan::StepPlan;
use beespace_core::reason::Reason;
use secrecy::{ExposeSecret as _, SecretString};

use crate::app::App;
use crate::store::secret::{SecretScope, Secrets as _};

/// Values by name.
#[derive(Debug, Default)]
pub(super) struct StageSecrets {
    values: BTreeMap<String, SecretString>,
}

impl StageSecrets {
    /// Opens every secret that one of `names` is; a repository's own wins over the instance's. Names that nobody set are left out:
    /// the step that needs one says so when its turn comes.
    ///
    /// # Errors
    /// The store or the seal; in words for people.
    pub(super) fn open(app: &App, build: &Build, names: &BTreeSet<String>) -> Result<Self, Reason> {
        let mut values = BTreeMap::new();
        let read = app.store.read().map_err(|error| Reason::new("store", error.to_string()))?;
        for name in names {
            for scope in [SecretScope::Repository(build.event.repository.id), SecretScope::Instance] {
                let row = read.secret(scope, name).map_err(|error| Reason::new("store", error.to_string()))?;
                let Some(row) = row else { continue };
                let value = app.key.open(&scope.associated_data(name), &row.value).map_err(|error| unreadable(name, &error))?;
                let text = String::from_utf8(value.to_vec()).map_err(|error| unreadable(name, &error))?;
                values.insert(name.clone(), SecretString::from(text));
                break;
            }
        }
        Ok(Self { values })
    }

    /// What the logs of the stage must not show.
    ///
    /// # Errors
    /// A value that is too large to be looked for.
    pub(super) fn mask(&self) -> Result<mask::Secrets, Reason> {
        let values = self.values.values().map(|value| value.expose_secret().as_bytes());
        mask::Secrets::new(values).map_err(|error| Reason::new("secret-too-large", error.to_string()))
    }

    /// The values that a plan names.
    ///
    /// # Errors
    /// The first name that nobody set.
    pub(super) fn for_plan(&self, plan: &StepPlan) -> Result<BTreeMap<String, SecretString>, Reason> {
        let names = plan.containers.iter().flat_map(|container| &container.secrets).map(|mount| &mount.secret);
        names.map(|name| Ok((name.clone(), self.values.get(name).cloned().ok_or_else(|| missing(name))?))).collect()
    }
}

fn missing(name: &str) -> Reason {
    Reason::new("secret-missing", format!("there is no secret {name:?} for this repository"))
        .help(format!("an administrator sets it with `beespace secret set {name} --repo OWNER/NAME`"))
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> Reason {
    Reason::new("secret-unreadable", format!("the secret {name:?} cannot be read: {error}"))
        .help("set it again; a key file that was replaced opens nothing that was sealed before")
}
