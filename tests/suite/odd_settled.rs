//! An odd row, or a row that the server refuses to change, prevents no other row from being settled, rescued, released,
//! revived or purged.

use std::time::Duration;

use reveille::admin::Filter;
use reveille::admin::doctor::Verdict;
use reveille::driver::{Ending, Failure, FailureReason, Settled, Settlement, WorkerInfo};
use reveille::job::ReservedJob;
use reveille::{
    State,
    driver::{Driver, Postgres},
    enqueue,
    enqueue::enqueue_all,
    handler::Cancellation,
};
use serde_json::{Value, json};

use crate::harness::{Note, Reporter, TestDatabase, claim, database, note, reporting, soon, start, worker};
use crate::tracing::EventLog;

async fn driver(database: &TestDatabase, worker: i64) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(worker).host("test").queues(["default"])).await.unwrap();
    driver
}

/// Reserves five new jobs for worker 7.
async fn reserved(database: &TestDatabase, driver: &Postgres) -> Vec<ReservedJob> {
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 5)").await;
    let jobs = claim(driver, 7, 5).await;
    assert_eq!(jobs.len(), 5);
    jobs
}

/// Makes five jobs of a worker that is gone, and changes the jobs without triggers. Returns a driver that can rescue
/// them.
async fn orphans(database: &TestDatabase, change: &str) -> Postgres {
    let driver = driver(database, 7).await;
    reserved(database, &driver).await;
    database.run("delete from reveille.workers where id = 7").await;
    bypass(database, change).await;
    driver
}

/// Changes rows without triggers, as a replication or a restore does.
async fn bypass(database: &TestDatabase, change: &str) {
    database.run(&format!("set session_replication_role = replica; {change}")).await;
}

/// Adds a trigger of the database's owner. The trigger refuses the change `what` of the job `id`.
async fn refuse(database: &TestDatabase, table: &str, what: &str, id: i64) {
    let name = what.replace(' ', "_");
    database
        .run(&format!(
            "create or replace function refuse() returns trigger language plpgsql as $$ begin raise exception \
                'not this one'; end $$;
            create trigger {name} before {what} on reveille.{table} for each row
            when (old.id = {id}) execute function refuse()"
        ))
        .await;
}

async fn rescued(driver: &Postgres) -> Vec<i64> {
    let mut jobs = driver.rescue(99, &[]).await.unwrap().jobs;
    jobs.sort_unstable();
    jobs
}

fn settlement(job: &ReservedJob, ending: Ending) -> Settlement {
    Settlement::new(job.reservation, ending)
}

fn failure() -> Failure {
    Failure::new(FailureReason::Failed, "no")
}

const COUNTS: &str = "select jsonb_build_array(attempts, failures) from reveille.jobs where id = 3";

#[tokio::test]
async fn a_running_job_reset_by_hand_is_rescued_with_the_others() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    reserved(&database, &driver).await;
    database.run("update reveille.jobs set attempts = 0, failures = 0 where id = 3").await;
    database.run("delete from reveille.workers where id = 7").await;
    assert_eq!(rescued(&driver).await, [1, 2, 3, 4, 5]);
    assert_eq!(database.value(COUNTS).await, json!([1, 1]));
}

#[tokio::test]
async fn a_job_with_extreme_numbers_is_rescued_with_the_others() {
    let database = database().await;
    for (change, counts) in [
        ("attempts = 2147483647, failures = 999999999, max_attempts = 2147483647", Value::Null),
        ("attempts = 2147483647, failures = 2147483647, max_attempts = 2147483647", Value::Null),
        ("attempts = -2147483648, failures = -2147483648", json!([1, 1])),
        ("max_attempts = -1", Value::Null),
        ("reserved_at = '-infinity'", json!([1, 1])),
        ("available_at = 'infinity', max_attempts = 1", Value::Null),
    ] {
        let driver = orphans(&database, &format!("update reveille.jobs set {change} where id = 3")).await;
        assert_eq!(rescued(&driver).await, [1, 2, 3, 4, 5], "{change}");
        assert_eq!(database.value(COUNTS).await, counts, "{change}");
        let dead = if counts.is_null() { 1 } else { 0 };
        assert_eq!(database.value("select count(*) from reveille.dead_jobs where id = 3").await, dead, "{change}");
        database.run("truncate reveille.jobs, reveille.dead_jobs; alter sequence reveille.jobs_id_seq restart").await;
    }
}

#[tokio::test]
async fn a_job_whose_errors_are_no_list_is_rescued_and_keeps_them() {
    let database = database().await;
    for odd in ["{\"old\": 1}", "7", "null", "[null, 7]"] {
        let change = format!("update reveille.jobs set errors = '{odd}' where id = 3");
        let driver = orphans(&database, &change).await;
        assert_eq!(rescued(&driver).await, [1, 2, 3, 4, 5], "{odd}");
        let reason = "select errors -> -1 ->> 'reason' from reveille.jobs where id = 3";
        assert_eq!(database.value(reason).await, "lost", "{odd}");
        let kept = format!("select errors @> '{odd}' or errors @> '[{odd}]' from reveille.jobs where id = 3");
        assert_eq!(database.value(&kept).await, true, "{odd}");
        database.run("truncate reveille.jobs; alter sequence reveille.jobs_id_seq restart").await;
    }
}

#[tokio::test]
async fn an_odd_job_that_fails_is_put_back_or_dies_like_others() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let waiting = Ending::Waiting { failure: Some(failure()), delay: Duration::ZERO };
    for ending in [waiting, Ending::Dead(failure())] {
        for change in [
            "errors = '{}'",
            "errors = '7'",
            "failures = 2147483647",
            "failures = -3",
            "failures = 9",
            "available_at = '-infinity'",
        ] {
            let jobs = reserved(&database, &driver).await;
            let odd = jobs[2].reservation.id;
            bypass(&database, &format!("update reveille.jobs set {change} where id = {odd}")).await;
            let batch: Vec<_> = jobs.iter().map(|job| settlement(job, ending.clone())).collect();
            let settled = driver.settle(&batch).await.unwrap();
            assert_eq!(settled, vec![Settled::Counted; 5], "{change} {ending:?}");
            database.run("truncate reveille.jobs").await;
        }
    }
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 30);
}

#[tokio::test]
async fn an_odd_job_is_released_with_a_finite_due_time() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    for odd in ["-infinity", "infinity"] {
        let jobs = reserved(&database, &driver).await;
        let id = jobs[2].reservation.id;
        bypass(&database, &format!("update reveille.jobs set available_at = '{odd}' where id = {id}")).await;
        let batch: Vec<_> = jobs.iter().map(|job| settlement(job, Ending::Released)).collect();
        assert_eq!(driver.settle(&batch).await.unwrap(), vec![Settled::Counted; 5], "{odd}");
        let due = "select bool_and(available_at <= now()) from reveille.jobs";
        assert_eq!(database.value(due).await, true, "{odd}");
        database.run("truncate reveille.jobs").await;
    }
}

#[tokio::test]
async fn a_lost_job_that_cannot_be_put_back_dies_alone() {
    let database = database().await;
    let driver = orphans(&database, "select 1").await;
    refuse(&database, "jobs", "update", 3).await;
    assert_eq!(rescued(&driver).await, [1, 2, 3, 4, 5]);
    let dead = "select jsonb_build_array(id, reason, failures, errors -> -1 ->> 'error') from reveille.dead_jobs";
    let why = "the worker that ran it died, and the job could not be rescued: cannot rescue jobs: not this one";
    assert_eq!(database.value(dead).await, json!([3, "lost", 1, why]));
    let waiting = "select count(*) from reveille.jobs where reserved_at is null and failures = 1";
    assert_eq!(database.value(waiting).await, 4);
}

#[tokio::test]
async fn a_job_that_cannot_be_rescued_is_named_and_others_are_rescued() {
    let (events, _guard) = EventLog::start();
    let database = database().await;
    let driver = orphans(&database, "update reveille.jobs set reserved_at = now() - interval '2 minutes'").await;
    refuse(&database, "jobs", "update or delete", 3).await;
    assert_eq!(rescued(&driver).await, [1, 2, 4, 5]);
    assert_eq!(events.count("job.refused", "id", "3"), 1);
    let findings = database.database.doctor().examine().await.unwrap();
    let found = findings.iter().find(|found| found.check == "reserved").unwrap();
    assert!(found.state == Verdict::Bad && found.finding.contains("job 3 among them"), "{found:?}");
}

#[tokio::test]
async fn a_worker_is_declared_dead_even_if_a_job_cannot_be_rescued() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    reserved(&database, &driver).await;
    refuse(&database, "jobs", "update or delete", 3).await;
    let peers = driver.beat(99, &Default::default()).await.unwrap().peers;
    let rescue = driver.rescue(99, &peers).await.unwrap();
    assert_eq!((rescue.workers, rescue.jobs.len()), (vec![7], 4));
}

#[tokio::test]
async fn odd_strays_go_back_or_die_and_the_others_go_back() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    reserved(&database, &driver).await;
    bypass(&database, "update reveille.jobs set attempts = -5, failures = -9 where id = 2").await;
    refuse(&database, "jobs", "update", 3).await;
    let mut released = driver.release_strays(7, &[5]).await.unwrap();
    released.sort_unstable();
    assert_eq!(released, [1, 2, 3, 4]);
    let dead = "select jsonb_build_array(id, reason, errors -> -1 ->> 'error') from reveille.dead_jobs";
    let why = "the job could not be released: cannot release strays: not this one";
    assert_eq!(database.value(dead).await, json!([3, "failed", why]));
    assert_eq!(database.value("select attempts from reveille.jobs where id = 2").await, 1);
}

#[derive(Clone)]
struct Fails(bool);

/// Runs twenty jobs, and waits until no job is reserved. If `fails` is set, the handler fails.
async fn work_twenty(database: &TestDatabase, fails: bool) {
    async fn ends(
        note: Note,
        State(reporter): State<Reporter>,
        State(Fails(fails)): State<Fails>,
    ) -> Result<(), String> {
        reporter.report(note.text);
        if fails { Err("no".into()) } else { Ok(()) }
    }
    let (reporter, mut reports) = reporting();
    let worker = start(worker(database).state(reporter).state(Fails(fails)).handle(ends));
    let jobs: Vec<_> = (0..20).map(|n| note(&n.to_string())).collect();
    enqueue_all(&database.database, &jobs).await.unwrap();
    for _ in 0..20 {
        reports.next().await;
    }
    database.until("select count(*) = 0 from reveille.jobs where reserved_at is not null").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_end_is_refused_fails_and_the_others_complete() {
    let database = database().await;
    refuse(&database, "jobs", "delete", 7).await;
    work_twenty(&database, false).await;
    assert_eq!(database.value("select count(*) from reveille.finished_jobs where id <> 7").await, 19);
    let error = "select jsonb_build_array(id, failures, errors -> 0 ->> 'error') from reveille.jobs";
    assert_eq!(database.value(error).await, json!([7, 1, "its ending was refused: cannot settle jobs: not this one"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_failure_is_refused_dies_and_the_others_retry() {
    let database = database().await;
    // The trigger raises an error code that Postgres does not define.
    database
        .run(
            "create function refuse_failure() returns trigger language plpgsql as $$ begin
                raise exception 'not this one' using errcode = 'REFUS';
            end $$;
            create trigger refuse_failure before update on reveille.jobs for each row
            when (new.id = 7 and new.failures > 0) execute function refuse_failure()",
        )
        .await;
    work_twenty(&database, true).await;
    assert_eq!(database.value("select count(*) from reveille.jobs where failures = 1 and id <> 7").await, 19);
    let dead = "select jsonb_build_array(id, reason, errors -> 0 ->> 'error') from reveille.dead_jobs";
    assert_eq!(
        database.value(dead).await,
        json!([7, "failed", "its ending was refused: cannot settle jobs: not this one"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_rescues_fail_goes_on_with_its_own_jobs() {
    async fn waits(_: Note, cancellation: Cancellation, State(reporter): State<Reporter>) {
        reporter.report("begun");
        cancellation.cancelled().await;
        reporter.report("stopped");
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let beats = worker(&database).heartbeat(Duration::from_millis(100)).dead_after(Duration::from_secs(4));
    let worker = start(beats.grace(Duration::ZERO).state(reporter).handle(waits));
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "begun");
    // The trigger raises an error that concerns no single row, so every rescue fails as a whole.
    database
        .run(
            "create function break_down() returns trigger language plpgsql as $$ begin
                raise exception 'down' using errcode = 'undefined_table';
            end $$;
            create trigger break_down before update on reveille.jobs for each row
            when (old.id = 2) execute function break_down();
            insert into reveille.jobs (kind, attempts, reserved_at, reserved_by) values ('orphan', 1, now(), 12345);
            insert into reveille.workers (id, host, pid, version, queues, slots) values (8, 'silent', 1, 'v', '{}', 1)",
        )
        .await;
    // After 4 s, the worker declares the silent worker dead, but each rescue fails. If these failures stopped the
    // worker's own heartbeat, the worker would cancel its handler after 3 s.
    database.until("select max(last_seen_at) - min(last_seen_at) > interval '5 seconds' from reveille.workers").await;
    assert!(reports.rest().is_empty(), "the worker's handler was not cancelled");
    worker.stop().await;
}

/// Makes three old dead jobs, and a sequence of ids that starts at 1 again, as after a restore.
async fn with_restarted_ids() -> TestDatabase {
    let database = database().await;
    database
        .run(
            "insert into reveille.dead_jobs (
                id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, reason
            )
            select n, 'default', 'old', '{}', 2, 1, 1, 1, now(), now(), 'failed' from generate_series(1, 3) as n;
            select setval('reveille.jobs_id_seq', 1, false)",
        )
        .await;
    database
}

#[tokio::test]
async fn a_dying_job_gets_a_new_id_if_a_dead_job_has_its_id() {
    let database = with_restarted_ids().await;
    let driver = driver(&database, 7).await;
    let jobs = reserved(&database, &driver).await;
    let batch: Vec<_> = jobs.iter().map(|job| settlement(job, Ending::Dead(failure()))).collect();
    assert_eq!(driver.settle(&batch).await.unwrap(), vec![Settled::Counted; 5]);
    let ids = "select jsonb_agg(id order by id) from reveille.dead_jobs where kind = 'k' and id <= 5";
    assert_eq!(database.value(ids).await, json!([4, 5]));
    let fresh =
        "select jsonb_agg(errors -> -1 ->> 'error' order by id) from reveille.dead_jobs where kind = 'k' and id > 5";
    let error = |id: i64| format!("no (it was job {id}, whose id another dead job has)");
    assert_eq!(database.value(fresh).await, json!([error(1), error(2), error(3)]));
    assert_eq!(database.value("select count(*) from reveille.dead_jobs where kind = 'old'").await, 3);
}

#[tokio::test]
async fn a_lost_job_that_dies_gets_a_new_id_if_a_dead_job_has_its_id() {
    let database = with_restarted_ids().await;
    let driver = orphans(&database, "update reveille.jobs set max_attempts = 1").await;
    assert_eq!(rescued(&driver).await, [1, 2, 3, 4, 5]);
    let dead = "select jsonb_agg(kind order by id) from reveille.dead_jobs";
    assert_eq!(database.value(dead).await, json!(["old", "old", "old", "k", "k", "k", "k", "k"]));
}

#[tokio::test]
async fn a_wait_ends_under_the_old_id_of_a_job_that_died_under_a_new() {
    let database = with_restarted_ids().await;
    let driver = driver(&database, 7).await;
    let jobs = reserved(&database, &driver).await;
    database.run("update reveille.jobs set awaited = true").await;
    let (client, mut connection) = tokio_postgres::connect(&database.address, tokio_postgres::NoTls).await.unwrap();
    let (sender, mut payloads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute("listen \"reveille.finished\"").await.unwrap();
    driver.settle(&[settlement(&jobs[1], Ending::Dead(failure()))]).await.unwrap();
    assert_eq!(soon("the notification arrives", payloads.recv()).await.unwrap(), "2 dead");
}

#[tokio::test]
async fn upkeep_moves_the_sequence_just_past_all_used_ids() {
    let next = "select nextval('reveille.jobs_id_seq')";
    for table in ["jobs", "dead_jobs", "blocked_jobs", "finished_jobs"] {
        let database = with_restarted_ids().await;
        let driver = driver(&database, 7).await;
        database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 3)").await;
        match table {
            "jobs" => {
                database.run("insert into reveille.jobs (id, kind) overriding system value values (70, 'k')").await
            }
            "dead_jobs" => database.run("update reveille.dead_jobs set id = 70 where id = 3").await,
            "blocked_jobs" => {
                let sql = "select reveille.enqueue_after(array[1], 'k'); update reveille.blocked_jobs set id = 70";
                database.run(sql).await;
            }
            _ => {
                database
                    .run(
                        "insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, \
                            failures, max_attempts,
                            available_at, created_at, outcome)
                        select 0, 70, queue, kind, payload, priority, 1, 0, 1, now(), now(), 'completed'
                        from reveille.jobs limit 1",
                    )
                    .await;
            }
        }
        driver.prune().await.unwrap();
        let passed = database.value(next).await.as_i64().unwrap();
        assert!(passed > 70, "{table}: {passed}");
        driver.prune().await.unwrap();
        assert_eq!(database.value(next).await, passed + 1, "{table}");
        // The largest possible id does not move the sequence, because no id would be left after this id.
        database
            .run("insert into reveille.jobs (id, kind) overriding system value values (9223372036854775807, 'k')")
            .await;
        driver.prune().await.unwrap();
        assert_eq!(database.value(next).await, passed + 2, "{table}");
    }
}

#[tokio::test]
async fn a_dead_job_is_revived_under_a_new_id_if_a_live_job_has_its_id() {
    let database = with_restarted_ids().await;
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 2)").await;
    let batch = database.database.admin().revive_dead(&Filter::new()).await.unwrap();
    assert_eq!((batch.done, batch.left_over, batch.refused.len()), (3, 0, 0));
    let revived = "select jsonb_agg(jsonb_build_array(id > 3, errors -> -1 ->> 'error') order by id) \
        from reveille.jobs where kind = 'old'";
    let error = |id: i64| format!("it was dead job {id}, whose id a live job has");
    assert_eq!(database.value(revived).await, json!([[false, null], [true, error(1)], [true, error(2)]]));
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 0);
}

#[tokio::test]
async fn dead_jobs_that_cannot_be_revived_or_purged_are_named() {
    let database = with_restarted_ids().await;
    bypass(&database, "update reveille.dead_jobs set priority = 9 where id = 2").await;
    let admin = database.database.admin();
    let batch = admin.revive_dead(&Filter::new()).await.unwrap();
    assert_eq!((batch.done, batch.left_over), (2, 0));
    let refused: Vec<_> = batch.refused.iter().map(|refused| (refused.id, refused.error.to_string())).collect();
    assert!(refused.len() == 1 && refused[0].0 == 2 && refused[0].1.contains("priority_is_0_to_3"), "{refused:?}");

    let database = with_restarted_ids().await;
    refuse(&database, "dead_jobs", "delete", 2).await;
    let batch = database.database.admin().purge_dead(&Filter::new()).await.unwrap();
    assert_eq!((batch.done, batch.refused.len(), batch.refused[0].id), (2, 1, 2));
}
