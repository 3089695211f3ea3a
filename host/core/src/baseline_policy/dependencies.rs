//! Rules for the ids and the `needs` of a plan's containers: valid and unique ids, known dependencies, no cycle.

use std::collections::BTreeMap;

use super::Findings;
use crate::cycle_detection::first_in_cycle;
use crate::plan::{StepPlan, is_container_id};

pub(super) fn check(plan: &StepPlan, findings: &mut Findings) {
    let mut indexes: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, container) in plan.containers.iter().enumerate() {
        let id = container.id.as_str();
        if !is_container_id(id) {
            let message = format!("{id:?} is not a valid container id");
            let remedy = "Use 1 to 63 lower-case letters, digits and `-`, beginning with a letter or digit";
            findings.add("container-id", format!("/containers/{index}/id"), message, remedy);
        }
        if indexes.insert(id, index).is_some() {
            let message = format!("Two containers have the id {id:?}");
            findings.add("container-id", format!("/containers/{index}/id"), message, "Give each container a unique id");
        }
    }
    let mut all_known = true;
    for (index, container) in plan.containers.iter().enumerate() {
        for (number, need) in container.needs.iter().enumerate().filter(|(_, need)| !indexes.contains_key(need.as_str())) {
            all_known = false;
            let message = format!("Container {:?} needs {need:?}, which is not in the plan", container.id);
            findings.add(
                "unknown-need",
                format!("/containers/{index}/needs/{number}"),
                message,
                "Use the id of another container of the plan",
            );
        }
    }
    let nodes: Vec<(&str, &[String])> = plan.containers.iter().map(|one| (one.id.as_str(), one.needs.as_slice())).collect();
    if all_known && let Some(index) = first_in_cycle(&nodes) {
        let id = plan.containers.get(index).map_or("", |container| &container.id);
        let message = format!("Container {id:?} depends on itself through `needs`");
        findings.add("cycle", format!("/containers/{index}/needs"), message, "Remove one of the `needs` in the cycle");
    }
}
