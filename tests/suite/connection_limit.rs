//! A worker's role has a limit on its connections.

use std::sync::Arc;
use std::time::Duration;

use reveille::driver::{ClaimRequest, Driver, Postgres, Report, WorkerInfo};
use reveille::{Worker, enqueue};

use crate::harness::{eventually, note, reporting, start};
use crate::roles::{Roles, fail};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_connection_limit_works_with_fewer() {
    let roles = Roles::new().await;
    roles.behind.run(&format!("alter role {}_worker_user connection limit 4", roles.schema)).await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(roles.database("worker").await).poll_interval(Duration::from_secs(3600));
    let worker = start(builder.state(reporter).handle(fail));
    roles.behind.until(&roles.sql("select count(*) = 1 from reveille.sleepers")).await;
    enqueue(&roles.database("producer").await, &note("woken")).await.unwrap();
    assert_eq!(reports.next().await, "woken 1");
    roles.behind.until(&roles.sql("select count(*) = 1 from reveille.dead_jobs")).await;
    roles
        .behind
        .until(&roles.sql("select bool_and(last_seen_at > started_at + interval '1 second') from reveille.workers"))
        .await;
    worker.stop().await;
    roles.end().await;
}

/// Fills the pool of a driver with idle sessions. Then the worker's user has `sessions` sessions, and may open no more.
async fn leave_no_room(roles: &Roles, driver: &Postgres, sessions: u32) {
    let user = format!("{}_worker_user", roles.schema);
    roles.behind.run(&format!("alter role {user} connection limit -1")).await;
    let client = roles.behind.client().await;
    client.batch_execute(&roles.sql("begin; lock table reveille.jobs")).await.unwrap();
    let count = format!("from pg_stat_activity where usename = '{user}'");
    let unlocked = async {
        roles.behind.until(&format!("select count(*) = 4 {count} and wait_event_type = 'Lock'")).await;
        client.batch_execute("rollback").await.unwrap();
    };
    let request = ClaimRequest::new(1, "default", 1);
    let claims = futures::future::join_all((0..4).map(|_| driver.claim(&request)));
    let (claimed, ()) = futures::future::join(claims, unlocked).await;
    assert!(claimed.iter().all(Result::is_ok), "{claimed:?}");
    roles.behind.until(&format!("select count(*) = {sessions} {count}")).await;
    roles.behind.run(&format!("alter role {user} connection limit {sessions}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_make_room_for_the_heartbeat_and_the_listener() {
    let roles = Roles::new().await;
    let driver = Postgres::new(roles.database("worker").await).unwrap();
    let worker = WorkerInfo::new(1);
    driver.register(&worker).await.unwrap();
    leave_no_room(&roles, &driver, 4).await;
    assert!(driver.beat(worker.id, &Report::default()).await.unwrap_err().is_unavailable());
    eventually("a heartbeat is sent", async || driver.beat(worker.id, &Report::default()).await.is_ok()).await;
    // The four of the pool, and the heartbeat's.
    leave_no_room(&roles, &driver, 5).await;
    let listen = async || driver.listen(worker.id, Arc::new(|_| {})).await;
    assert!(listen().await.err().unwrap().is_unavailable());
    eventually("the listener listens", async || listen().await.is_ok()).await;
    roles.end().await;
}
