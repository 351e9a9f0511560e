//! Tests through a real PgBouncer in transaction mode. `.ci/pooler` fetches PgBouncer and runs these tests.

use std::process::Command;

use reveille::enqueue;
use serde_json::json;

use crate::harness::{database, eventually, note};
use crate::pgbouncer::Pooler;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PgBouncer: .ci/pooler"]
async fn a_worker_detects_a_transaction_pooler_and_polls() {
    let behind = database().await;
    let pooler = Pooler::start(&behind).await;
    let log = pooler.folder.join("worker");
    let worker = Command::new(env!("CARGO_BIN_EXE_reveille"))
        .args(["work", "--poll-interval", "100ms", "--exec", "true"])
        .env("DATABASE_URL", pooler.address())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn();
    let worker = crate::exec::Worker(worker.unwrap());
    eventually("the log says that the worker only polls", async || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("polling only"))
    })
    .await;
    enqueue(&behind.database, &note("x")).await.unwrap();
    behind.until("select count(*) = 1 from reveille.finished_jobs").await;
    let row = "select jsonb_build_array(holds_lock, (select count(*) from reveille.sleepers)) from reveille.workers";
    assert_eq!(behind.value(row).await, json!([false, 0]));
    drop(worker);
    assert_eq!(pooler.leftovers().await, 0);
}
