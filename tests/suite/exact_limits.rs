//! A limit holds from its commit on, even for claims under way. Locks of other sessions do not delay these claims.

use std::time::Duration;

use reveille::driver::{ClaimRequest, WorkerInfo};
use reveille::{
    Worker,
    driver::{Driver, Postgres},
};
use tokio_postgres::Client;

use crate::harness::{Note, TestDatabase, claim, database, soon, start};

/// Limits of the queue `default`. Three running jobs reach each of these limits, because all jobs have the same key.
const LIMITS: [&str; 4] =
    ["max_running = 3", "max_running_per_key = 3", "ordered = true", "max_running = 2, rate_limit = 1000"];

fn set(limits: &str) -> String {
    let (columns, values): (Vec<_>, Vec<_>) = limits.split(", ").map(|limit| limit.split_once(" = ").unwrap()).unzip();
    format!("insert into reveille.queues (name, {}) values ('default', {})", columns.join(", "), values.join(", "))
}

/// True if a session has queried the claims that are under way.
const WAITING: &str = "select exists (
    select from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and query like '%virtualtransaction as transaction%'
)";

/// Returns a driver on which worker 1 is registered.
async fn driver(database: &TestDatabase) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    let info = WorkerInfo::new(1).host("h").queues(["default"]);
    driver.register(&info).await.unwrap();
    driver
}

async fn fill(database: &TestDatabase, jobs: usize) {
    let insert = "insert into reveille.jobs (kind, key) select 'note', 'k' from generate_series(1,";
    database.run(&format!("{insert} {jobs})")).await;
}

/// Claims three jobs in a transaction, and leaves the transaction open.
async fn claim_under_way(database: &TestDatabase) -> Client {
    let client = database.client().await;
    client.batch_execute(&format!("begin; prepare claim as {}", include_str!("../../sql/claim.sql"))).await.unwrap();
    let claim = "execute claim('default', 3, 1, '{-infinity,-infinity,-infinity,-infinity}', '{0,0,0,0}')";
    client.batch_execute(claim).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_under_way_when_a_limit_is_set_counts() {
    for limits in LIMITS {
        let database = database().await;
        let driver = driver(&database).await;
        fill(&database, 9).await;
        let early = claim_under_way(&database).await;
        database.run(&set(limits)).await;
        let claiming = tokio::spawn(async move { (claim(&driver, 1, 9).await.len(), driver) });
        database.until(WAITING).await;
        assert!(!claiming.is_finished(), "{limits}");
        early.batch_execute("commit").await.unwrap();
        let (claimed, driver) = soon("the claim is answered", claiming).await.unwrap();
        assert_eq!(claimed, 0, "{limits}");
        database.run("delete from reveille.jobs where id <= 2").await;
        let more = if limits.contains("= 3") { 2 } else { usize::from(limits.contains("= 2")) };
        assert_eq!(claim(&driver, 1, 9).await.len(), more, "{limits}");
    }
}

/// The late claim finds no row of reveille.limits to lock, because no claim has counted the running jobs yet. The late
/// claim goes on after another claim has counted them.
#[tokio::test]
async fn a_claim_begun_before_the_first_count_claims_nothing_more() {
    for (limits, statement, more) in [
        ("max_running = 3", include_str!("../../sql/claim_limited.sql"), ""),
        ("max_running_per_key = 3", include_str!("../../sql/claim_by_key.sql"), ", '', 500, true"),
    ] {
        let database = database().await;
        let driver = driver(&database).await;
        fill(&database, 9).await;
        database.run(&set(limits)).await;
        let late = database.client().await;
        let lock = include_str!("../../sql/limit_lock.sql");
        late.batch_execute(&format!("prepare lock as {lock}; prepare claim as {statement}")).await.unwrap();
        late.batch_execute("begin; execute lock('default')").await.unwrap();
        assert_eq!(claim(&driver, 1, 1).await.len(), 1, "{limits}");
        let early = database.client().await;
        early.batch_execute(&format!("begin; prepare lock as {lock}; execute lock('default')")).await.unwrap();
        late.batch_execute(&format!("execute claim('default', 9, 1{more}); commit")).await.unwrap();
        early.batch_execute("rollback").await.unwrap();
        let reserved = "select count(*) from reveille.jobs where reserved_at is not null";
        assert_eq!(database.value(reserved).await, 1, "{limits}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_claimed_before_a_limit_commits_count() {
    for limits in LIMITS {
        let database = database().await;
        let driver = driver(&database).await;
        fill(&database, 9).await;
        assert_eq!(claim(&driver, 1, 1).await.len(), 1);
        let setting = database.client().await;
        setting.batch_execute(&format!("begin; {}", set(limits))).await.unwrap();
        assert_eq!(claim(&driver, 1, 2).await.len(), 2, "{limits}: a limit does not hold before its commit");
        setting.batch_execute("commit").await.unwrap();
        assert!(claim(&driver, 1, 9).await.is_empty(), "{limits}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_set_again_counts_running_jobs_anew() {
    let database = database().await;
    let driver = driver(&database).await;
    fill(&database, 20).await;
    for (lift, again) in [
        ("update reveille.queues set max_running = null", "update reveille.queues set max_running = 3"),
        ("delete from reveille.queues", "insert into reveille.queues (name, max_running) values ('default', 3)"),
        ("update reveille.queues set name = 'other'", "update reveille.queues set name = 'default'"),
    ] {
        database
            .run("delete from reveille.queues; update reveille.jobs set reserved_at = null, reserved_by = null")
            .await;
        database.run(&set("max_running = 3")).await;
        assert_eq!(claim(&driver, 1, 9).await.len(), 3);
        database.run(lift).await;
        assert_eq!(claim(&driver, 1, 2).await.len(), 2, "{lift}");
        database.run(again).await;
        assert!(claim(&driver, 1, 9).await.is_empty(), "{again}");
        let running = "select running from reveille.queue_limits";
        assert_eq!(database.value(running).await, 5, "{again}");
    }
}

/// Returns SQL that counts the jobs of the queue that started after `since` while another job of the queue ran.
fn too_many(queue: &str, since: &str) -> String {
    format!(
        "with attempt as (
            select id, available_at + wait_seconds * interval '1 second' as began, finished_at as ended
            from reveille.finished_jobs where queue = '{queue}'
            union all
            select id, reserved_at, 'infinity' from reveille.jobs where queue = '{queue}' and reserved_at is not null
        )
        select count(*) from attempt
        where began > '{since}' and exists (
            select from attempt as other
            where other.id <> attempt.id and other.began <= attempt.began
                and other.ended > attempt.began + interval '1 ms'
        )"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_exceeds_a_limit_set_while_workers_are_busy() {
    const TRIES: usize = 25;
    async fn brief(_: Note) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let database = database().await;
    let queues: Vec<String> = (0..TRIES).map(|n| format!("q{n}")).collect();
    let working = [0, 1].map(|_| {
        let builder = Worker::builder(database.database.clone()).poll_interval(Duration::from_secs(3600)).handle(brief);
        start(queues.iter().fold(builder, |builder, queue| builder.queue(queue, 12)))
    });
    database.until("select count(*) >= 25 from reveille.sleepers").await;
    for queue in &queues {
        let jobs = format!(
            "insert into reveille.jobs (queue, kind, payload)
            select '{queue}', 'note', '{{\"text\": \"x\"}}' from generate_series(1, 3000)"
        );
        database.run(&jobs).await;
        database.until(&format!("select count(*) > 100 from reveille.finished_jobs where queue = '{queue}'")).await;
        database.run(&format!("insert into reveille.queues (name, max_running) values ('{queue}', 1)")).await;
        let since = database.value("select clock_timestamp()").await;
        let since = since.as_str().unwrap();
        let after = format!("queue = '{queue}' and available_at + wait_seconds * interval '1 second' > '{since}'");
        database.until(&format!("select count(*) > 5 from reveille.finished_jobs where {after}")).await;
        assert_eq!(database.value(&too_many(queue, since)).await, 0, "{queue}");
        database.run(&format!("delete from reveille.jobs where queue = '{queue}' and reserved_at is null")).await;
    }
    for worker in working {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_a_limit_waits_for_no_producer_and_no_foreign_key() {
    let database = database().await;
    let driver = driver(&database).await;
    fill(&database, 9).await;
    assert_eq!(claim(&driver, 1, 1).await.len(), 1);
    database.run("create table mine (job bigint references reveille.jobs on delete cascade)").await;
    let producer = database.client().await;
    let both = "begin; insert into reveille.jobs (kind) values ('k'); insert into mine values (1)";
    producer.batch_execute(both).await.unwrap();
    database.run(&set("max_running = 3")).await;
    assert_eq!(claim(&driver, 1, 9).await.len(), 2);
    producer.batch_execute("commit").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_whose_row_is_locked_counts_once_the_lock_is_gone() {
    let database = database().await;
    let driver = driver(&database).await;
    fill(&database, 9).await;
    assert_eq!(claim(&driver, 1, 3).await.len(), 3);
    let locker = database.client().await;
    locker.batch_execute("begin; select from reveille.jobs where id = 1 for update").await.unwrap();
    database.run(&set("max_running = 4")).await;
    let claimed = driver.claim(&ClaimRequest::new(1, "default", 9)).await.unwrap();
    assert_eq!((claimed.jobs.len(), claimed.due_in, claimed.limited), (0, Some(Duration::ZERO), true));
    locker.batch_execute("commit").await.unwrap();
    assert_eq!(claim(&driver, 1, 9).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lock_of_another_session_holds_up_a_limited_queue() {
    let database = database().await;
    let driver = driver(&database).await;
    fill(&database, 9).await;
    database.run(&set("max_running = 1")).await;
    assert_eq!(claim(&driver, 1, 9).await.len(), 1);
    for (lock, most) in [
        ("select pg_advisory_lock(hashtextextended('reveille.limits.default', 0))", 2),
        ("begin; select * from reveille.queues for update", 3),
        ("begin; update reveille.queues set max_running = 100", 4),
        ("begin; delete from reveille.queues", 5),
    ] {
        database.run(&format!("update reveille.queues set max_running = {most}")).await;
        let stranger = database.client().await;
        stranger.batch_execute(lock).await.unwrap();
        let claimed = soon("the claim is answered", driver.claim(&ClaimRequest::new(1, "default", 9))).await;
        assert_eq!(claimed.unwrap_or_else(|error| panic!("{lock}: {error}")).jobs.len(), 1, "{lock}");
        stranger.batch_execute("rollback; select pg_advisory_unlock_all()").await.unwrap();
    }
}

#[tokio::test]
async fn a_locked_job_keeps_no_other_job_of_a_limited_queue_waiting() {
    for (limits, key) in [
        ("max_running = 1", "null"),
        ("max_running = 1, max_running_per_key = 1", "null"),
        ("max_running = 1, max_running_per_key = 1", "'k'"),
        ("max_running = 1, ordered = true", "'k' || n"),
    ] {
        let database = database().await;
        let driver = driver(&database).await;
        let insert = "insert into reveille.jobs (kind, key) select 'note', {key} from generate_series(1, 3) as n";
        database.run(&insert.replace("{key}", key)).await;
        database.run(&set(limits)).await;
        let locker = database.client().await;
        locker.batch_execute("begin; select from reveille.jobs where id = 1 for update").await.unwrap();
        let mut claimed = claim(&driver, 1, 9).await;
        if limits.contains("ordered") {
            // This claim could take one job, and chose the first job of a key. That job is locked, so the claim took
            // none.
            assert!(claimed.is_empty());
            claimed = claim(&driver, 1, 9).await;
        }
        let ids: Vec<_> = claimed.iter().map(|job| job.reservation.id).collect();
        assert_eq!(ids, [2], "{limits}, key {key}");
        locker.batch_execute("commit").await.unwrap();
    }
}
