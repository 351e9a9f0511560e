//! Jobs with large payloads reach their worker over a slow link.

use std::time::{Duration, Instant};

use reveille::dev::Network;
use reveille::{Database, Worker};

use crate::harness::{database, proxy, report, reporting, soon, start};

/// Returns the longest pause between two jobs for a worker with 100 slots, over a link of `rate` bytes a second.
async fn longest_pause(insert: &str, count: usize, rate: u32) -> Duration {
    let database = database().await;
    database.run(insert).await;
    let (proxy, address) = proxy(&database.address).await;
    let behind = Database::connect(address).await.unwrap();
    proxy.set(Network::Rate(rate));
    let (reporter, mut reports) = reporting();
    let worker = start(Worker::builder(behind).queue("default", 100).state(reporter).handle(report));
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for _ in 0..count {
        reports.next().await;
        (last, longest) = (Instant::now(), longest.max(last.elapsed()));
    }
    proxy.set(Network::Pass);
    worker.stop().await;
    longest
}

/// The link needs 15 s for all 60 jobs. If a worker claimed all jobs at once, the first claim would time out after 5 s,
/// and the next after 10 s.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_megabyte_run_as_they_arrive_on_a_slow_link() {
    let insert = "insert into reveille.jobs (kind, payload)
        select 'note', jsonb_build_object('text', repeat('x', 1000000)) from generate_series(1, 60)";
    let longest = soon("all jobs run", longest_pause(insert, 60, 4_000_000)).await;
    assert!(longest < Duration::from_secs(14), "{longest:?}");
}

/// The small jobs come first, so the worker does not expect the large jobs. The link needs 12 s for the large jobs.
#[tokio::test(flavor = "multi_thread")]
async fn small_jobs_before_large_ones_cause_no_pause_of_minutes() {
    let insert = "insert into reveille.jobs (kind, payload)
        select 'note', jsonb_build_object('text', repeat('x', case when n <= 150 then 1 else 1000000 end))
        from generate_series(1, 174) as n";
    let longest = soon("all jobs run", longest_pause(insert, 174, 2_000_000)).await;
    assert!(longest < Duration::from_secs(20), "{longest:?}");
}
