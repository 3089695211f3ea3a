//! Call slots: how many calls run at once. Each kind of plugin has slots of its own, so that slow step types or notifiers never
//! delay a policy, and one build holds only a part of them.
//!
//! A call without a slot waits in order of arrival and is never refused. The wait is short: every running call ends after
//! [`crate::Limits::total_time`], and each build waits with only a few calls at a time for the slots of all builds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use beespace_core::plugin_context::PluginContext;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::manifest::Kind;

/// How many calls may run at once. A kind without slots cannot be called, and takes no address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxCalls {
    pub policies: u32,
    /// Step types and converters.
    pub step_types: u32,
    pub notifiers: u32,
}

impl MaxCalls {
    /// The same number for each kind.
    #[must_use]
    pub fn each(calls: u32) -> Self {
        Self { policies: calls, step_types: calls, notifiers: calls }
    }

    pub(crate) fn sum(self) -> u32 {
        self.policies.saturating_add(self.step_types).saturating_add(self.notifiers)
    }

    fn of(self, kind: Kind) -> usize {
        let calls = match kind {
            Kind::Policy => self.policies,
            Kind::Step | Kind::Converter => self.step_types,
            Kind::Notifier => self.notifiers,
        };
        usize::try_from(calls).unwrap_or(usize::MAX)
    }
}

/// The slots of one kind of plugin, used and in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSlots {
    pub used: usize,
    pub total: usize,
}

/// The part of a kind's slots that one build may hold at once: a quarter.
const BUILD_SHARE: usize = 4;

/// The build on whose behalf a call is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CallingBuild(String);

impl CallingBuild {
    pub(crate) fn of(context: &PluginContext) -> Self {
        Self(format!("{} {:?} {:?}", context.repository, context.build_number, context.sha))
    }
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Slots {
    policies: SlotsOfKind,
    step_types: SlotsOfKind,
    notifiers: SlotsOfKind,
}

/// A slot, held while a call runs.
#[derive(Debug)]
pub(crate) struct Slot {
    _slot: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub(crate) fn new(max: MaxCalls) -> Self {
        Self {
            policies: SlotsOfKind::new(max.of(Kind::Policy)),
            step_types: SlotsOfKind::new(max.of(Kind::Step)),
            notifiers: SlotsOfKind::new(max.of(Kind::Notifier)),
        }
    }

    fn of(&self, kind: Kind) -> &SlotsOfKind {
        match kind {
            Kind::Policy => &self.policies,
            Kind::Step | Kind::Converter => &self.step_types,
            Kind::Notifier => &self.notifiers,
        }
    }

    pub(crate) fn count(&self, kind: Kind) -> CallSlots {
        let slots = self.of(kind);
        CallSlots { used: slots.total.saturating_sub(slots.free.available_permits()), total: slots.total }
    }

    /// Waits for a slot. `None` if the host has no slots for this kind.
    pub(crate) async fn acquire(&self, kind: Kind, build: Option<CallingBuild>) -> Option<Slot> {
        let slots = self.of(kind);
        if slots.total == 0 {
            return None;
        }
        // A build first waits for its own share, outside the queue of the others.
        let share = match build {
            Some(build) => Some(slots.share_of(build).acquire_owned().await.ok()?),
            None => None,
        };
        Some(Slot { _slot: Arc::clone(&slots.free).acquire_owned().await.ok()?, _share: share })
    }
}

/// The slots of one kind.
#[derive(Debug)]
struct SlotsOfKind {
    total: usize,
    free: Arc<Semaphore>,
    /// The shares of the builds that hold a slot or wait for one.
    shares: Mutex<HashMap<CallingBuild, Weak<Semaphore>>>,
}

impl SlotsOfKind {
    fn new(total: usize) -> Self {
        Self { total, free: Arc::new(Semaphore::new(total)), shares: Mutex::default() }
    }

    fn share_of(&self, build: CallingBuild) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&build).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new((self.total / BUILD_SHARE).max(1)));
        shares.insert(build, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn build(name: &str) -> Option<CallingBuild> {
        Some(CallingBuild(name.to_owned()))
    }

    /// A slot if one is free at once.
    fn try_acquire(slots: &Slots, kind: Kind, build: Option<CallingBuild>) -> Option<Slot> {
        slots.acquire(kind, build).now_or_never().flatten()
    }

    #[test]
    fn a_policy_finds_a_slot_while_all_slots_of_other_plugins_are_used() {
        let slots = Slots::new(MaxCalls::each(2));
        let held: Vec<_> = [Kind::Step, Kind::Converter, Kind::Notifier, Kind::Notifier]
            .map(|kind| try_acquire(&slots, kind, None).unwrap())
            .into_iter()
            .collect();
        assert!(try_acquire(&slots, Kind::Step, None).is_none() && try_acquire(&slots, Kind::Notifier, None).is_none());
        assert_eq!(slots.count(Kind::Step), CallSlots { used: 2, total: 2 });
        assert!(try_acquire(&slots, Kind::Policy, None).is_some());
        drop(held);
        assert!(try_acquire(&slots, Kind::Step, None).is_some());
    }

    #[test]
    fn one_build_holds_a_part_of_the_slots_and_others_go_on() {
        let slots = Slots::new(MaxCalls::each(8));
        let held = [(); 2].map(|()| try_acquire(&slots, Kind::Step, build("many steps")).unwrap());
        assert!(try_acquire(&slots, Kind::Step, build("many steps")).is_none(), "its share is used up");
        assert!(try_acquire(&slots, Kind::Step, build("another")).is_some());
        assert!(try_acquire(&slots, Kind::Policy, build("many steps")).is_some(), "policies have a share of their own");
        drop(held);
        assert!(try_acquire(&slots, Kind::Step, build("many steps")).is_some());
        assert!(try_acquire(&slots, Kind::Step, build("third")).is_some());
        assert_eq!(slots.step_types.shares.lock().unwrap().len(), 1, "shares of builds without calls are forgotten");
    }

    #[test]
    fn a_call_without_a_slot_waits_until_one_is_free() {
        let slots = Slots::new(MaxCalls::each(1));
        let held = try_acquire(&slots, Kind::Policy, build("first")).unwrap();
        let mut waiting = Box::pin(slots.acquire(Kind::Policy, build("second")));
        assert!((&mut waiting).now_or_never().is_none());
        drop(held);
        assert!(waiting.now_or_never().flatten().is_some());
    }

    #[test]
    fn a_kind_without_slots_is_refused_instead_of_waiting_forever() {
        let slots = Slots::new(MaxCalls { policies: 0, ..MaxCalls::each(1) });
        assert!(matches!(slots.acquire(Kind::Policy, None).now_or_never(), Some(None)));
    }
}
