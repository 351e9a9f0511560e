//! Attempts are counted by kind, with histograms of their times.

use std::time::Duration;

use reveille::driver::{Driver, Postgres, WorkerInfo};
use reveille::job::RetryPolicy;
use reveille::{Outcome, enqueue};
use serde_json::json;

use crate::harness::{claim, database, note, report, reporting, start, worker};

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_by_queue_and_kind() {
    let database = database().await;
    let work = worker(&database).queue("mail", 4).handle_any(
        async |context| {
            // The test needs a run time above the bounds of the first buckets.
            tokio::time::sleep(Duration::from_millis(10)).await;
            match context.job().kind.as_str() {
                "fails" => Outcome::Fail("on purpose".into()),
                "cancels" => Outcome::Cancel,
                _ => Outcome::Complete,
            }
        },
        RetryPolicy::default(),
    );
    let rows = "insert into reveille.jobs (kind, queue, max_attempts) values
        ('works', 'default', 1), ('works', 'default', 1), ('works', 'mail', 1), ('fails', 'mail', 1),
        ('cancels', 'mail', 1)";
    database.run(rows).await;
    let worker = start(work);
    database.until("select count(*) = 0 from reveille.jobs").await;
    worker.stop().await;
    let totals = "select jsonb_agg(jsonb_build_array(queue, kind, completed, failed) order by queue, kind)
        from reveille.kind_totals";
    let expected = json!([["default", "works", 2, 0], ["mail", "fails", 0, 1], ["mail", "works", 1, 0]]);
    assert_eq!(database.value(totals).await, expected);
    let stats = "select jsonb_agg(jsonb_build_array(queue, kind, completed, failed) order by queue, kind)
        from reveille.kind_stats";
    assert_eq!(database.value(stats).await, expected);
    let sound = "select bool_and(
            median_run_seconds between 0.01 and p95_run_seconds and p95_wait_seconds > 0 and mean_run_seconds > 0.01
        ) from reveille.kind_stats";
    assert_eq!(database.value(sound).await, true);
}

#[tokio::test]
async fn a_lost_attempt_counts_as_a_failure_of_its_kind() {
    let database = database().await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7).host("gone").queues(["default"])).await.unwrap();
    enqueue(&database.database, &note("x")).await.unwrap();
    claim(&driver, 7, 1).await;
    database.run("delete from reveille.workers").await;

    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(report));
    reports.next().await;
    worker.stop().await;
    let counts = "select jsonb_agg(jsonb_build_array(kind, completed, failed)) from reveille.kind_totals";
    assert_eq!(database.value(counts).await, json!([["note", 1, 1]]));
}

#[tokio::test]
async fn a_job_completed_in_sql_counts_for_its_kind() {
    let database = database().await;
    let jobs = database.database.clone();
    let completes = move |_| {
        let jobs = jobs.clone();
        async move {
            let sql = "select reveille.complete_in(id, reserved_by, attempts, reserved_at, 0) from reveille.jobs";
            jobs.client().await.unwrap().execute(sql, &[]).await.unwrap();
        }
    };
    enqueue(&database.database, &note("x")).await.unwrap();
    let work = worker(&database).handle_any(completes, RetryPolicy::default());
    work.build().unwrap().run_until_drained().await.unwrap();
    let counts = "select jsonb_agg(jsonb_build_array(kind, completed, failed)) from reveille.kind_totals";
    assert_eq!(database.value(counts).await, json!([["note", 1, 0]]));
}

#[tokio::test]
async fn at_most_200_kinds_have_their_own_counts() {
    let database = database().await;
    let work = async |from: u32, to: u32| {
        let rows = "insert into reveille.jobs (kind, max_attempts) select 'kind ' || n, 1 from generate_series";
        database.run(&format!("{rows}({from}, {to}) as n")).await;
        let work = worker(&database).handle_any(async |_| {}, RetryPolicy::default());
        work.build().unwrap().run_until_drained().await.unwrap();
    };
    // Two workers, since each of them counts at most 200 kinds by itself.
    work(1, 150).await;
    work(101, 300).await;
    let counts = "select jsonb_build_array(count(*), sum(completed), max(completed) filter (where kind = '(other)'),
            bool_and(completed = case when substr(kind, 6)::int between 101 and 150 then 2 else 1 end)
                filter (where kind <> '(other)'))
        from reveille.kind_totals";
    assert_eq!(database.value(counts).await, json!([201, 350, 100, true]));
}

#[tokio::test]
async fn upkeep_forgets_kinds_without_attempts_for_a_week() {
    let database = database().await;
    let rows = "insert into reveille.kind_counters
        select 'q', kind, at, 1, 0, 1, 1, array_fill(0, array[18]), array_fill(0, array[18])
        from (values
            ('old', '-infinity'::timestamptz), ('old', now() - interval '8 days'),
            ('used', '-infinity'), ('used', now() - interval '8 days'), ('used', now() - interval '6 days')
        ) as counted (kind, at)";
    database.run(rows).await;
    database.database.admin().prune().await.unwrap();
    let left = "select jsonb_agg(jsonb_build_array(kind, started_at = '-infinity') order by started_at)
        from reveille.kind_counters";
    assert_eq!(database.value(left).await, json!([["used", true], ["used", false]]));
}

#[tokio::test]
async fn a_quantile_is_between_the_bounds_of_its_bucket() {
    let database = database().await;
    let quantile = async |counts: &str, quantile: f64| {
        let zeros = "array_fill(0::bigint, array[18])";
        let counts = if counts.is_empty() { zeros.to_owned() } else { format!("array[{counts}]::bigint[]") };
        database.value(&format!("select to_jsonb(reveille.histogram_quantile({counts}, {quantile}))")).await
    };
    // Four times of at most 1 ms, and four times above 1 and at most 2.5 ms.
    assert_eq!(quantile("4, 4", 0.25).await, json!(0.0005));
    assert_eq!(quantile("4, 4", 0.75).await, json!(0.00175));
    assert_eq!(quantile("0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9", 0.5).await, json!(1800));
    assert_eq!(quantile("", 0.5).await, json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_cannot_be_stored_are_kept() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(report));
    enqueue(&database.database, &note("x")).await.unwrap();
    reports.next().await;
    let blocker = database.client().await;
    blocker.batch_execute("begin; lock reveille.kind_counters in access exclusive mode").await.unwrap();
    database
        .until("select count(*) > 0 from pg_locks where relation = 'reveille.kind_counters'::regclass and not granted")
        .await;
    blocker.batch_execute("commit").await.unwrap();
    worker.stop().await;
    assert_eq!(database.value("select sum(completed) from reveille.kind_totals").await, 1);
}
