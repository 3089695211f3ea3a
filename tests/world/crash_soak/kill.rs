//! Ways to kill a server, scheduled so that every fail point is hit.

use std::collections::{BTreeSet, VecDeque};

use beespace::engine::fail_points::CALLS;
use beespace::fail_point::Side;
use beespace::store::Queue;

use crate::seeded_rng::SeededRng;

/// One way to kill a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kill {
    /// At a fail point, when it is passed for the n-th time.
    FailPoint(String, u64),
    /// With `kill -9`, this many thousandths of the typical build time after a build started.
    WhileRunning(u64),
    /// With `kill -9` during a burst of pushes, this many thousandths of its typical time after Gogs started to send it.
    DuringBurst(u64),
}

/// One of this many rounds has a burst, because a burst takes longer than the rest of its round.
const BURST_INTERVAL: usize = 3;

/// Actions that happen only to a build that an earlier process has started, or after a build.
const LATE_ACTIONS: [&str; 7] =
    ["store/commit", "store/notice", "engine/check", "engine/adopt", "engine/release", "engine/destroy", "engine/inventory"];

/// The fail points in random order. Points that were not hit yet come first again, because not every round passes each point.
#[derive(Debug)]
pub struct KillSchedule {
    rng: SeededRng,
    /// Fail points on the path of a new push.
    early: VecDeque<String>,
    late: VecDeque<String>,
    remaining: BTreeSet<String>,
    /// The number of rounds so far.
    rounds: usize,
}

impl KillSchedule {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let remaining = fail_points().into_iter().collect();
        Self { rng: SeededRng::new(seed), early: VecDeque::new(), late: VecDeque::new(), remaining, rounds: 0 }
    }

    /// The kills of one round. There are three, because after the fifth crash with the same row the row rightly becomes a dead
    /// letter.
    pub fn next_round(&mut self) -> [Kill; 3] {
        if self.early.is_empty() {
            self.early = self.shuffled(false);
        }
        if self.late.is_empty() {
            self.late = self.shuffled(true);
        }
        let early = self.early.pop_front().unwrap_or_default();
        let late = self.late.pop_front().unwrap_or_default();
        let passage = if late.ends_with("commit") { 1 + self.rng.below(12) } else { 1 };
        let part = self.rng.below(1_000);
        let at_random =
            if self.rounds.is_multiple_of(BURST_INTERVAL) { Kill::DuringBurst(part) } else { Kill::WhileRunning(part) };
        self.rounds += 1;
        [Kill::FailPoint(early, 1), at_random, Kill::FailPoint(late, passage)]
    }

    /// Records that a server was killed at a fail point.
    pub fn record_hit(&mut self, point: &str) {
        self.remaining.remove(point);
    }

    #[must_use]
    pub fn all_points_hit(&self) -> bool {
        self.remaining.is_empty()
    }

    fn shuffled(&mut self, late: bool) -> VecDeque<String> {
        let mut points: Vec<String> = fail_points().into_iter().filter(|place| is_late(place) == late).collect();
        if points.iter().any(|point| self.remaining.contains(point)) {
            points.retain(|point| self.remaining.contains(point));
        }
        self.rng.shuffle(&mut points);
        points.into()
    }
}

fn is_late(place: &str) -> bool {
    LATE_ACTIONS.iter().any(|act| place.ends_with(act))
}

/// All fail points.
#[must_use]
pub fn fail_points() -> Vec<String> {
    let queues = Queue::ALL.into_iter().map(Queue::as_str);
    let store = queues.chain(["commit"]).map(|act| format!("store/{act}"));
    let acts: Vec<String> = store.chain(CALLS.iter().map(|call| format!("engine/{call}"))).collect();
    [Side::Before, Side::After].iter().flat_map(|side| acts.iter().map(move |act| format!("{side}/{act}"))).collect()
}
