//! The queues whose jobs are tortured: one without settings, the others under limits that must hold whatever breaks.

use std::time::Duration;

use clap::ValueEnum;
use reveille::Database;
use reveille::admin::QueueSettings;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Queue {
    /// Without any settings.
    Plain,
    /// Five run at once.
    Limited,
    /// A hundred keys, of which each has two running at once.
    Keyed,
    /// A thousand keys, each in order.
    Ordered,
    /// A hundred start a second, ten at once after a rest.
    Rated,
    /// Without any settings, odd rows or locked rows: what is done to other queues must not be felt here.
    Calm,
}

pub const MAX_RUNNING: u32 = 5;
pub const MAX_RUNNING_PER_KEY: u32 = 2;
pub const RATE: u32 = 100;
const RATE_BURST: u32 = 10;

/// A job's number says who produced it, and from which bit on for which queue.
const QUEUE_SHIFT: u32 = 40;
const PRODUCER_SHIFT: u32 = 48;

impl Queue {
    /// The number before a producer's first job for it.
    pub fn first_number(self, producer: u64) -> u64 {
        (producer << PRODUCER_SHIFT) | ((self as u64) << QUEUE_SHIFT)
    }

    /// Where a job is.
    pub fn of(job: u64) -> Option<Queue> {
        let place = (job >> QUEUE_SHIFT) as u8;
        Queue::all().find(|queue| *queue as u8 == place)
    }

    /// A job's key. In the ordered queue each is one producer's, who knows in which order it enqueued.
    pub fn key(job: u64) -> Option<String> {
        let number = job & ((1 << QUEUE_SHIFT) - 1);
        match Queue::of(job)? {
            Queue::Keyed => Some((number % 100).to_string()),
            Queue::Ordered => Some(format!("{}-{}", job >> PRODUCER_SHIFT, number % 250)),
            Queue::Plain | Queue::Limited | Queue::Rated | Queue::Calm => None,
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Queue> {
        Queue::value_variants().iter().copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            Queue::Plain => "plain",
            Queue::Limited => "limited",
            Queue::Keyed => "keyed",
            Queue::Ordered => "ordered",
            Queue::Rated => "rated",
            Queue::Calm => "calm",
        }
    }

    /// Its part of the jobs, so that none gets more than it can start in bad times.
    pub fn share(self) -> usize {
        match self {
            Queue::Plain => 5,
            Queue::Keyed | Queue::Ordered | Queue::Calm => 2,
            Queue::Limited | Queue::Rated => 1,
        }
    }

    /// Gives the queue its limits.
    pub async fn set_up(self, database: &Database) -> reveille::Result<()> {
        let settings = match self {
            Queue::Plain | Queue::Calm => return Ok(()),
            Queue::Limited => QueueSettings::new().max_running(MAX_RUNNING),
            Queue::Keyed => QueueSettings::new().max_running_per_key(MAX_RUNNING_PER_KEY),
            Queue::Ordered => QueueSettings::new().ordered(true),
            Queue::Rated => {
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
    fn a_jobs_number_tells_its_queue_and_key() {
        let job = Queue::Ordered.first_number(3) + 251;
        assert_eq!((Queue::of(job), Queue::key(job)), (Some(Queue::Ordered), Some("3-1".into())));
        assert_eq!(Queue::key(Queue::Keyed.first_number(2) + 301), Some("1".into()));
        assert_eq!(Queue::key(Queue::Plain.first_number(2) + 1), None);
    }
}
