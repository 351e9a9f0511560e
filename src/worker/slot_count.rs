//! The number of slots of one queue, which an administrator can change while the worker runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of one queue: each permit of `free` is a free slot.
pub(crate) struct SlotCount {
    pub(crate) free: Arc<Semaphore>,
    counts: Mutex<Counts>,
}

struct Counts {
    /// The number of slots that the queue is to have, if there is no limit below it.
    wanted: usize,
    /// The most slots that the queue may have now.
    limit: usize,
    /// The number of slots that the queue has, free or occupied. It is more than `wanted` or `limit` while occupied
    /// slots have to go.
    present: usize,
}

impl Counts {
    /// The number of slots that the queue is to have now.
    fn target(&self) -> usize {
        self.wanted.min(self.limit)
    }
}

impl SlotCount {
    /// Makes `slots` free slots, or `limit` free slots if that is less.
    pub(crate) fn new(slots: usize, limit: usize) -> SlotCount {
        let counts = Counts { wanted: slots, limit, present: slots.min(limit) };
        SlotCount { free: Arc::new(Semaphore::new(counts.present)), counts: Mutex::new(counts) }
    }

    /// Returns the number of slots, free or occupied.
    pub(crate) fn present(&self) -> usize {
        self.lock().present
    }

    /// Changes the number of slots. New slots are free at once. Of the slots that have to go, the free ones go at once,
    /// and each occupied one goes when its job ends. Returns false if the number was the same already.
    pub(crate) fn set(&self, wanted: usize) -> bool {
        let mut counts = self.lock();
        let before = std::mem::replace(&mut counts.wanted, wanted);
        self.approach(&mut counts);
        before != wanted
    }

    /// Changes the most slots that the queue may have. Slots come and go as with [`set`](SlotCount::set).
    fn limit(&self, limit: usize) {
        let mut counts = self.lock();
        counts.limit = limit;
        self.approach(&mut counts);
    }

    fn approach(&self, counts: &mut Counts) {
        let target = counts.target();
        if target > counts.present {
            self.free.add_permits(target - counts.present);
            counts.present = target;
        } else {
            counts.present -= self.free.forget_permits(counts.present - target);
        }
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
        if counts.present <= counts.target() {
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

/// Limits the slots of a running worker's queues, for [`WorkerBuilder::slot_limits`]. Clones share the limits.
///
/// A worker whose handlers hand their jobs to other processes claims by this only as many jobs as those processes can
/// take. Without a limit, a queue has the slots that the worker was given.
///
/// [`WorkerBuilder::slot_limits`]: crate::worker::WorkerBuilder::slot_limits
#[derive(Clone, Default)]
pub struct SlotLimits(Arc<Mutex<HashMap<String, QueueLimit>>>);

struct QueueLimit {
    slots: usize,
    /// The slots of the worker, once it runs.
    count: Weak<SlotCount>,
}

impl Default for QueueLimit {
    fn default() -> QueueLimit {
        QueueLimit { slots: usize::MAX, count: Weak::new() }
    }
}

impl SlotLimits {
    /// Limits the queue to this number of slots from now on; 0: the worker claims nothing from the queue. Running jobs
    /// go on, whatever the limit is.
    pub fn set(&self, queue: &str, slots: usize) {
        let mut limits = self.lock();
        let limit = limits.entry(queue.to_owned()).or_default();
        limit.slots = slots;
        if let Some(count) = limit.count.upgrade() {
            count.limit(slots);
        }
    }

    fn count(&self, queue: &str, slots: usize) -> Arc<SlotCount> {
        let mut limits = self.lock();
        let limit = limits.entry(queue.to_owned()).or_default();
        let count = Arc::new(SlotCount::new(slots, limit.slots));
        limit.count = Arc::downgrade(&count);
        count
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, QueueLimit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slots of all queues of a worker.
#[derive(Default)]
pub(crate) struct SlotCounts(Mutex<HashMap<String, Arc<SlotCount>>>);

impl SlotCounts {
    /// Adds a queue with this number of slots, within the limits.
    pub(crate) fn add(&self, queue: &str, slots: usize, limits: &SlotLimits) -> Arc<SlotCount> {
        let count = limits.count(queue, slots);
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
        let slots = SlotCount::new(3, usize::MAX);
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
        let slots = SlotCount::new(0, usize::MAX);
        assert!(slots.try_take().is_none());
        assert!(slots.set(2));
        assert!(slots.try_take().is_some());
        assert_eq!(slots.present(), 2);
    }

    #[test]
    fn slots_that_had_to_go_may_stay_after_all() {
        let slots = SlotCount::new(2, usize::MAX);
        let (first, second) = (slots.try_take().unwrap(), slots.try_take().unwrap());
        assert!(slots.set(0) && slots.set(2));
        assert!(slots.keep(first).is_some() && slots.keep(second).is_some());
        assert_eq!(slots.free.available_permits(), 2);
    }
    #[test]
    fn a_limit_takes_slots_away_and_gives_them_back() {
        let (counts, limits) = (SlotCounts::default(), SlotLimits::default());
        limits.set("mail", 1);
        let slots = counts.add("mail", 3, &limits);
        let first = slots.try_take().unwrap();
        assert!(slots.try_take().is_none());
        limits.set("mail", 0);
        assert!(slots.keep(first).is_none(), "the running job's slot goes when the job ends");
        assert!(!counts.set("mail", 3) && slots.try_take().is_none());
        limits.set("mail", 9);
        assert_eq!((slots.present(), slots.free.available_permits()), (3, 3));
        assert!(counts.set("mail", 20));
        assert_eq!(slots.present(), 9, "the limit holds for a changed number, too");
    }
}
