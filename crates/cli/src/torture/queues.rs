//! The queues of the test. Some queues have limits, which must hold under all faults.

use std::time::Duration;

use clap::ValueEnum;
use reveille::Database;
use reveille::admin::QueueSettings;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TestQueue {
    /// No settings.
    Plain,
    /// At most 5 running jobs.
    Limited,
    /// At most 2 running jobs per key, 100 keys.
    Keyed,
    /// Each key in order, 1,000 keys.
    Ordered,
    /// At most 100 starts per second. After a pause, 10 jobs start at once.
    Rated,
    /// No settings and no odd or locked rows: faults of other queues must not delay the jobs of this queue.
    Calm,
    /// Workflows, and jobs that wait for others. Operators cancel, revive, retry and purge some.
    Workflows,
    /// Jobs with steps, sleeps, and waits for events of which some never come. Operators act on these, too.
    Steps,
}

pub const MAX_RUNNING: u32 = 5;
pub const MAX_RUNNING_PER_KEY: u32 = 2;
pub const RATE: u32 = 100;
const RATE_BURST: u32 = 10;

/// The number of a job contains its producer from bit 48 on, its queue from bit 40 on, and a count below.
const QUEUE_SHIFT: u32 = 40;
const PRODUCER_SHIFT: u32 = 48;

impl TestQueue {
    /// Returns the number that precedes a producer's first job of this queue.
    pub fn first_number(self, producer: u64) -> u64 {
        (producer << PRODUCER_SHIFT) | ((self as u64) << QUEUE_SHIFT)
    }

    /// Returns the queue of a job.
    pub fn of(job: u64) -> Option<TestQueue> {
        let place = (job >> QUEUE_SHIFT) as u8;
        TestQueue::all().find(|queue| *queue as u8 == place)
    }

    /// Returns the key of a job. In the queue `ordered` each key belongs to one producer, so the order of enqueuing is
    /// known.
    pub fn key(job: u64) -> Option<String> {
        let number = job & ((1 << QUEUE_SHIFT) - 1);
        match TestQueue::of(job)? {
            TestQueue::Keyed => Some((number % 100).to_string()),
            TestQueue::Ordered => Some(format!("{}-{}", job >> PRODUCER_SHIFT, number % 250)),
            _ => None,
        }
    }

    pub fn all() -> impl Iterator<Item = TestQueue> {
        TestQueue::value_variants().iter().copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            TestQueue::Plain => "plain",
            TestQueue::Limited => "limited",
            TestQueue::Keyed => "keyed",
            TestQueue::Ordered => "ordered",
            TestQueue::Rated => "rated",
            TestQueue::Calm => "calm",
            TestQueue::Workflows => "workflows",
            TestQueue::Steps => "steps",
        }
    }

    /// Returns true if the jobs of this queue are linked jobs: they wait for others, belong to workflows or have steps.
    pub fn is_linked(self) -> bool {
        matches!(self, TestQueue::Workflows | TestQueue::Steps)
    }

    /// Returns this queue's share of the jobs: a number that its limits allow to start even during faults.
    pub fn share(self) -> usize {
        match self {
            TestQueue::Plain => 5,
            TestQueue::Keyed | TestQueue::Ordered | TestQueue::Calm | TestQueue::Workflows | TestQueue::Steps => 2,
            TestQueue::Limited | TestQueue::Rated => 1,
        }
    }

    /// Gives the queue its limits.
    pub async fn set_up(self, database: &Database) -> reveille::Result<()> {
        let settings = match self {
            TestQueue::Plain | TestQueue::Calm | TestQueue::Workflows | TestQueue::Steps => return Ok(()),
            TestQueue::Limited => QueueSettings::new().max_running(MAX_RUNNING),
            TestQueue::Keyed => QueueSettings::new().max_running_per_key(MAX_RUNNING_PER_KEY),
            TestQueue::Ordered => QueueSettings::new().ordered(true),
            TestQueue::Rated => {
                QueueSettings::new().rate_limit(RATE).rate_period(Duration::from_secs(1)).rate_burst(RATE_BURST)
            }
        };
        database.admin().set_queue(self.name(), settings).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_number_has_its_queue_and_key() {
        let job = TestQueue::Ordered.first_number(3) + 251;
        assert_eq!((TestQueue::of(job), TestQueue::key(job)), (Some(TestQueue::Ordered), Some("3-1".into())));
        assert_eq!(TestQueue::key(TestQueue::Keyed.first_number(2) + 301), Some("1".into()));
        assert_eq!(TestQueue::key(TestQueue::Plain.first_number(2) + 1), None);
    }
}
