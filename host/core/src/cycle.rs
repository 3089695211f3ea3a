//! Who waits for whom: the question that steps of a pipeline and containers of a plan share.

use std::collections::{BTreeMap, BTreeSet};

/// The place of the first that waits for itself, however long the way: names, each with what it needs. A need that is not among the names keeps
/// nobody waiting.
pub(crate) fn first_in_cycle(nodes: &[(&str, &[String])]) -> Option<usize> {
    let places: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(place, (name, _))| (*name, place)).collect();
    // Takes away whatever needs nothing that is left; what remains at the end waits for itself.
    let mut left: BTreeSet<usize> = (0..nodes.len()).collect();
    loop {
        let is_waiting = |place: &usize| {
            let needs = nodes.get(*place).map_or(&[][..], |(_, needs)| needs);
            needs.iter().filter_map(|need| places.get(need.as_str())).any(|need| left.contains(need))
        };
        let waiting: BTreeSet<usize> = left.iter().copied().filter(is_waiting).collect();
        if waiting.len() == left.len() {
            return waiting.first().copied();
        }
        left = waiting;
    }
}
