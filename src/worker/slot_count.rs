//! The number of slots of one queue, which an administrator can change while the worker runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of one queue: each permit of `free` is a free slot.
pub(crate) struct SlotCount {
    pub(crate) free: Arc<Semaphore>,
    counts: Mutex<Counts>,
}

struct Counts {
    /// The number of slots that the queue is to have.
    wanted: usize,
    /// The number of slots that the queue has, free or occupied. It is more than `wanted` while occupied slots have to
    /// go.
    present: usize,
}

impl SlotCount {
    pub(crate) fn new(slots: usize) -> SlotCount {
        SlotCount {
            free: Arc::new(Semaphore::new(slots)),
            counts: Mutex::new(Counts { wanted: slots, present: slots }),
        }
    }

    /// Returns the number of slots, free or occupied.
    pub(crate) fn present(&self) -> usize {
        self.lock().present
    }

    /// Changes the number of slots. New slots are free at once. Of the slots that have to go, the free ones go at once,
    /// and each occupied one goes when its job ends. Returns false if the number was the same already.
    pub(crate) fn set(&self, wanted: usize) -> bool {
        let mut counts = self.lock();
        if wanted > counts.present {
            self.free.add_permits(wanted - counts.present);
            counts.present = wanted;
        } else {
            counts.present -= self.free.forget_permits(counts.present - wanted);
        }
        std::mem::replace(&mut counts.wanted, wanted) != wanted
    }

    /// Returns a free slot; `None` if there is none.
    pub(crate) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let slot = Arc::clone(&self.free).try_acquire_owned().ok()?;
            // `None`: the slot had to go. Another one may be free.
            if let Some(slot) = self.keep(slot) {
                return Some(slot);
            }
        }
    }

    /// Returns the slot, unless it has to go.
    pub(crate) fn keep(&self, slot: OwnedSemaphorePermit) -> Option<OwnedSemaphorePermit> {
        let mut counts = self.lock();
        if counts.present <= counts.wanted {
            return Some(slot);
        }
        counts.present -= 1;
        slot.forget();
        None
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slots of all queues of a worker.
#[derive(Default)]
pub(crate) struct SlotCounts(Mutex<HashMap<String, Arc<SlotCount>>>);

impl SlotCounts {
    /// Adds a queue with this number of slots.
    pub(crate) fn add(&self, queue: &str, slots: usize) -> Arc<SlotCount> {
        let count = Arc::new(SlotCount::new(slots));
        self.lock().insert(queue.to_owned(), Arc::clone(&count));
        count
    }

    /// Changes the number of a queue's slots. Returns false if the number was the same already, or if the worker does
    /// not work the queue.
    pub(crate) fn set(&self, queue: &str, slots: usize) -> bool {
        self.lock().get(queue).is_some_and(|count| count.set(slots))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<SlotCount>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_slot_that_has_to_go_goes_when_its_job_ends() {
        let slots = SlotCount::new(3);
        let (first, second) = (slots.try_take().unwrap(), slots.try_take().unwrap());
        assert!(slots.set(1) && !slots.set(1));
        assert_eq!((slots.present(), slots.free.available_permits()), (2, 0), "the free slot has gone");
        assert!(slots.keep(first).is_none());
        let second = slots.keep(second).expect("one slot stays");
        drop(second);
        assert_eq!((slots.present(), slots.free.available_permits()), (1, 1));
    }

    #[test]
    fn new_slots_are_free_at_once() {
        let slots = SlotCount::new(0);
        assert!(slots.try_take().is_none());
        assert!(slots.set(2));
        assert!(slots.try_take().is_some());
        assert_eq!(slots.present(), 2);
    }

    #[test]
    fn slots_that_had_to_go_may_stay_after_all() {
        let slots = SlotCount::new(2);
        let (first, second) = (slots.try_take().unwrap(), slots.try_take().unwrap());
        assert!(slots.set(0) && slots.set(2));
        assert!(slots.keep(first).is_some() && slots.keep(second).is_some());
        assert_eq!(slots.free.available_permits(), 2);
    }
}
