//! Workers wake up by the bell, at a due time, and after their listener was cut off.

use std::time::Duration;

use reveille::dev::Server;
use reveille::{Database, Worker, enqueue, enqueue::enqueue_all};

use crate::harness::{client, database, eventually, note, report, reporting, reporting_worker, start};

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_enqueue_wakes_a_sleeping_worker() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    enqueue(&database.database, &note("from rust")).await.unwrap();
    assert_eq!(reports.next().await, "from rust");
    database.run("insert into reveille.jobs (kind, payload) values ('note', '{\"text\": \"plain insert\"}')").await;
    assert_eq!(reports.next().await, "plain insert");
    database.run("select reveille.enqueue(kind => 'note', payload => '{\"text\": \"function\"}')").await;
    assert_eq!(reports.next().await, "function");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_job_is_never_run() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &note("rolled back")).await.unwrap();
    tx.rollback().await.unwrap();
    enqueue(&client, &note("after")).await.unwrap();
    assert_eq!(reports.next().await, "after");
    worker.stop().await;
    assert!(reports.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_starts_at_its_time_without_any_poll() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    enqueue(&database.database, &note("later")).delay(Duration::from_millis(300)).await.unwrap();
    assert_eq!(reports.next().await, "later");
    worker.stop().await;
    let early = database.value("select wait_seconds < 0 from reveille.finished_jobs").await;
    assert_eq!(early, false, "the job does not start early");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_due_sooner_moves_the_alarm_forward() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    enqueue(&database.database, &note("in an hour")).delay(Duration::from_secs(3600)).await.unwrap();
    enqueue(&database.database, &note("soon")).delay(Duration::from_millis(200)).await.unwrap();
    assert_eq!(reports.next().await, "soon");
    database.run("select reveille.retry(1)").await;
    assert_eq!(reports.next().await, "in an hour");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_among_many_others_is_not_forgotten() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder =
        Worker::builder(database.database.clone()).queue("default", 64).poll_interval(Duration::from_secs(3600));
    let worker = start(builder.state(reporter).handle(report));
    let mut client = database.client().await;
    let many: Vec<_> = (0..20).map(|_| note("many")).collect();
    for _ in 0..10 {
        // After the first of these bursts, the worker asks for the due time of the next job. After the second burst, it
        // need not ask again.
        database.until("select exists (select from reveille.sleepers)").await;
        enqueue_all(&client, &many).await.unwrap();
        let tx = client.transaction().await.unwrap();
        enqueue_all(&tx, &many).await.unwrap();
        enqueue(&tx, &note("later")).delay(Duration::from_millis(30)).await.unwrap();
        tx.commit().await.unwrap();
        let mut texts = Vec::new();
        for _ in 0..=2 * many.len() {
            texts.push(reports.next().await);
        }
        assert_eq!(texts.iter().filter(|text| *text == "later").count(), 1);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_enqueued_without_a_worker_start_with_the_next_one() {
    let database = database().await;
    enqueue(&database.database, &note("waiting")).await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    assert_eq!(reports.next().await, "waiting");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_listening_the_poll_finds_jobs() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder.listen(false).poll_interval(Duration::from_millis(50)));
    enqueue(&database.database, &note("polled")).await.unwrap();
    assert_eq!(reports.next().await, "polled");
    assert_eq!(
        database
            .value(
                "select count(*) from pg_stat_activity where datname = current_database() \
        and application_name = 'reveille listener'"
            )
            .await,
        0
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_poll_finds_jobs_whose_insert_did_not_ring() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder.poll_interval(Duration::from_millis(50)));
    database
        .run(
            "begin; set local reveille.bell = 'off'; insert into reveille.jobs (kind, payload) \
            values ('note', '{\"text\": \"x\"}'); commit",
        )
        .await;
    assert_eq!(reports.next().await, "x");
    worker.stop().await;
}

/// Ends the sessions of workers' listeners. Returns the number of these sessions.
async fn cut_listeners(address: &str) -> i64 {
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and application_name = 'reveille listener'";
    client(address).await.query_one(cut, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_cut_off_reconnects_and_misses_nothing() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    for round in 0..10 {
        eventually("a listener is cut off", async || cut_listeners(&database.address).await > 0).await;
        enqueue(&database.database, &note(&round.to_string())).await.unwrap();
        assert_eq!(reports.next().await, round.to_string());
    }
    assert!(worker.is_working());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_job_starts_when_its_lock_is_gone() {
    let database = database().await;
    database.run("select reveille.pause('default')").await;
    enqueue(&database.database, &note("locked")).await.unwrap();
    let holder = database.client().await;
    holder.batch_execute("begin; select * from reveille.jobs for update").await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    database.run("select reveille.resume('default')").await;
    enqueue(&database.database, &note("free")).await.unwrap();
    assert_eq!(reports.next().await, "free");
    holder.batch_execute("rollback").await.unwrap();
    assert_eq!(reports.next().await, "locked", "the worker finds the job, although the end of a lock rings no bell");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_starts_nothing_until_it_is_resumed() {
    let database = database().await;
    database.run("select reveille.pause('default')").await;
    let (builder, mut reports) = reporting_worker(&database);
    let (other, mut other_reports) = reporting_worker(&database);
    let worker = start(builder);
    let other_queue = start(other.queue("other", 1));
    enqueue(&database.database, &note("paused")).await.unwrap();
    enqueue(&database.database, &note("not paused")).queue("other").await.unwrap();
    assert_eq!(other_reports.next().await, "not paused");
    other_queue.stop().await;
    assert!(reports.rest().is_empty() && other_reports.rest().is_empty());
    database.run("select reveille.resume('default')").await;
    assert_eq!(reports.next().await, "paused");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_only_from_its_own_queues() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    enqueue(&database.database, &note("elsewhere")).queue("elsewhere").await.unwrap();
    enqueue(&database.database, &note("here")).await.unwrap();
    assert_eq!(reports.next().await, "here");
    worker.stop().await;
    assert_eq!(database.value("select payload ->> 'text' from reveille.jobs").await, "elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_needs_a_current_schema() {
    let database = crate::harness::empty_database().await;
    let (reporter, _reports) = crate::harness::reporting();
    let worker =
        Worker::builder(database.database.clone()).state(reporter).handle(crate::harness::report).build().unwrap();
    let running = worker.run_until(std::future::pending::<()>());
    let error = crate::harness::soon("the worker gives up", running).await.unwrap_err();
    assert!(error.is_schema_missing() && error.to_string().contains("reveille migrate"), "{error}");
}

/// Servers before 17 have no setting for the size of the notification buffer, and their buffer is full only at 8 GB. On
/// these servers, this test shows only that commits notify.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_of_notifications_fails_no_enqueue() {
    let version: i32 = {
        let database = database().await;
        database.value("select current_setting('server_version_num')::int").await.as_i64().unwrap() as i32
    };
    let mut options = Server::options();
    if version >= 170_000 {
        options = options.setting("max_notify_queue_pages", "64");
    }
    let server = options.start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder.poll_interval(Duration::from_millis(100)));
    let client = client(&server.url("postgres")).await;
    eventually("the worker sleeps", async || {
        client.query_one("select exists (select from reveille.sleepers)", &[]).await.unwrap().get(0)
    })
    .await;
    // A listener that is stuck in a transaction keeps the server from emptying the notification buffer.
    let stuck = crate::harness::client(&server.url("postgres")).await;
    stuck.batch_execute("listen anything; begin; select 1").await.unwrap();
    let fill = "select count(pg_notify('other', repeat('x', 7000) || n)) from generate_series(1, 20) as n";
    if version >= 170_000 {
        eventually("the notification buffer is full", async || client.batch_execute(fill).await.is_err()).await;
    }
    enqueue(&database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "x");
    worker.stop().await;
}
