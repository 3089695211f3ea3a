//! Ways for a server to die, dealt so that each fail point has its turn.

use std::collections::{BTreeSet, VecDeque};

use beespace::engine::fail_points::CALLS;
use beespace::fail_point::Side;
use beespace::store::Queue;

use super::chance::SeededRng;

/// One way to die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kill {
    /// At a fail point, at the passage of this number.
    FailPoint(String, u64),
    /// By `kill -9`, so many thousandths of a build's usual time after a build began to run.
    WhileRunning(u64),
    /// By `kill -9` in the middle of a burst of pushes, so many thousandths of its usual time after Gogs began to tell of it.
    DuringBurst(u64),
}

/// A burst takes longer than the rest of its round: one of so many rounds has one.
const BURST_INTERVAL: usize = 3;

/// What happens only to a build that some process has brought on its way already, or after it.
const LATE_ACTIONS: [&str; 7] =
    ["store/commit", "store/notice", "engine/check", "engine/adopt", "engine/release", "engine/destroy", "engine/inventory"];

/// The fail points in an order of chance. Those at which nobody has died yet come again first: not every round leads past each.
#[derive(Debug)]
pub struct KillSchedule {
    chance: SeededRng,
    /// For the way of a push that is new.
    early: VecDeque<String>,
    late: VecDeque<String>,
    remaining: BTreeSet<String>,
    /// Rounds so far.
    rounds: usize,
}

impl KillSchedule {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let remaining = fail_points().into_iter().collect();
        Self { chance: SeededRng::new(seed), early: VecDeque::new(), late: VecDeque::new(), remaining, rounds: 0 }
    }

    /// The deaths of one round: three, because the fifth in a row with the same row in hand would rightly end as a dead letter.
    pub fn next_round(&mut self) -> [Kill; 3] {
        if self.early.is_empty() {
            self.early = self.shuffled(false);
        }
        if self.late.is_empty() {
            self.late = self.shuffled(true);
        }
        let early = self.early.pop_front().unwrap_or_default();
        let late = self.late.pop_front().unwrap_or_default();
        let passage = if late.ends_with("commit") { 1 + self.chance.below(12) } else { 1 };
        let part = self.chance.below(1_000);
        let at_random =
            if self.rounds.is_multiple_of(BURST_INTERVAL) { Kill::DuringBurst(part) } else { Kill::WhileRunning(part) };
        self.rounds += 1;
        [Kill::FailPoint(early, 1), at_random, Kill::FailPoint(late, passage)]
    }

    /// A server has died there.
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
        self.chance.shuffle(&mut points);
        points.into()
    }
}

fn is_late(place: &str) -> bool {
    LATE_ACTIONS.iter().any(|act| place.ends_with(act))
}

/// Every fail point there is.
#[must_use]
pub fn fail_points() -> Vec<String> {
    let queues = Queue::ALL.into_iter().map(Queue::as_str);
    let store = queues.chain(["commit"]).map(|act| format!("store/{act}"));
    let acts: Vec<String> = store.chain(CALLS.iter().map(|call| format!("engine/{call}"))).collect();
    [Side::Before, Side::After].iter().flat_map(|side| acts.iter().map(move |act| format!("{side}/{act}"))).collect()
}
