//! Linked jobs of the test: jobs of workflows, jobs that wait for others, and jobs with steps, sleeps and events.

pub mod check;
mod durable;
pub mod events;
mod operate;
mod order;
pub mod produce;
mod tables;
mod work;

use std::time::Duration;

use reveille::Job;
use reveille::job::RetryPolicy;
use serde::{Deserialize, Serialize};

pub use durable::work as work_durable;
pub use operate::{Acts, operate, repair, seal_all};
pub use work::work;

/// Creates the tables of linked jobs: all of them, what waits for what outside of workflows, the jobs that shall die,
/// and what operators have revived and purged.
pub const SET_UP: &str = "create table torture.linked (job bigint primary key);
    create table torture.links (waiter bigint, prerequisite bigint, fires_on text, needs_one boolean);
    create table torture.doomed (job bigint primary key);
    create table torture.linked_applied (job bigint not null, attempt int not null, once boolean not null);
    create table torture.revived (id bigint not null);
    create table torture.purged (id bigint not null, job bigint not null);";

/// The kinds of linked jobs, for queries.
const KINDS: [&str; 2] = [LinkedTask::KIND, DurableTask::KIND];

const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A job of a workflow, or a job that waits for others.
#[derive(Serialize, Deserialize)]
pub struct LinkedTask {
    job: u64,
    /// True if the job completes in the transaction of its effect, so that the effect is written exactly once.
    once: bool,
    /// The number of jobs that the handler adds to the workflow. They have the numbers after this job's number.
    adds: u64,
}

impl Job for LinkedTask {
    const KIND: &'static str = "torture_linked";
    const QUEUE: &'static str = "workflows";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(RETRY_AFTER)
    }
}

/// A job whose handler has steps, sleeps, and may wait for an event.
#[derive(Serialize, Deserialize)]
pub struct DurableTask {
    job: u64,
    /// The length of the sleep.
    nap_ms: u64,
    /// The longest time for which to wait for the event of the job; `None`: the job waits for no event.
    event_within_ms: Option<u64>,
}

impl Job for DurableTask {
    const KIND: &'static str = "torture_durable";
    const QUEUE: &'static str = "steps";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(RETRY_AFTER)
    }
}

impl DurableTask {
    /// A job with a sleep of random length.
    fn new(job: u64, event_within_ms: Option<u64>) -> DurableTask {
        DurableTask { job, nap_ms: fastrand::u64(1..1500), event_within_ms }
    }
}

/// Returns the name of the event that a job waits for.
fn event_of(job: u64) -> String {
    format!("torture-{job}")
}
