//! The rules of an instance: everything besides its subject that a decision depends on. Decisions record the digest of the rules
//! under which they were made, so that a stage that starts later can find out whether they would be made in the same way today.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::Digest;
use crate::plan::Limits;
use crate::policy::{Mode, Point};

/// The rules of an instance.
#[derive(Debug, Clone, Serialize)]
pub struct RuleSet {
    /// The version of Beespace, because the baseline policy is part of it.
    pub version: String,
    /// In the order of evaluation.
    pub policies: Vec<PolicyRule>,
    /// The plugins that make plans, by the name of their step type.
    pub step_types: BTreeMap<String, BoundPlugin>,
    /// The limits of the instance that the baseline policy applies to every container.
    pub limits: Limits,
}

/// A policy, and its effect on decisions.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyRule {
    pub name: String,
    pub plugin: BoundPlugin,
    pub mode: Mode,
    /// The paths that its patches may change, by point.
    pub mutable: BTreeMap<Point, Vec<String>>,
}

/// The component of a binding and its settings.
#[derive(Debug, Clone, Serialize)]
pub struct BoundPlugin {
    pub component: Digest,
    pub settings: Digest,
}

impl RuleSet {
    /// The digest that decisions record.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(&serde_json::to_value(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(component: &str, settings: &str) -> BoundPlugin {
        BoundPlugin { component: Digest::of(component), settings: Digest::of(settings) }
    }

    fn policy(name: &str) -> PolicyRule {
        let mutable = BTreeMap::from([(Point::StepAdmit, vec!["/containers/*/image".to_owned()])]);
        PolicyRule { name: name.to_owned(), plugin: plugin(name, "{}"), mode: Mode::Enforce, mutable }
    }

    fn rules() -> RuleSet {
        RuleSet {
            version: "1.0.0".to_owned(),
            policies: vec![policy("images"), policy("secrets")],
            step_types: BTreeMap::from([("check".to_owned(), plugin("check", "{}"))]),
            limits: Limits { memory_bytes: Some(4 << 30), ..Limits::default() },
        }
    }

    #[test]
    fn every_part_of_the_rules_changes_their_digest() {
        let changes: [fn(&mut RuleSet); 10] = [
            |rules| rules.version = "1.0.1".to_owned(),
            |rules| rules.policies.reverse(),
            |rules| rules.policies.truncate(1),
            |rules| rules.policies.push(policy("more")),
            |rules| rules.policies[0].mode = Mode::Shadow,
            |rules| rules.policies[0].mutable.clear(),
            |rules| rules.policies[0].plugin = plugin("images", "{\"registries\":[]}"),
            |rules| rules.policies[0].plugin = plugin("another component", "{}"),
            |rules| rules.step_types.values_mut().for_each(|step_type| *step_type = plugin("a newer one", "{}")),
            |rules| rules.limits.memory_bytes = Some(2 << 30),
        ];
        let digests = changes.map(|change| {
            let mut rules = rules();
            change(&mut rules);
            rules.digest()
        });
        let mut all: Vec<Digest> = digests.into_iter().chain([rules().digest()]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), changes.len() + 1);
        assert_eq!(rules().digest(), rules().digest());
    }
}
