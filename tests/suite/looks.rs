//! Looks back below the low-water marks of a queue.

use std::time::Duration;

use reveille::driver::{ClaimRequest, WorkerInfo};
use reveille::{
    Worker,
    driver::{Driver, Postgres},
};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::harness::{Note, TestDatabase, database, report, reporting, reporting_worker, start};
use crate::tracing::EventLog;

/// Returns the text of a statement in `sql/`.
fn statement(name: &str) -> String {
    let path = format!("{}/sql/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// Returns SQL for low-water marks that are the same for each level: the due time `ago`, and the id 0.
fn marks(ago: &str) -> String {
    format!("array_fill({ago}, array[4]), array_fill(0::bigint, array[4])")
}

/// Runs the statement that a look back runs. Returns the id of the first due job of each level, from `marks` on.
async fn heads(database: &TestDatabase, marks: &str) -> serde_json::Value {
    let heads = format!("prepare heads as {}; execute heads('q', {marks})", statement("heads"));
    let found = rows(&database.client().await, &heads).await;
    let head =
        |level: i64| found.iter().find(|row| row[0] == level.to_string()).map(|row| row[2].parse::<i64>().unwrap());
    serde_json::json!((0..4).map(head).collect::<Vec<_>>())
}

/// Returns the rows of statements without parameters, as texts.
async fn rows(client: &tokio_postgres::Client, sql: &str) -> Vec<Vec<String>> {
    let text = |row: &SimpleQueryRow| (0..row.len()).map(|n| row.get(n).unwrap_or_default().to_owned()).collect();
    let messages = client.simple_query(sql).await.unwrap();
    messages
        .iter()
        .filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(text(row)) } else { None })
        .collect()
}

#[tokio::test]
async fn a_look_back_finds_the_first_due_job_of_each_level() {
    let database = database().await;
    database
        .run(
            "insert into reveille.jobs (id, queue, kind, priority, available_at, reserved_at, reserved_by, attempts)
            overriding system value values
            (1, 'q', 'k', 0, now() + interval '1 hour', null, null, 0),
            (2, 'q', 'k', 1, now() - interval '3 hours', now(), 7, 1),
            (3, 'q', 'k', 1, now() - interval '1 hour', null, null, 0),
            (4, 'q', 'k', 2, now() - interval '1 hour', null, null, 0),
            (5, 'q', 'k', 2, now() - interval '2 hours', null, null, 0),
            (6, 'other', 'k', 3, now(), null, null, 0)",
        )
        .await;
    let everything = marks("'-infinity'::timestamptz");
    assert_eq!(heads(&database, &everything).await, serde_json::json!([null, 3, 5, null]));
    let later = marks("now() - interval '90 minutes'");
    assert_eq!(heads(&database, &later).await, serde_json::json!([null, 3, 4, null]));
}

/// Claims two jobs of the queue `q` for worker 7, and returns their ids. If `shared` is true, claims as one of several
/// workers of the queue.
async fn claim_two(database: &TestDatabase, shared: bool) -> Vec<i64> {
    let claim = statement(if shared { "claim_shared" } else { "claim" });
    let everything = marks("'-infinity'::timestamptz");
    let claim = format!("prepare claim as {claim}; execute claim('q', 2, 7, {everything})");
    let mut ids: Vec<i64> =
        rows(&database.client().await, &claim).await.iter().map(|row| row[0].parse().unwrap()).collect();
    ids.sort_unstable();
    ids
}

/// Inserts ten jobs of the queue `q` that became due an hour ago. Returns a driver on which worker 7 is registered.
async fn ten_jobs(database: &TestDatabase) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    let info = WorkerInfo::new(7).host("test").queues(["q"]);
    driver.register(&info).await.unwrap();
    database
        .run(
            "insert into reveille.jobs (id, queue, kind, available_at) overriding system value
            select id, 'q', 'k', now() - interval '1 hour' from generate_series(1, 10) as id",
        )
        .await;
    driver
}

#[tokio::test]
async fn claims_beside_others_begin_at_the_shared_head() {
    let database = database().await;
    ten_jobs(&database).await;
    database.run("select reveille.tell_head('q', 2::smallint, available_at, id) from reveille.jobs where id = 5").await;
    assert_eq!(claim_two(&database, true).await, [5, 6]);
    assert_eq!(claim_two(&database, true).await, [7, 8]);
    assert_eq!(claim_two(&database, false).await, [1, 2], "a lone claimer begins at its own marks");
    assert_eq!(claim_two(&database, true).await, [9, 10], "a lone claimer does not move the shared head");
    assert_eq!(claim_two(&database, true).await, [0; 0]);
}

#[tokio::test]
async fn a_wrong_or_torn_shared_head_misleads_no_claim() {
    let database = database().await;
    ten_jobs(&database).await;
    let right = "select reveille.tell_head('q', 2::smallint, now() - interval '1 minute', 9);";
    let misleading = [
        "select reveille.tell_head('q', 1::smallint, now() - interval '1 minute', 9)".to_owned(),
        // Shares heads of a hundred other queues. At least one of them is kept where the head of the queue `q` was.
        "select reveille.tell_head('q' || n, 2::smallint, now() - interval '1 minute', 9) \
            from generate_series(1, 100) as n"
            .to_owned(),
        "select reveille.tell_head('q', 2::smallint, now() + interval '1 minute', 9)".to_owned(),
        format!("{right} select setval('reveille.head_' || slot || '_id', 8) from generate_series(0, 7) as slot"),
        format!("{right} select setval('reveille.head_' || slot || '_seal', 8) from generate_series(0, 7) as slot"),
    ];
    for (head, first) in misleading.iter().zip([1, 3, 5, 7, 9]) {
        database.run(head).await;
        assert_eq!(claim_two(&database, true).await, [first, first + 1], "{head}");
    }
}

#[tokio::test]
async fn a_recent_shared_head_leaves_room_for_late_commits() {
    let database = database().await;
    let client = database.client().await;
    for (ago, slack, id) in
        [("1 second", "0", 9), ("999 milliseconds", "50 milliseconds", 0), ("0", "50 milliseconds", 0)]
    {
        // Shares the head in one transaction, so that `now()` stands still.
        let share = format!("begin; select reveille.tell_head('q', 2::smallint, now() - interval '{ago}', 9)");
        client.batch_execute(&share).await.unwrap();
        let shared = format!(
            "select priority = 2 and available_at = now() - interval '{ago}' - interval '{slack}' and id = {id} \
                from reveille.told_head('q')"
        );
        assert!(client.query_one(&shared, &[]).await.unwrap().get::<_, bool>(0), "{ago}");
        client.batch_execute("commit").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_below_a_shared_head_are_not_left_for_the_end() {
    const FULL: usize = 60_000;
    let database = database().await;
    let insert = |text: &str, count: usize, ago: &str| {
        format!(
            "insert into reveille.jobs (kind, payload, available_at)
            select 'note', '{{\"text\": \"{text}\"}}', now() - interval '{ago}' from generate_series(1, {count})"
        )
    };
    database.run(&insert("full", FULL, "1 minute")).await;
    let (reporter, mut reports) = reporting();
    let workers = [0; 2].map(|_| {
        let builder =
            Worker::builder(database.database.clone()).queue("default", 64).heartbeat(Duration::from_millis(100));
        start(builder.state(reporter.clone()).handle(report))
    });
    let (mut before, mut late) = (0, 0);
    while late < 3000 {
        match reports.next().await.as_str() {
            "late" => late += 1,
            _ => before += 1,
        }
        if before + late == 10_000 {
            database.run(&insert("late", 3000, "1 hour")).await;
        }
    }
    assert!(before < FULL, "the last late job started after all {FULL} other jobs");
    for worker in workers {
        worker.stop().await;
    }
}

/// Runs on one thread, so that the log receives all events.
#[tokio::test]
async fn looks_back_among_dead_rows_wake_a_worker_only_for_a_job() {
    const LATE: usize = 5;
    let (events, _listening) = EventLog::start();
    let database = database().await;
    let holder = database.client().await;
    holder.batch_execute("begin isolation level repeatable read; select count(*) from reveille.jobs").await.unwrap();
    // With 60,000 dead rows, a look from the very start of the queue is too expensive to make each time.
    database
        .run(
            "insert into reveille.jobs (kind, available_at) select 'note', now() - interval '1 hour' \
                from generate_series(1, 60000);
            delete from reveille.jobs",
        )
        .await;
    let (builder, mut reports) = reporting_worker(&database.database);
    let worker = start(builder.poll_interval(Duration::from_secs(3600)));
    let (mut woken, mut least) = (0, usize::MAX);
    for n in 0..LATE {
        database.until("select exists (select from reveille.sleepers)").await;
        let insert = format!(
            "insert into reveille.jobs (kind, payload, available_at)
            values ('note', '{{\"text\": \"{n}\"}}', now() - interval '2 hours')"
        );
        database.run(&insert).await;
        assert_eq!(reports.next().await, n.to_string());
        let before = std::mem::replace(&mut woken, events.count("worker.woken", "reason", "Some(Due)"));
        least = least.min(woken - before);
    }
    worker.stop().await;
    assert!(least <= 1, "each job woke the worker {least} times or more; the look back that finds the job suffices");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_below_the_marks_is_found_while_the_queue_is_full() {
    const FULL: usize = 100_000;
    let database = database().await;
    database
        .run(&format!(
            "insert into reveille.jobs (kind, payload) select 'note', '{{\"text\": \"full\"}}' \
                from generate_series(1, {FULL})"
        ))
        .await;
    let (reporter, mut reports) = reporting();
    let worker = start(Worker::builder(database.database.clone()).queue("default", 64).state(reporter).handle(report));
    let mut before = 0;
    while reports.next().await != "late" {
        before += 1;
        if before == 1000 {
            // Inserts the late job as if its transaction had been open for 300 ms.
            database
                .run(
                    "insert into reveille.jobs (kind, payload, priority, available_at)
                    values ('note', '{\"text\": \"late\"}', 0, now() - interval '300 ms')",
                )
                .await;
        }
    }
    assert!(before < FULL * 9 / 10, "the late job started after {before} of {FULL} other jobs");
    worker.stop().await;
}

#[tokio::test]
async fn a_claim_tells_the_next_due_time_and_whether_limits_apply() {
    let database = database().await;
    let driver = ten_jobs(&database).await;
    assert_eq!(driver.claim(&ClaimRequest::new(7, "q", 20)).await.unwrap().jobs.len(), 10);
    database
        .run(
            "update reveille.jobs set reserved_at = null, reserved_by = null, available_at = now() + interval '1 hour'",
        )
        .await;
    let claimed = driver.claim(&ClaimRequest::new(7, "q", 20)).await.unwrap();
    assert!(claimed.jobs.is_empty());
    assert!(claimed.due_in.unwrap().abs_diff(Duration::from_secs(3600)) < Duration::from_secs(60));
    database.run("insert into reveille.queues (name, max_running) values ('q', 1)").await;
    database.run("update reveille.jobs set available_at = now()").await;
    let claimed = driver.claim(&ClaimRequest::new(7, "q", 20)).await.unwrap();
    assert_eq!((claimed.jobs.len(), claimed.limited), (1, true), "a claim of a limited queue says that it was limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_worker_with_quick_jobs_makes_two_claims_at_a_time() {
    let database = database().await;
    database
        .run(
            "insert into reveille.jobs (kind, payload, available_at)
            select 'note', '{\"text\": \"\"}', now() - interval '1 hour' from generate_series(1, 100000)",
        )
        .await;
    let worker = start(Worker::builder(database.database.clone()).queue("default", 64).handle(async |_: Note| ()));
    // A transaction keeps its first answer from `pg_stat_activity`, so another session watches.
    let (holder, watcher) = (database.client().await, database.client().await);
    let claims = "select count(*)::int from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '-- Reserves due jobs%'";
    let mut most = 0;
    while most < 2 {
        // Claims wait for this lock on the table of workers.
        holder.batch_execute("begin; lock reveille.workers in access exclusive mode").await.unwrap();
        for _ in 0..50 {
            most = most.max(watcher.query_one(claims, &[]).await.unwrap().get(0));
        }
        holder.batch_execute("commit").await.unwrap();
        let left = holder.query_one("select exists (select from reveille.jobs)", &[]).await.unwrap();
        assert!(left.get::<_, bool>(0), "at most {most} claims at a time, and now no job is left");
    }
    assert_eq!(most, 2);
    worker.stop().await;
}
