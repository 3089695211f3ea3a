//! Cycle detection, for the `needs` of a pipeline's steps and of a plan's containers.

use std::collections::{BTreeMap, BTreeSet};

/// Index of the first node that depends on itself, directly or through others. A node is a name with the names that it needs;
/// unknown names are ignored.
pub(crate) fn first_in_cycle(nodes: &[(&str, &[String])]) -> Option<usize> {
    let indexes: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(index, (name, _))| (*name, index)).collect();
    // Repeatedly remove the nodes that need no remaining node. The nodes that stay are in a cycle or depend on one.
    let mut left: BTreeSet<usize> = (0..nodes.len()).collect();
    loop {
        let is_waiting = |index: &usize| {
            let needs = nodes.get(*index).map_or(&[][..], |(_, needs)| needs);
            needs.iter().filter_map(|need| indexes.get(need.as_str())).any(|need| left.contains(need))
        };
        let waiting: BTreeSet<usize> = left.iter().copied().filter(is_waiting).collect();
        if waiting.len() == left.len() {
            return waiting.first().copied();
        }
        left = waiting;
    }
}
