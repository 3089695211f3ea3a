//! The number of containers that run at once: those of one stage, and those of all stages. A container holds one slot of each
//! kind from its start to its exit; a prefetched container holds none while it waits for its start signal.

use std::num::NonZeroU16;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::App;

/// The slots that a stage's containers take.
#[derive(Debug)]
pub(super) struct ContainerSlots {
    stage: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// A slot of a running container; dropping it frees the slot.
#[derive(Debug)]
pub(super) struct ContainerSlot {
    _stage: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl ContainerSlots {
    pub(super) fn of_stage(app: &App) -> Self {
        Self::new(app.config.limits.stage_containers, Arc::clone(&app.container_slots))
    }

    fn new(of_stage: NonZeroU16, all: Arc<Semaphore>) -> Self {
        Self { stage: Arc::new(Semaphore::new(usize::from(of_stage.get()))), all }
    }

    /// Waits for a slot, first come, first served. A stage waits for a slot of the instance with the containers that it may run
    /// at most, so that a stage with many steps does not delay the others for longer.
    pub(super) async fn acquire(&self) -> Option<ContainerSlot> {
        let stage = Arc::clone(&self.stage).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(ContainerSlot { _stage: stage, _all: all })
    }

    /// A slot for a container that may already run, or none if all are taken: a restarted server finds containers that an
    /// earlier process started under other limits.
    pub(super) fn try_acquire(&self) -> Option<ContainerSlot> {
        let stage = Arc::clone(&self.stage).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(ContainerSlot { _stage: stage, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(of_stage: u16, all: &Arc<Semaphore>) -> ContainerSlots {
        ContainerSlots::new(NonZeroU16::new(of_stage).unwrap(), Arc::clone(all))
    }

    #[test]
    fn a_stage_takes_at_most_its_own_slots_and_all_stages_those_of_the_instance() {
        let all = Arc::new(Semaphore::new(3));
        let (one, other) = (slots(2, &all), slots(2, &all));
        let taken: Vec<_> = (0..3).filter_map(|_| one.try_acquire()).collect();
        assert_eq!(taken.len(), 2, "the stage's own");
        let more: Vec<_> = (0..3).filter_map(|_| other.try_acquire()).collect();
        assert_eq!(more.len(), 1, "the instance's");
        drop(taken);
        assert!(other.try_acquire().is_some(), "freed by the other stage; the failed attempts kept none of the stage's own");
    }
}
