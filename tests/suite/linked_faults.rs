//! Odd orders of events around linked jobs: nothing starts twice, too early or never.

use serde_json::json;

use crate::harness::{TestDatabase, database, reporting_worker, start};
use crate::plans::source;

/// Enqueues a workflow in SQL. Returns its id.
async fn workflow(database: &TestDatabase, jobs: serde_json::Value) -> i64 {
    let sql = format!("select reveille.enqueue_workflow('w', '{jobs}')");
    database.value(&sql).await.as_i64().unwrap()
}

/// Makes the only waiting job of a kind a dead job, as a worker does.
async fn die(database: &TestDatabase, kind: &str) {
    let sql = "select reveille.bury_unclaimed(id, '22000', 'no', true) from reveille.jobs where kind = ";
    database.run(&format!("{sql}'{kind}'")).await;
}

async fn apply(database: &TestDatabase) {
    while database.value("select reveille.apply_linked_ends()").await != 0 {}
}

async fn kinds(database: &TestDatabase, table: &str) -> serde_json::Value {
    database.value(&format!("select coalesce(jsonb_agg(kind order by id), '[]') from reveille.{table}")).await
}

#[tokio::test]
async fn a_job_that_waits_for_the_first_of_several_waits_for_the_seal_too() {
    let database = database().await;
    database
        .run(
            r#"select reveille.open_workflow('w');
            select reveille.add_to_workflow(1, '[{"name": "a", "kind": "a"}, {"name": "b", "kind": "b"},
                {"name": "c", "kind": "c", "after": ["a", "b"], "fires_on": "any", "wait_for": "first"}]');
            select reveille.cancel(1), reveille.cancel(2)"#,
        )
        .await;
    apply(&database).await;
    assert_eq!(kinds(&database, "blocked_jobs").await, json!(["c"]));
    database.run("select reveille.seal_workflow(1)").await;
    assert_eq!(kinds(&database, "jobs").await, json!(["c"]));
}

#[tokio::test]
async fn a_workflow_that_is_cancelled_before_its_seal_ends() {
    let database = database().await;
    database
        .run(
            r#"select reveille.open_workflow('w');
            select reveille.add_to_workflow(1, '[{"name": "a", "kind": "a"},
                {"name": "c", "kind": "c", "after": ["a"], "fires_on": "any"}]');
            select reveille.cancel(1); select reveille.apply_linked_ends(); select reveille.cancel_workflow(1)"#,
        )
        .await;
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!(["c"]), "the job that cleans up starts");
    database.run("select reveille.cancel(2)").await;
    apply(&database).await;
    assert_eq!(database.value("select state from reveille.workflow_status").await, "cancelled");
    assert_eq!(database.value("select reveille.linked_work_waits()").await, false);
}

#[tokio::test]
async fn a_job_that_is_revived_while_its_workflow_is_cancelled_is_cancelled() {
    let database = database().await;
    workflow(&database, json!([{"name": "a", "kind": "a"}, {"name": "b", "kind": "b"}])).await;
    die(&database, "a").await;
    apply(&database).await;
    database.run("select reveille.cancel_workflow(1); select reveille.cancel_members(1000)").await;
    database.run("select reveille.retry(1)").await;
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!([]));
    assert_eq!(database.value("select state from reveille.workflow_status").await, "cancelled");
}

#[tokio::test]
async fn a_purge_before_the_death_is_applied_still_starts_the_compensation() {
    let database = database().await;
    workflow(
        &database,
        json!([{"name": "a", "kind": "a"}, {"name": "u", "kind": "u", "after": ["a"],
        "fires_on": "dead"}]),
    )
    .await;
    die(&database, "a").await;
    database.admin().purge_dead_job(1).await.unwrap();
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!(["u"]));
}

#[tokio::test]
async fn a_death_stays_acted_on_once_the_compensation_has_completed() {
    let database = database().await;
    database
        .run("select reveille.enqueue(kind => 'a'); select reveille.enqueue_after(array[1], 'u', fires_on => 'dead')")
        .await;
    die(&database, "a").await;
    apply(&database).await;
    // The compensation ends, and its dependencies are forgotten.
    database.run("select reveille.cancel(2)").await;
    apply(&database).await;
    assert_eq!(database.value("select reveille.retry(1)").await, "compensated");
    assert_eq!(database.value("select reveille.retry(1, true)").await, "revived");
    database.run("select reveille.cancel(1)").await;
    apply(&database).await;
    assert_eq!(database.value("select count(*) from reveille.dependencies").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_waiting_job_holds_up_no_other() {
    let database = database().await;
    let mut jobs = vec![json!({"name": "callback", "kind": "callback", "after": []})];
    jobs.extend(
        (0..1200).map(
            |n| json!({"name": format!("{n}"), "kind": "many", "before": [{"name": "callback", "fires_on": "any"}]}),
        ),
    );
    workflow(&database, jobs.into()).await;
    workflow(
        &database,
        json!([{"name": "a", "kind": "a"}, {"name": "b", "kind": "b", "after": ["a"],
        "fires_on": "any"}]),
    )
    .await;
    let mut client = database.client().await;
    let holding = client.transaction().await.unwrap();
    holding.batch_execute("select from reveille.blocked_jobs where kind = 'callback' for update").await.unwrap();
    database.run("select reveille.cancel(id) from reveille.jobs where kind = 'many'").await;
    database.run("select reveille.cancel(id) from reveille.jobs where kind = 'a'").await;
    for _ in 0..5 {
        database.run("select reveille.apply_linked_ends()").await;
    }
    assert_eq!(kinds(&database, "jobs").await, json!(["b"]), "the other workflow goes on");
    holding.commit().await.unwrap();
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!(["callback", "b"]));
}

#[tokio::test]
async fn a_circle_by_way_of_existing_jobs_is_refused() {
    let database = database().await;
    workflow(
        &database,
        json!([{"name": "root", "kind": "k"}, {"name": "y", "kind": "k", "after": ["root"]},
        {"name": "x", "kind": "k", "after": ["y"]}]),
    )
    .await;
    let add = json!([{"name": "n", "kind": "k", "after": ["x"], "before": ["y"]}]);
    let refusal = database.refusal(&format!("select reveille.add_to_workflow(1, '{add}')")).await;
    assert!(refusal.contains("circle") || refusal.contains("wait for"), "{refusal}");
    assert_eq!(database.value("select count(*) from reveille.blocked_jobs").await, 2);
}

#[tokio::test]
async fn a_job_that_dies_before_it_starts_is_counted_once_even_if_it_is_revived_at_once() {
    let database = database().await;
    workflow(
        &database,
        json!([{"name": "a", "kind": "a"}, {"name": "odd", "kind": "odd", "after": ["a"],
        "fires_on": "any"}]),
    )
    .await;
    database
        .run(
            "create function refuse() returns trigger language plpgsql as $$
            begin raise exception 'not today'; end $$;
            create trigger refuse before insert on reveille.jobs for each row
            when (new.kind = 'odd') execute function refuse();
            select reveille.cancel(1); select reveille.apply_linked_ends(); drop trigger refuse on reveille.jobs;
            select reveille.retry(2)",
        )
        .await;
    apply(&database).await;
    let counts = "select jsonb_build_array(live, blocked, dead, cancelled) from reveille.workflow_status";
    assert_eq!(database.value(counts).await, json!([1, 0, 0, 1]));
}

/// Two jobs, and for each a job that waits for its end: `odd` and `good`.
async fn odd_and_good(database: &TestDatabase, fires_on: &str) {
    let sql = "select reveille.enqueue(kind => 'a'); select reveille.enqueue(kind => 'b')";
    database.run(sql).await;
    database
        .run(&format!(
            "select reveille.enqueue_after(array[1], 'odd', fires_on => '{fires_on}');
            select reveille.enqueue_after(array[2], 'good', fires_on => 'any')"
        ))
        .await;
}

/// Makes a table refuse the rows of the kind `odd`.
async fn refuse_odd(database: &TestDatabase, table: &str, refuse: &str) {
    database
        .run(&format!(
            "create function refuse_{table}() returns trigger language plpgsql
            as $$ begin {refuse}; return new; end $$;
            create trigger refuse before insert on reveille.{table} for each row when (new.kind = 'odd')
            execute function refuse_{table}()"
        ))
        .await;
}

const DEAD: &str = "select coalesce(jsonb_agg(jsonb_build_array(id, errors -> -1 -> 'error') order by id), '[]')
    from reveille.dead_jobs where kind = 'odd'";

#[tokio::test]
async fn a_job_that_cannot_start_dies_alone_beside_a_dead_job_of_its_id() {
    let database = database().await;
    odd_and_good(&database, "any").await;
    refuse_odd(&database, "jobs", "raise exception 'no'").await;
    database
        .run(
            "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
                available_at, created_at, reason)
            values (3, 'default', 'old', '{}', 2, 0, 0, 1, now(), now(), 'failed');
            select reveille.cancel(1), reveille.cancel(2)",
        )
        .await;
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!(["good"]));
    let error = "cannot be stored in reveille.jobs: no (SQLSTATE P0001); its id was 3, which another dead job has";
    assert_eq!(database.value(DEAD).await, json!([[5, error]]));
}

#[tokio::test]
async fn a_job_that_can_neither_start_nor_die_stays_blocked_and_holds_up_no_other() {
    let database = database().await;
    odd_and_good(&database, "any").await;
    refuse_odd(&database, "jobs", "raise exception 'no'").await;
    refuse_odd(&database, "dead_jobs", "raise exception 'neither'").await;
    database.run("select reveille.cancel(1), reveille.cancel(2)").await;
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!(["good"]));
    assert_eq!(kinds(&database, "blocked_jobs").await, json!(["odd"]));
    assert_eq!(database.value("select count(*) from reveille.linked_ends").await, 0);
}

#[tokio::test]
async fn a_fault_of_the_schema_kills_no_blocked_job() {
    let database = database().await;
    odd_and_good(&database, "any").await;
    refuse_odd(&database, "jobs", "insert into public.audit values (new.id)").await;
    database.run("select reveille.cancel(1), reveille.cancel(2)").await;
    let apply_once = "select reveille.apply_linked_ends()";
    let error = database.client().await.batch_execute(apply_once).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42P01");
    database.run("create table public.audit (job bigint)").await;
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!(["odd", "good"]));
}

#[test]
fn sql_and_rust_agree_on_the_errors_that_say_nothing_of_a_row() {
    let classes = |path: &str, from: &str| {
        let text = source(path);
        let list = text.split_once(from).unwrap().1.split_once(']').unwrap().0;
        list.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let in_sql = classes("migrations/V19__moves_and_kinds.sql", "operator(pg_catalog.=) any (array[");
    assert_eq!(classes("src/error.rs", "const OTHER_CLASSES: [&str; 13] =\n            ["), in_sql);
    assert_eq!(in_sql.len(), 13);
}

#[tokio::test]
async fn a_job_that_an_assertion_refuses_dies_alone() {
    let database = database().await;
    odd_and_good(&database, "any").await;
    refuse_odd(&database, "jobs", "assert false, 'no'").await;
    database.run("select reveille.cancel(1), reveille.cancel(2)").await;
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!(["good"]));
    assert_eq!(database.value(DEAD).await, json!([[3, "cannot be stored in reveille.jobs: no (SQLSTATE P0004)"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_take_too_long_to_start_together_start_in_parts() {
    let database = database().await;
    database
        .run(
            "select reveille.enqueue(kind => 'a');
            select reveille.enqueue_after(array[1], 'large', fires_on => 'any', queue => 'l')
            from generate_series(1, 100);
            create function time_out() returns trigger language plpgsql as $$ begin
                if (select count(*) from inserted) > 10 then
                    raise exception 'too many' using errcode = 'query_canceled';
                end if;
                return null;
            end $$;
            create trigger time_out after insert on reveille.jobs referencing new table as inserted
            for each statement execute function time_out();
            select reveille.cancel(1)",
        )
        .await;
    let worker = start(reporting_worker(&database).0);
    database.until("select count(*) = 100 from reveille.jobs where kind = 'large'").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_cannot_be_skipped_dies_alone() {
    let database = database().await;
    odd_and_good(&database, "completed").await;
    refuse_odd(&database, "finished_jobs", "raise exception 'no'").await;
    database.run("select reveille.cancel(1), reveille.cancel(2)").await;
    apply(&database).await;
    assert_eq!(kinds(&database, "jobs").await, json!(["good"]));
    assert_eq!(database.value(DEAD).await, json!([[3, "cannot be skipped: no (SQLSTATE P0001)"]]));
}

#[tokio::test]
async fn jobs_whose_cancel_is_refused_die_and_the_cancel_of_their_workflow_goes_on() {
    let database = database().await;
    let jobs = json!([{"name": "a", "kind": "odd"}, {"name": "b", "kind": "odd", "after": ["a"]},
        {"name": "c", "kind": "plain"}]);
    workflow(&database, jobs).await;
    refuse_odd(&database, "finished_jobs", "raise exception 'no'").await;
    database.run("select reveille.cancel_workflow(1)").await;
    apply(&database).await;
    let counts = "select jsonb_build_array(state, live, blocked, dead, cancelled) from reveille.workflow_status";
    assert_eq!(database.value(counts).await, json!(["cancelled", 0, 0, 2, 1]));
    let errors = "cannot be claimed: cannot be cancelled: no (SQLSTATE P0001)";
    let error = "cannot be cancelled: no (SQLSTATE P0001)";
    let dead = database.value(DEAD).await;
    assert_eq!(dead.as_array().unwrap().iter().map(|row| &row[1]).collect::<Vec<_>>(), [&json!(errors), &json!(error)]);
}

#[tokio::test]
async fn a_job_of_another_workflow_is_no_prerequisite() {
    let database = database().await;
    database.run("select reveille.enqueue(kind => 'other')").await;
    let jobs = json!([{"name": "a", "kind": "a", "after": [{"name": "b", "id": 1}]}, {"name": "b", "kind": "b"}]);
    let refusal = database.refusal(&format!("select reveille.enqueue_workflow('w', '{jobs}')")).await;
    assert!(refusal.contains("another key"), "{refusal}");
}
