//! The counts of the attempts at one kind's jobs, which a worker collects in its memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The upper bounds of the histograms' buckets, in seconds. A last bucket has the longer times. The SQL function
/// `reveille.histogram_bounds` returns the same bounds.
pub(crate) const BOUNDS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// The counts of the attempts at the jobs of one kind in one queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct KindCount {
    /// The number of completed jobs.
    pub(crate) completed: i64,
    /// The number of failed attempts.
    pub(crate) failed: i64,
    /// The times from the due time to the start.
    pub(crate) waits: Histogram,
    /// The run times.
    pub(crate) runs: Histogram,
}

/// The sum of some durations, and their numbers by bucket.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    /// The sum in seconds.
    pub(crate) sum: f64,
    /// The number of durations in each bucket. A duration is in the first bucket whose bound is not less.
    pub(crate) counts: [i64; BOUNDS.len() + 1],
}

impl Histogram {
    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.sum += seconds;
        self.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
    }

    fn add_all(&mut self, more: &Histogram) {
        self.sum += more.sum;
        self.counts.iter_mut().zip(more.counts).for_each(|(count, more)| *count += more);
    }
}

/// The counts of one kind in one queue, shared by the attempts at its jobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct KindCounter(Arc<Mutex<KindCount>>);

impl KindCounter {
    /// Counts an attempt that has completed its job or has failed.
    pub(crate) fn add(&self, failed: bool, waited: Duration, ran: Duration) {
        self.with(|count| {
            *if failed { &mut count.failed } else { &mut count.completed } += 1;
            count.waits.add(waited);
            count.runs.add(ran);
        });
    }

    /// Counts a failure of an attempt whose worker died. Its times are unknown.
    pub(crate) fn add_lost(&self) {
        self.with(|count| count.failed += 1);
    }

    /// Adds counts that could not be stored.
    pub(crate) fn add_all(&self, more: &KindCount) {
        self.with(|count| {
            count.completed += more.completed;
            count.failed += more.failed;
            count.waits.add_all(&more.waits);
            count.runs.add_all(&more.runs);
        });
    }

    /// Returns the counts and sets them to zero. Returns `None` if all are zero.
    pub(crate) fn take(&self) -> Option<KindCount> {
        self.with(|count| if *count == KindCount::default() { None } else { Some(std::mem::take(count)) })
    }

    fn with<T>(&self, f: impl FnOnce(&mut KindCount) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The counts of one kind, with the names that a store keeps them under.
#[derive(Debug)]
pub(crate) struct NamedCount {
    pub(crate) queue: String,
    pub(crate) kind: String,
    pub(crate) count: KindCount,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it() {
        let (counter, hour) = (KindCounter::default(), Duration::from_secs(3600));
        counter.add(false, Duration::from_millis(1), hour);
        counter.add(false, Duration::from_millis(2), hour);
        counter.add(true, Duration::ZERO, hour);
        let count = counter.take().unwrap();
        assert_eq!((count.completed, count.failed), (2, 1));
        assert_eq!(count.waits.counts[..3], [2, 1, 0]);
        assert_eq!((count.runs.counts[BOUNDS.len()], count.runs.sum), (3, 10_800.0));
        assert_eq!(counter.take(), None);
    }
}
