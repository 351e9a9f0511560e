//! The counts of attempts by kind. A worker collects them in its memory and stores them every 10 s, so that they cost
//! the settlements nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::driver::{Driver, KindCounter, NamedCount};
use crate::error::Result;

/// A worker counts at most 200 pairs of a queue and a kind. It counts the jobs of further kinds together.
const MOST_KINDS: usize = 200;
/// The kind under which jobs of further kinds are counted. `sql/count_kinds.sql` uses it too.
const OTHER_KINDS: &str = "(other)";

/// The counters of one worker, by queue and kind.
#[derive(Default)]
pub(crate) struct KindCounts {
    counters: Mutex<HashMap<String, HashMap<String, KindCounter>>>,
    /// Locked while counts are being stored, so that the last counts of a worker wait for them.
    storing: tokio::sync::Mutex<()>,
}

impl KindCounts {
    /// Returns the counter of a kind in a queue.
    pub(crate) fn of(&self, queue: &str, kind: &str) -> KindCounter {
        let mut counters = self.lock();
        if let Some(counter) = counters.get(queue).and_then(|kinds| kinds.get(kind)) {
            return counter.clone();
        }
        let kind = if counters.values().map(HashMap::len).sum::<usize>() < MOST_KINDS { kind } else { OTHER_KINDS };
        counters.entry(queue.to_owned()).or_default().entry(kind.to_owned()).or_default().clone()
    }

    /// Stores the counts since the last call. Keeps the counts if the store does not take them. A caller that drops
    /// this future may lose the counts.
    pub(crate) async fn store(&self, driver: &dyn Driver) -> Result<()> {
        let _alone = self.storing.lock().await;
        let counts = self.take();
        if counts.is_empty() {
            return Ok(());
        }
        let stored = driver.count_kinds(&counts).await;
        if stored.is_err() {
            counts.iter().for_each(|NamedCount { queue, kind, count }| self.of(queue, kind).add_all(count));
        }
        stored
    }

    fn take(&self) -> Vec<NamedCount> {
        let mut taken = Vec::new();
        for (queue, kinds) in &*self.lock() {
            for (kind, counter) in kinds {
                if let Some(count) = counter.take() {
                    taken.push(NamedCount { queue: queue.clone(), kind: kind.clone(), count });
                }
            }
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, KindCounter>>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_past_the_200th_count_together() {
        let counts = KindCounts::default();
        for kind in 0..1000 {
            counts.of("default", &format!("kind {kind}")).add_lost();
        }
        let taken = counts.take();
        let other = taken.iter().find(|count| count.kind == OTHER_KINDS).unwrap();
        assert_eq!((taken.len(), other.count.failed), (MOST_KINDS + 1, 800));
    }
}
