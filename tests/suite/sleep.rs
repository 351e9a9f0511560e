//! Workers fall asleep and stay awake. No commit is missed, and the bell rings only when a worker needs the bell.

use std::time::Duration;

use reveille::dev::{Server, Stop};
use reveille::driver::OpenTransaction;
use reveille::{
    Database, State, Worker,
    driver::{Driver, Postgres},
    enqueue,
    enqueue::enqueue_all,
};
use serde_json::json;

use crate::harness::{
    Note, Reporter, client, database, eventually, note, report, reporting, reporting_worker, soon, start, worker,
};

const ASLEEP: &str = "select count(*) = 1 from reveille.sleepers";
const AWAKE: &str = "select count(*) = 0 from reveille.sleepers";
/// True if inserts need not even read the table of sleepers.
const UNASKED: &str = "select last_value = 0 from reveille.somebody_sleeps";

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_worker_has_its_sessions_ready_for_a_burst() {
    let database = database().await;
    let (builder, _reports) = reporting_worker(&database);
    let worker = start(builder);
    database.until(ASLEEP).await;
    let ready = "select count(*) >= 3 from pg_stat_activity
        where application_name = 'reveille worker' and datname = current_database()";
    database.until(ready).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_enqueued_before_the_bell_is_armed_starts_at_its_commit() {
    let database = database().await;
    let mut client = database.client().await;
    // The trigger of this enqueue runs while no worker sleeps, so the commit rings no bell.
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &note("silent")).await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    database.until(ASLEEP).await;
    tx.commit().await.unwrap();
    assert_eq!(reports.next().await, "silent", "the bell wakes the worker; the next poll is an hour away");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_prepared_transaction_starts_at_its_commit() {
    // Uses a separate server, because prepared transactions are off by default.
    let server = Server::options().setting("max_prepared_transactions", "5").start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let plain = client(&server.url("postgres")).await;
    let prepare = "begin; insert into reveille.jobs (kind, payload) \
        values ('note', '{\"text\": \"prepared\"}'); prepare transaction 'p'";
    plain.batch_execute(prepare).await.unwrap();
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(report));
    eventually("the worker sleeps", async || plain.query_one(ASLEEP, &[]).await.is_ok_and(|row| row.get(0))).await;
    plain.batch_execute("commit prepared 'p'").await.unwrap();
    assert_eq!(reports.next().await, "prepared");
    worker.stop().await;
}

#[tokio::test]
async fn arming_the_bell_returns_transactions_that_may_not_ring() {
    let database = database().await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    let info = reveille::driver::WorkerInfo::new(7).host("t");
    driver.register(&info).await.unwrap();
    let mut client = database.client().await;
    let tx = client.transaction().await.unwrap();
    tx.execute("insert into reveille.jobs (kind) values ('k')", &[]).await.unwrap();
    let silent = driver.arm(7, "default").await.unwrap();
    assert_eq!(silent.len(), 1, "{silent:?}");
    assert_eq!(driver.still_open(&silent).await.unwrap(), silent);
    tx.commit().await.unwrap();
    assert_eq!(driver.still_open(&silent).await.unwrap(), [] as [OpenTransaction; 0]);
    assert!(driver.arm(8, "default").await.is_err(), "no bell rings for a worker without its row");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_worker_disarms_the_bell_and_an_idle_one_arms_it() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    database.until(ASLEEP).await;
    let client = database.client().await;
    let busy = async {
        loop {
            enqueue_all(&client, &vec![note("many"); 500]).await.unwrap();
        }
    };
    tokio::select! {
        () = busy => {}
        () = async { tokio::join!(database.until(AWAKE), database.until(UNASKED)); } => {}
    }
    database.until(ASLEEP).await;
    enqueue(&database.database, &note("one more")).await.unwrap();
    while reports.next().await != "one more" {}
    worker.stop().await;
    assert_eq!(database.value("select count(*) from reveille.sleepers").await, 0, "a stopped worker does not sleep");
    assert_eq!(database.value(UNASKED).await, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_bell_slows_producers_down_stays_awake() {
    // A commit waits for 20 ms, so that it can be written together with other commits. A commit that rings the bell
    // makes other notifying commits wait until it ends.
    let slow = Server::options().fsync(true).setting("commit_delay", "20000").setting("commit_siblings", "0");
    let server = slow.start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    let plain = client(&server.url("postgres")).await;
    let is = async |state: &str| plain.query_one(state, &[]).await.is_ok_and(|row| row.get(0));
    eventually("the worker sleeps", async || is(ASLEEP).await).await;
    for _ in 0..40 {
        enqueue(&plain, &note("one")).await.unwrap();
    }
    assert!(is(ASLEEP).await, "the commit of a lone producer waits for no other commit");
    let clients = futures::future::join_all((0..8).map(|_| async { client(&server.url("postgres")).await })).await;
    let producers = clients.iter().map(|client| async move {
        loop {
            enqueue(client, &note("one")).await.unwrap();
        }
    });
    tokio::select! {
        _ = futures::future::join_all(producers) => {}
        () = eventually("the worker stays awake", async || is(AWAKE).await) => {}
    }
    assert_eq!(reports.next().await, "one");
    worker.stop().await;
}

/// SQL that makes inserts fail if they read the table of sleepers.
const REFUSE_TO_ASK: &str = "create or replace function reveille.ring_after_insert() returns trigger
    language plpgsql as $$ begin raise exception 'asked'; end $$";
const INSERT: &str = "insert into reveille.jobs (kind) values ('k')";
const NOTE: &str = "select reveille.note_nobody_sleeps()";
const SLEEPER: &str =
    "insert into reveille.workers (id, host, pid, version, queues, slots) values (1, 'h', 1, 'v', '{}', 1);
    insert into reveille.sleepers (queue, worker) values ('any', 1)";

#[tokio::test]
async fn while_no_worker_sleeps_an_insert_looks_for_no_sleepers() {
    let database = database().await;
    database.run(REFUSE_TO_ASK).await;
    database.run(INSERT).await;
    database.run("begin isolation level serializable; insert into reveille.jobs (kind) values ('k'); commit").await;
    database.run(SLEEPER).await;
    assert!(database.refusal(INSERT).await.contains("asked"));
    database.run("delete from reveille.workers").await;
    assert_eq!(database.value(NOTE).await, true);
    database.run(INSERT).await;
}

#[tokio::test]
async fn inserts_look_for_sleepers_again_unless_surely_none_sleeps() {
    let database = database().await;
    let client = database.client().await;
    client.batch_execute(&format!("begin; {SLEEPER}")).await.unwrap();
    assert_eq!(database.value(NOTE).await, false, "the sleeper's row is not visible yet");
    client.batch_execute("commit").await.unwrap();
    assert_eq!(database.value(NOTE).await, false);
    let cleared = async |begin: &str| {
        client.batch_execute(begin).await.unwrap();
        let cleared: bool = client.query_one(NOTE, &[]).await.unwrap().get(0);
        client.batch_execute("rollback").await.unwrap();
        cleared
    };
    assert!(!cleared("begin; delete from reveille.sleepers").await, "the deletion of the sleeper's row may be undone");
    database.run("delete from reveille.workers").await;
    assert!(!cleared("begin isolation level repeatable read").await, "the transaction's snapshot may be old");
    assert!(cleared("begin").await);
    assert_eq!(database.value(UNASKED).await, true, "a rollback does not set the flag again; no worker sleeps");
    client.batch_execute(&format!("begin; {SLEEPER}; rollback")).await.unwrap();
    assert_eq!(database.value(UNASKED).await, false, "inserts in doubt read the table of sleepers");
    assert_eq!(database.value(NOTE).await, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_bell_others_silenced_arms_it_anew() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder.heartbeat(Duration::from_millis(50)));
    database.until(ASLEEP).await;
    // After a restore of the data, `somebody_sleeps` may be 0 although a worker sleeps, or the sleepers' rows may be
    // gone.
    for silence in ["select setval('reveille.somebody_sleeps', 0)", "delete from reveille.sleepers"] {
        let client = database.client().await;
        client.batch_execute(silence).await.unwrap();
        // This enqueue rings no bell. The transaction commits after the worker has armed the bell again.
        client.batch_execute("begin").await.unwrap();
        enqueue(&client, &note("silent")).await.unwrap();
        database.until(&format!("select ({ASLEEP}) and not ({UNASKED})")).await;
        client.batch_execute("commit").await.unwrap();
        assert_eq!(
            reports.next().await,
            "silent",
            "{silence}: the bell wakes the worker; the next poll is an hour away"
        );
        enqueue(&database.database, &note("rung for")).await.unwrap();
        assert_eq!(reports.next().await, "rung for", "{silence}");
        database.until(ASLEEP).await;
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_free_slot_needs_no_bell() {
    async fn holds(
        note: Note,
        State(reporter): State<Reporter>,
        State(gate): State<std::sync::Arc<tokio::sync::Semaphore>>,
    ) {
        reporter.report(note.text);
        let _ = gate.acquire().await;
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let builder =
        Worker::builder(database.database.clone()).queue("default", 1).poll_interval(Duration::from_secs(3600));
    let worker = start(builder.state(reporter).state(gate.clone()).handle(holds));
    database.until(ASLEEP).await;
    enqueue_all(&database.database, &[note("first"), note("second")]).await.unwrap();
    assert_eq!(reports.next().await, "first");
    database.until(AWAKE).await;
    gate.add_permits(100);
    assert_eq!(reports.next().await, "second");
    worker.stop().await;
}

/// Quick jobs make the worker claim ahead. The last two jobs that the worker claims are a long job, and a job behind
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_claimed_behind_a_long_one_goes_to_a_free_worker() {
    async fn works(
        note: Note,
        State(reporter): State<Reporter>,
        State(gate): State<std::sync::Arc<tokio::sync::Semaphore>>,
    ) {
        if note.text == "long" {
            let _ = gate.acquire().await;
        }
        reporter.report(note.text);
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let one = || {
        let builder = Worker::builder(database.database.clone()).queue("default", 1);
        start(
            builder.poll_interval(Duration::from_secs(3600)).state(reporter.clone()).state(gate.clone()).handle(works),
        )
    };
    let first = one();
    database.until(ASLEEP).await;
    let quick = (0..30).map(|_| note("quick")).chain([note("long"), note("behind")]);
    enqueue_all(&database.database, &quick.collect::<Vec<_>>()).await.unwrap();
    for _ in 0..30 {
        assert_eq!(reports.next().await, "quick");
    }
    let second = one();
    assert_eq!(reports.next().await, "behind");
    gate.add_permits(1);
    assert_eq!(reports.next().await, "long");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_declared_dead_sleeps_again_under_its_new_id() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder.heartbeat(Duration::from_millis(50)));
    database.until(ASLEEP).await;
    database.run("delete from reveille.workers").await;
    database.until(ASLEEP).await;
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "x");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_committed_late_is_found_amid_a_backlog() {
    async fn works(note: Note, State(reporter): State<Reporter>) {
        if note.text == "late" {
            reporter.report("late");
        }
        // Works slowly enough that the backlog lasts until the late job is committed.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let database = database().await;
    let mut early = database.client().await;
    let tx = early.transaction().await.unwrap();
    enqueue(&tx, &note("late")).await.unwrap();
    let backlog = "insert into reveille.jobs (kind, payload, available_at)
        select 'note', '{\"text\": \"busy\"}', now() - interval '1 hour' + n * interval '1 ms'
        from generate_series(1, 20000) as n";
    database.run(backlog).await;
    // Makes the late job due before the whole backlog.
    tx.execute(
        "update reveille.jobs set available_at = now() - interval '2 hours' where payload ->> 'text' = 'late'",
        &[],
    )
    .await
    .unwrap();
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(works));
    database.until("select count(*) > 500 from reveille.finished_jobs").await;
    tx.commit().await.unwrap();
    assert_eq!(reports.next().await, "late");
    let left = database.value("select count(*) from reveille.jobs").await;
    assert!(left.as_i64().unwrap() > 0, "the backlog was not done yet");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_claimed_ahead_go_back_at_no_cost_at_shutdown() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    async fn quick_then_slow(note: Note, State(reporter): State<Reporter>) {
        if note.text == "slow" {
            reporter.report("slow");
            std::future::pending::<()>().await;
        }
    }
    let insert = "insert into reveille.jobs (kind, payload) select 'note', \
        jsonb_build_object('text', case when n < 3000 then 'quick' else 'slow' end) from generate_series(1, 6000) as n";
    database.run(insert).await;
    let builder = worker(&database).grace(Duration::from_millis(50));
    let worker = start(builder.state(reporter).handle(quick_then_slow));
    reports.next().await;
    worker.stop().await;
    let left = "select jsonb_build_array(count(reserved_at), sum(failures)) from reveille.jobs";
    assert_eq!(database.value(left).await, json!([0, 0]));
    let all = "select (select count(*) from reveille.jobs) + (select count(*) from reveille.finished_jobs)";
    assert_eq!(database.value(all).await, 6000);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_claimed_ahead_behind_slow_jobs_go_to_other_workers() {
    async fn quick_then_slow(note: Note, State(reporter): State<Reporter>) {
        if note.text == "slow" {
            reporter.report("slow");
            std::future::pending::<()>().await;
        }
    }
    let database = database().await;
    let insert = "insert into reveille.jobs (kind, payload) select 'note', \
        jsonb_build_object('text', case when n <= 3000 then 'quick' else 'slow' end) \
        from generate_series(1, 3100) as n";
    database.run(insert).await;
    let (reporter, mut begun) = reporting();
    let stuck = start(worker(&database).grace(Duration::ZERO).state(reporter).handle(quick_then_slow));
    // Four slow jobs take the worker's four slots. The second of two concurrent claims may be answered first, so some
    // quick jobs may wait too.
    for _ in 0..4 {
        begun.next().await;
    }
    let (builder, mut reports) = reporting_worker(&database);
    let other = start(builder);
    let mut slow = 0;
    while slow < 96 {
        slow += usize::from(reports.next().await == "slow");
    }
    other.stop().await;
    stuck.stop().await;
    assert_eq!(database.value("select sum(failures) from reveille.jobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_crash_loses_no_job_and_leaves_none_reserved() {
    let mut server = Server::options().fsync(true).start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let notes: Vec<_> = (0..20_000).map(|n| note(&n.to_string())).collect();
    enqueue_all(&database, &notes).await.unwrap();
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).queue("other", 4).state(reporter).handle(report));
    for _ in 0..2000 {
        reports.next().await;
    }
    // The crash undoes some claims and settlements: the latest commits, which were not written to disk yet.
    server.restart(Stop::Immediate).unwrap();
    let plain = soon("the server is back", client_when_back(server.url("postgres"))).await;
    let done = "select not exists (select from reveille.jobs) \
        and (select count(distinct id) from reveille.finished_jobs) = 20000";
    eventually("all jobs are done", async || plain.query_one(done, &[]).await.is_ok_and(|row| row.get(0))).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_new_database_finds_sleepers_by_a_sequential_scan() {
    let database = database().await;
    let client = database.client().await;
    let plan = "explain select from (values ('q')) as inserted (queue)
        where exists (select from reveille.sleepers where sleepers.queue = inserted.queue and not silent)";
    let plan: String =
        client.query(plan, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0) + "\n").collect();
    assert!(plan.contains("Seq Scan on sleepers"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_crash_does_not_undo_a_lone_jobs_end() {
    let mut server = Server::options().fsync(true).start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(report));
    let plain = client_when_back(server.url("postgres")).await;
    enqueue(&database, &note("alone")).await.unwrap();
    assert_eq!(reports.next().await, "alone");
    let settled = "select attempts from reveille.finished_jobs";
    let settled_there = async || {
        while plain.query_opt(settled, &[]).await.unwrap().is_none() {}
    };
    soon("the job is settled", settled_there()).await;
    server.restart(Stop::Immediate).unwrap();
    let plain = soon("the server is back", client_when_back(server.url("postgres"))).await;
    assert_eq!(plain.query_one(settled, &[]).await.unwrap().get::<_, i32>(0), 1);
    worker.stop().await;
    assert!(reports.rest().is_empty(), "the settled job did not run again");
}

async fn client_when_back(address: String) -> tokio_postgres::Client {
    loop {
        if let Ok((client, connection)) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await {
            tokio::spawn(connection);
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_own_settings_do_not_disturb_a_worker() {
    let database = database().await;
    // This session began before the change of the settings.
    let client = database.client().await;
    let name = database.value("select current_database()").await;
    let settings = [
        "default_transaction_isolation = serializable",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "idle_session_timeout = '100ms'",
        "search_path = pg_temp",
        "jit_above_cost = 0",
    ];
    let alter = settings.map(|setting| format!("alter database {} set {setting};", name.as_str().unwrap()));
    client.batch_execute(&alter.concat()).await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    eventually("the worker's sessions have been idle for longer than the settings allow", async || {
        let asleep = "select exists (select from reveille.sleepers)
            and (select bool_and(last_seen_at > started_at + interval '2 seconds') from reveille.workers)";
        client.query_one(asleep, &[]).await.unwrap().get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
    let listener = "select backend_start < now() - interval '1 second' from pg_stat_activity
        where application_name = 'reveille listener' and datname = current_database()";
    assert!(
        client.query_one(listener, &[]).await.unwrap().get::<_, bool>(0),
        "the listener's session is the first one"
    );
    client
        .batch_execute("insert into reveille.jobs (kind, payload) values ('note', '{\"text\": \"x\"}')")
        .await
        .unwrap();
    assert_eq!(reports.next().await, "x");
    worker.stop().await;
}
