//! Any role can send a notification, so each notification is only a hint. Workers act on the hint once the tables
//! confirm it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reveille::job::JobState;
use reveille::{Context, State, Worker, enqueue, enqueue::enqueue_all, handler::Cancellation};
use tokio::sync::Notify;
use tokio_postgres::Client;

use crate::harness::{Note, Reporter, TestDatabase, database, eventually, note, reporting, soon, start, worker};

const HOUR: Duration = Duration::from_secs(3600);

/// A session of a role without any right.
struct Outsider<'a> {
    database: &'a TestDatabase,
    client: Client,
    role: String,
}

impl Outsider<'_> {
    async fn of(database: &TestDatabase) -> Outsider<'_> {
        let (client, role) = (database.client().await, format!("outsider_{:016x}", fastrand::u64(..)));
        client.batch_execute(&format!("create role {role}; set session authorization {role}")).await.unwrap();
        Outsider { database, client, role }
    }

    async fn notify(&self, channel: &str, payload: &str) {
        self.client.execute("select pg_notify($1, $2)", &[&channel, &payload]).await.unwrap();
    }

    async fn leave(self) {
        self.client.batch_execute("reset session authorization").await.unwrap();
        self.database.run(&format!("drop role {}", self.role)).await;
    }
}

/// A handler that reports its start and its cancel.
async fn reports_its_cancel(
    _: Note,
    context: Context,
    cancellation: Cancellation,
    State(reporter): State<Reporter>,
) -> Result<(), String> {
    reporter.report(format!("{} begun", context.id()));
    cancellation.cancelled().await;
    reporter.report(format!("{} stopped", context.id()));
    Err("stopped".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_cancels_no_job_and_stops_no_worker() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let working = start(worker(&database).heartbeat(HOUR).state(reporter).handle(reports_its_cancel));
    enqueue_all(&database.database, &[note("a"), note("b")]).await.unwrap();
    reports.next().await;
    reports.next().await;
    let outsider = Outsider::of(&database).await;
    let id = database.value("select id from reveille.workers").await.to_string();
    for (channel, payload) in [("cancel", "1"), ("cancel", "2"), ("stop", &id), ("cancel", "x"), ("pause", "default")] {
        outsider.notify(&format!("reveille.{channel}"), payload).await;
    }
    // The listener receives this cancel last. When the handler reports it, the worker has checked all earlier
    // notifications.
    assert_eq!(database.value("select reveille.cancel(2)").await, "requested");
    assert_eq!(reports.next().await, "2 stopped");
    database.until("select count(*) = 1 from reveille.finished_jobs where outcome = 'cancelled'").await;
    enqueue(&database.database, &note("c")).await.unwrap();
    assert_eq!(reports.next().await, "3 begun", "the queue and the worker go on");
    assert!(working.is_working());
    database.run("select reveille.cancel(1), reveille.cancel(3)").await;
    let mut rest = [reports.next().await, reports.next().await];
    rest.sort();
    assert_eq!(rest, ["1 stopped", "3 stopped"]);
    working.stop().await;
    outsider.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_its_handler_within_100_ms() {
    let database = database().await;
    let (reporter, reports) = reporting();
    let reports = tokio::sync::Mutex::new(reports);
    let working = start(worker(&database).heartbeat(HOUR).state(reporter).handle(reports_its_cancel));
    let client = database.client().await;
    // On a busy machine some rounds of eleven cancels may be slow, but at least one round is quick.
    eventually("the median of eleven cancels is below 100 ms", async || {
        let mut took = Vec::new();
        for _ in 0..11 {
            let id = enqueue(&database.database, &note("x")).await.unwrap().id;
            // A cancel that comes between the claim and the worker's note of it is found by a heartbeat only.
            while reports.lock().await.next().await != format!("{id} begun") {}
            let asked = Instant::now();
            client.execute("select reveille.cancel($1)", &[&id]).await.unwrap();
            database.until(&format!("select count(*) = 0 from reveille.jobs where id = {id}")).await;
            took.push(asked.elapsed());
        }
        took.sort();
        took[5] < Duration::from_millis(100)
    })
    .await;
    working.stop().await;
    assert!(reports.into_inner().rest().iter().any(|report| report.ends_with(" stopped")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_is_resumed_at_once_costs_no_attempt() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let working = start(worker(&database).state(reporter).handle(crate::harness::report));
    for round in 0..20 {
        enqueue_all(&database.database, &vec![note("x"); 50]).await.unwrap();
        let separator = if round % 2 == 0 { ";" } else { "; commit; begin;" };
        let sql =
            format!("begin; select reveille.pause('default'){separator} select reveille.resume('default'); commit");
        database.run(&sql).await;
    }
    for _ in 0..1000 {
        reports.next().await;
    }
    database.until("select count(*) = 1000 from reveille.finished_jobs where failures = 0").await;
    working.stop().await;
    assert!(reports.rest().is_empty(), "no job has run twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_alone_ends_no_wait() {
    async fn waits(_: Note, State(gate): State<Arc<Notify>>) {
        gate.notified().await;
    }
    for history in ["1 day", "0"] {
        let (database, gate) = (database().await, Arc::new(Notify::new()));
        database.run(&format!("insert into reveille.queues (name, retention) values ('default', '{history}')")).await;
        let working = start(worker(&database).state(Arc::clone(&gate)).handle(waits));
        let ids = enqueue_all(&database.database, &[note("ends"), note("vanishes")]).await.unwrap();
        let waits = ids.iter().map(|job| {
            let (database, id) = (database.database.clone(), job.id);
            tokio::spawn(async move { database.finished(id).await.unwrap() })
        });
        let [ends, vanishes] = <[_; 2]>::try_from(waits.collect::<Vec<_>>()).unwrap();
        database.until("select count(*) = 2 from reveille.jobs where awaited and reserved_at is not null").await;
        let outsider = Outsider::of(&database).await;
        outsider.notify("reveille.finished", "1 dead").await;
        outsider.notify("reveille.finished", "2 completed").await;
        database.run("delete from reveille.jobs where id = 2").await;
        outsider.notify("reveille.finished", "2 completed").await;
        assert_eq!(soon("the wait is over", vanishes).await.unwrap(), None, "the vanished job's end is unknown");
        gate.notify_waiters();
        let finished = soon("the job's end", ends).await.unwrap().unwrap();
        assert_eq!(finished.state, JobState::Completed, "{history}");
        working.stop().await;
        outsider.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_history_a_cancelled_jobs_end_is_known_for_a_minute() {
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('default', '0')").await;
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    let waiting = tokio::spawn({
        let database = database.database.clone();
        async move { database.finished(id).await.unwrap() }
    });
    database.until("select awaited from reveille.jobs").await;
    enqueue(&database.database, &note("not awaited")).await.unwrap();
    database.run("select reveille.cancel(1), reveille.cancel(2)").await;
    assert_eq!(soon("the job's end", waiting).await.unwrap().unwrap().state, JobState::Cancelled);
    assert_eq!(
        database.database.finished(id).await.unwrap().unwrap().state,
        JobState::Cancelled,
        "a later query has the same answer"
    );
    assert_eq!(database.value("select array_agg(id) from reveille.ends").await, serde_json::json!([1]));
    database.admin().prune().await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.ends").await, 1);
    database.run("update reveille.ends set ended_at = ended_at - interval '1 minute'").await;
    database.admin().prune().await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.ends").await, 0);
    assert_eq!(database.database.finished(id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_a_worker_without_a_listener() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(database.database.clone()).listen(false).poll_interval(Duration::from_millis(50));
    let working = start(builder.heartbeat(Duration::from_millis(50)).state(reporter).handle(reports_its_cancel));
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "1 begun");
    database.run("select reveille.cancel(1)").await;
    assert_eq!(reports.next().await, "1 stopped");
    working.stop().await;
}
