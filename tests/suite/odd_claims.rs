//! An odd row that cannot be claimed does not delay the other jobs of its queue.

use std::collections::BTreeSet;

use reveille::admin::View;
use reveille::{Database, Worker};
use serde_json::json;

use crate::harness::{TestDatabase, database, encoded_database, report, reporting, reporting_worker, start};

/// Runs `sql` without triggers, as replication does, so that `sql` can store odd rows.
async fn bypass(database: &TestDatabase, sql: &str) {
    database.run(&format!("set session_replication_role = replica; {sql}")).await;
}

/// Runs a worker until the notes with these texts have run, in any order. No other note may run.
async fn all_run(database: &Database, texts: &[&str]) {
    let (builder, mut reports) = reporting_worker(database);
    let worker = start(builder);
    let mut left: BTreeSet<&str> = texts.iter().copied().collect();
    while !left.is_empty() {
        let text = reports.next().await;
        assert!(left.remove(text.as_str()), "{text} has run, but should not; {left:?} have not run yet");
    }
    worker.stop().await;
}

const DEAD: &str = "select jsonb_agg(jsonb_build_array(id, reason, attempts, errors -> -1 ->> 'error') order by id) \
    from reveille.dead_jobs";

fn insert(text: &str, columns: &str, values: &str) -> String {
    format!("insert into reveille.jobs (kind, payload{columns}) values ('note', '{{\"text\": \"{text}\"}}'{values});")
}

#[tokio::test]
async fn attempts_that_no_claim_could_raise_are_refused() {
    let database = database().await;
    let name = "attempts_is_at_most_1000000000";
    assert!(database.refusal(&insert("", ", attempts", ", 2147483647")).await.contains(name));
    database.run(&insert("", ", attempts", ", 1000000000")).await;
    assert!(database.refusal("update reveille.jobs set attempts = 1000000001").await.contains(name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_attempts_overflow_dies_and_the_others_run() {
    let database = database().await;
    let rows =
        insert("old", ", attempts, available_at", ", 2147483647, now() - interval '1 hour'") + &insert("fine", "", "");
    bypass(&database, &rows).await;
    all_run(&database, &["fine"]).await;
    let error = "cannot be claimed: integer out of range (SQLSTATE 22003)";
    assert_eq!(database.value(DEAD).await, json!([[1, "undecodable", 2147483647, error]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_an_index_cannot_take_die_and_the_others_run() {
    let database = database().await;
    database
        .run("create index on reveille.jobs ((1 / case when cardinality(tags) = 1 then 1 - attempts else 1 end))")
        .await;
    let mut rows = String::new();
    let texts: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for text in &texts {
        rows += &insert(text, ", tags", if text.ends_with('7') { ", '{odd}'" } else { ", null" });
    }
    database.run(&rows).await;
    let fine: Vec<&str> = texts.iter().map(String::as_str).filter(|text| !text.ends_with('7')).collect();
    all_run(&database, &fine).await;
    assert_eq!(database.value("select count(*) from reveille.dead_jobs where reason = 'undecodable'").await, 10);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

/// Returns SQL for a user's trigger that refuses a job on these events if the condition holds.
fn trigger(events: &str, condition: &str) -> String {
    format!(
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise exception \
            'not on a sunday'; end $$;
        create trigger refuse before {events} on reveille.jobs for each row
        when ({condition}) execute function public.refuse();"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_a_trigger_refuses_dies_once_another_job_passes() {
    let database = database().await;
    database.run(&trigger("update", "old.tags = '{odd}'")).await;
    let odd = |text: &str| insert(text, ", tags, priority", ", '{odd}', 0");
    database.run(&(odd("a") + &odd("b"))).await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    let named = "select count(*) = 2 from reveille.passed_over where queue = 'default' and code = 'P0001' \
        and error = 'not on a sunday'";
    database.until(named).await;
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 0);
    database.run(&insert("fine", "", "")).await;
    assert_eq!(reports.next().await, "fine");
    let error = "cannot be claimed: not on a sunday (SQLSTATE P0001)";
    database.until("select count(*) = 2 from reveille.dead_jobs").await;
    assert_eq!(database.value(DEAD).await, json!([[1, "undecodable", 0, error], [2, "undecodable", 0, error]]));
    assert_eq!(database.value("select count(*) from reveille.passed_over").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_a_job_that_can_be_neither_claimed_nor_moved() {
    let database = database().await;
    database.run(&trigger("update or delete", "old.tags = '{odd}'")).await;
    database.run(&(insert("odd", ", tags", ", '{odd}'") + &insert("a", "", "") + &insert("b", "", ""))).await;
    all_run(&database, &["a", "b"]).await;
    assert_eq!(database.value("select jsonb_agg(id) from reveille.jobs").await, json!([1]));
    let findings = database.doctor().examine().await.unwrap();
    let isolated = findings.iter().find(|found| found.check == "isolated" && found.finding.contains("not on a sunday"));
    assert!(isolated.is_some_and(|found| found.finding.contains("job 1")), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_dies_while_a_trigger_refuses_every_job() {
    let database = database().await;
    database.run(&trigger("update", "true")).await;
    database.run(&(0..5).map(|n| insert(&n.to_string(), "", "")).collect::<String>()).await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    database.until("select count(*) = 5 from reveille.passed_over").await;
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 5);
    worker.stop().await;
    assert_eq!(reports.rest(), [""; 0]);
    database.run("drop trigger refuse on reveille.jobs").await;
    all_run(&database, &["0", "1", "2", "3", "4"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn infinite_due_times_do_not_disturb_other_jobs_or_views() {
    for limits in ["paused_at = null", "max_running = 1", "max_running_per_key = 1"] {
        let database = database().await;
        database
            .run(&format!("insert into reveille.queues (name) values ('default'); update reveille.queues set {limits}"))
            .await;
        let rows = insert("never", ", available_at", ", 'infinity'")
            + &insert("ever", ", available_at", ", '-infinity'")
            + "insert into reveille.jobs (kind, queue, attempts, reserved_by, reserved_at) \
                values ('k', 'other', 1, 7, '-infinity');";
        bypass(&database, &rows).await;
        for view in [View::QueueStats, View::RunningJobs, View::FailingJobs, View::QueueLimits] {
            database.admin().view(view).await.unwrap();
        }
        bypass(&database, &insert("fine", "", "")).await;
        all_run(&database, &["ever", "fine"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_jobs_of_limited_queues_are_isolated_too() {
    for limits in ["max_running_per_key = 1", "ordered = true", "max_running = 2"] {
        let database = database().await;
        database
            .run(&format!("insert into reveille.queues (name) values ('default'); update reveille.queues set {limits}"))
            .await;
        let mut rows = String::new();
        for (text, key, attempts) in
            [("odd", "a", 2147483647), ("a", "a", 0), ("odd 2", "b", 2147483647), ("b", "b", 0), ("c", "c", 0)]
        {
            rows += &insert(text, ", key, attempts", &format!(", '{key}', {attempts}"));
        }
        bypass(&database, &rows).await;
        all_run(&database, &["a", "b", "c"]).await;
        assert_eq!(
            database.value("select jsonb_agg(id order by id) from reveille.dead_jobs").await,
            json!([1, 3]),
            "{limits}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_job_with_a_dead_jobs_id_dies_under_a_new_id() {
    let database = database().await;
    bypass(&database, &insert("first", ", attempts", ", 2147483647")).await;
    all_run(&database, &[]).await;
    let worker = start(reporting_worker(&database).0);
    database.until("select exists (select from reveille.dead_jobs)").await;
    let again =
        "select setval('reveille.jobs_id_seq', 1, false);".to_owned() + &insert("second", ", attempts", ", 2147483647");
    bypass(&database, &again).await;
    database.run("select reveille.ring(array['default'])").await;
    database.until("select count(*) = 2 from reveille.dead_jobs").await;
    worker.stop().await;
    let dead = database
        .value("select jsonb_agg(jsonb_build_array(id, payload ->> 'text') order by id) from reveille.dead_jobs")
        .await;
    assert_eq!(dead, json!([[1, "first"], [2, "second"]]));
    let error = database.value("select errors -> -1 ->> 'error' from reveille.dead_jobs where id = 2").await;
    assert!(error.as_str().unwrap().contains("its id was 1, which another dead job has"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_tags_are_no_plain_list_dies_alone() {
    let database = database().await;
    assert!(database.refusal(&insert("", ", tags", ", '{{a},{b}}'")).await.contains("tags_have_one_dimension"));
    bypass(
        &database,
        &(insert("square", ", tags", ", '{{a},{b}}'")
            + &insert("hole", ", tags", ", '{null}'")
            + &insert("fine", "", "")),
    )
    .await;
    all_run(&database, &["fine"]).await;
    database.until("select count(*) = 2 from reveille.dead_jobs where reason = 'undecodable'").await;
    let dead = database.value(DEAD).await;
    for job in [&dead[0], &dead[1]] {
        assert!(job[3].as_str().unwrap().starts_with("its tags cannot be read: "), "{job}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_bytes_that_are_not_utf_8_dies_alone() {
    for (encoding, byte) in [("SQL_ASCII", "ff"), ("WIN1252", "81")] {
        let database = encoded_database(encoding).await;
        let odd = |columns: &str, values: &str| {
            format!("insert into reveille.jobs (kind, payload{columns}) values {values};")
                .replace("BYTE", &format!("E'x\\x{byte}'"))
        };
        let rows = odd("", "(BYTE, '{}')")
            + &odd(", key", "('note', '{}', BYTE)")
            + &odd(", tags", "('note', '{}', array[BYTE])")
            + &odd(", metadata", "('note', '{}', jsonb_build_object('m', BYTE))")
            + &odd("", "('note', to_jsonb(BYTE::text))")
            + &insert("fine", "", "");
        database.run(&format!("set client_encoding = '{encoding}'; {rows}")).await;
        all_run(&database, &["fine"]).await;
        let dead = "select jsonb_agg(id order by id) from reveille.dead_jobs where reason = 'undecodable'";
        assert_eq!(database.value(dead).await, json!([1, 2, 3, 4, 5]), "{encoding}");
        let error = database.value("select errors -> -1 ->> 'error' from reveille.dead_jobs where id = 1").await;
        assert!(error.as_str().unwrap().contains("SQLSTATE 22"), "{error}");
    }
}

#[tokio::test]
async fn a_drain_goes_on_past_odd_jobs() {
    let database = database().await;
    bypass(&database, &(insert("odd", ", attempts", ", 2147483647") + &insert("fine", "", ""))).await;
    let (reporter, mut reports) = reporting();
    let worker = Worker::builder(database.database.clone()).state(reporter).handle(report).build().unwrap();
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 1);
    assert_eq!(reports.next().await, "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_name_that_is_not_utf_8_stops_no_worker_or_doctor() {
    let database = encoded_database("SQL_ASCII").await;
    let odd = "insert into reveille.jobs (queue, kind, available_at) \
        values (E'q\\xff', 'k', now() - interval '2 minutes');
        insert into reveille.queues (name, paused_at) values (E'q\\xff', now());
        insert into reveille.workers (id, host, pid, version, queues, slots)
        values (7, E'h\\xff', 1, '', array[E'q\\xff'], 1);";
    database.run(&(odd.to_owned() + &insert("fine", "", ""))).await;
    all_run(&database, &["fine"]).await;
    let findings = database.doctor().examine().await.unwrap();
    let advised = |found: &reveille::admin::doctor::Finding| {
        found.advice.as_ref().is_some_and(|advice| advice.contains("not UTF-8"))
    };
    assert!(findings.iter().any(advised), "{findings:#?}");
}
