//! Jobs that are large for the link, or for the worker.

use std::time::{Duration, Instant};

use reveille::dev::Network;
use reveille::{Database, Worker};

use crate::harness::{database, proxy, soon, start, tell, telling};

/// The longest that these jobs keep a worker with a hundred slots waiting between two of them, over a link of this
/// many bytes a second.
async fn longest_pause(insert: &str, count: usize, rate: Option<u32>) -> Duration {
    let database = database().await;
    database.run(insert).await;
    let (proxy, address) = proxy(&database.address).await;
    let behind = Database::connect(address).await.unwrap();
    if let Some(rate) = rate {
        proxy.set(Network::Rate(rate));
    }
    let (told, mut heard) = telling();
    let worker = start(Worker::builder(behind).queue("default", 100).state(told).handle(tell));
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for _ in 0..count {
        heard.next().await;
        (last, longest) = (Instant::now(), longest.max(last.elapsed()));
    }
    proxy.set(Network::Pass);
    worker.stop().await;
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_mebibyte_run_as_a_slow_link_brings_them() {
    let insert = "insert into reveille.jobs (kind, payload)
        select 'note', jsonb_build_object('text', repeat('x', 1000000)) from generate_series(1, 80)";
    // The first claim asks for all of them, which the link takes 20 s for; it is given up after 5 s.
    let longest = soon("all of them", longest_pause(insert, 80, Some(4_000_000))).await;
    assert!(longest < Duration::from_secs(20), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_jobs_among_huge_ones_run_without_a_pause_of_minutes() {
    let insert = "insert into reveille.jobs (kind, payload, available_at)
        select 'note', jsonb_build_object('text', repeat('x', case when n % 4 = 0 then 1 else 8000000 end)), now() - interval '1 minute'
        from generate_series(1, 60) as n";
    let longest = soon("all of them", longest_pause(insert, 60, None)).await;
    assert!(longest < Duration::from_secs(30), "{longest:?}");
}
