//! The views agree with the tables.

use reveille::admin::{Filter, StateFilter, View};
use reveille::driver::FailureReason;
use reveille::enqueue;
use reveille::job::{JobState, Priority};
use serde_json::json;

use crate::harness::{database, note, reporting_worker, soon, start};

#[tokio::test]
async fn queue_stats_counts_each_state() {
    let database = database().await;
    let mixed = "insert into reveille.jobs (kind, queue) select 'k', 'a' from generate_series(1, 3);
        insert into reveille.jobs (kind, queue, available_at)
        values ('k', 'a', now() + '1 hour'), ('k', 'b', now() + '1 hour');
        insert into reveille.jobs (kind, queue, reserved_at, reserved_by, attempts) values ('k', 'a', now(), 1, 1);
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at,
            created_at, reason) values (100, 'c', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed');
        insert into reveille.queues (name, paused_at) values ('d', now())";
    database.run(mixed).await;
    let rows = "select jsonb_agg(jsonb_build_array(queue, paused, ready, delayed, running, dead, estimated) \
        order by queue) from reveille.queue_stats";
    let expected = json!([
        ["a", false, 3, 1, 1, 0, false],
        ["b", false, 0, 1, 0, 0, false],
        ["c", false, 0, 0, 0, 1, false],
        ["d", true, 0, 0, 0, 0, false]
    ]);
    assert_eq!(database.value(rows).await, expected);
}

#[tokio::test]
async fn queue_stats_knows_the_oldest_ready_job() {
    let database = database().await;
    let insert = "insert into reveille.jobs (kind, priority, available_at)
        values ('k', 0, now() - '1 minute'::interval), ('k', 3, now() - '1 hour'::interval),
        ('k', 1, now() + '1 hour')";
    database.run(insert).await;
    let age = "select oldest_ready_age between '1 hour' and '1 hour 1 minute' from reveille.queue_stats";
    assert_eq!(database.value(age).await, true);
}

#[tokio::test]
async fn queue_stats_estimates_large_queues_and_says_so() {
    let database = database().await;
    let many = "insert into reveille.jobs (kind, queue, available_at)
            select 'k', 'large', now() + case when n % 3 = 0 then '1 hour' else '-1 hour' end::interval
            from generate_series(1, 60000) as n;
        insert into reveille.jobs (kind, queue) select 'k', 'small' from generate_series(1, 500);
        analyze reveille.jobs";
    database.run(many).await;
    let rows = "select jsonb_agg(jsonb_build_array(queue, estimated, ready between 36000 \
        and 44000, delayed between 18000 and 22000) order by queue)
        from reveille.queue_stats";
    assert_eq!(database.value(rows).await, json!([["large", true, true, true], ["small", false, false, false]]));
    assert_eq!(database.value("select ready from reveille.queue_stats where queue = 'small'").await, 500);
}

#[tokio::test]
async fn queue_stats_counts_exactly_up_to_ten_thousand_over_all_priorities() {
    let database = database().await;
    let insert = "insert into reveille.jobs (kind, queue, priority, available_at)
            select 'k', 'just', n % 4, now() + case when n % 2 = 0 then '1 hour' else '-1 hour' end::interval
            from generate_series(1, 20000) as n;
        insert into reveille.jobs (kind, queue, priority) select 'k', 'more', n % 4
        from generate_series(1, 10001) as n";
    database.run(insert).await;
    let rows = "select jsonb_agg(jsonb_build_array(queue, ready, delayed, estimated) order by queue) \
        from reveille.queue_stats";
    let rows = database.value(rows).await;
    assert_eq!(rows[0], json!(["just", 10000, 10000, false]));
    assert_eq!((&rows[1][2], &rows[1][3]), (&json!(0), &json!(true)));
    assert!(rows[1][1].as_i64().unwrap() > 10_000, "{rows}");
}

#[tokio::test]
async fn queue_stats_estimates_earlier_where_there_are_many_queues() {
    let database = database().await;
    let many = "insert into reveille.jobs (kind, queue, available_at)
            select 'k', 'q' || n % 1000, now() + case when n % 5 = 0 then '1 hour' else '-1 hour' end::interval
            from generate_series(1, 100000) as n;
        insert into reveille.jobs (kind, queue) select 'k', 'q1' from generate_series(1, 300);
        analyze reveille.jobs";
    database.run(many).await;
    // Of 1,000 queues, 100 jobs of each are counted one by one.
    let rows = "select jsonb_agg(distinct jsonb_build_array(ready, delayed, estimated)) from reveille.queue_stats
        where queue <> 'q1'";
    assert_eq!(database.value(rows).await, json!([[0, 100, false], [100, 0, false]]));
    let one = "select estimated and ready between 300 and 600 and delayed = 0 from reveille.queue_stats
        where queue = 'q1'";
    assert_eq!(database.value(one).await, true);
}

#[tokio::test]
async fn queue_stats_reads_its_index_and_is_not_compiled() {
    let database = database().await;
    let fill = "alter table reveille.jobs set (autovacuum_enabled = off);
        insert into reveille.jobs (kind, queue, priority, available_at)
        select 'k', 'q', n % 4, now() - n * 7919 % 1000 * '1 s'::interval from generate_series(1, 60000) as n;
        analyze reveille.jobs";
    database.run(fill).await;
    let plan = "explain (format json) select * from reveille.queue_stats";
    let plan: serde_json::Value = database.client().await.query_one(plan, &[]).await.unwrap().get(0);
    let cost = plan[0]["Plan"]["Total Cost"].as_f64().unwrap();
    assert!(cost < 50_000.0, "the view's cost is {cost}; jit_above_cost is 100,000 by default");
    let scans = plan.to_string();
    let scans = scans.split("\"Node Type\":").filter(|node| node.contains("\"Relation Name\":\"jobs\""));
    let others: Vec<_> = scans.filter(|node| !node.starts_with("\"Index ")).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test]
async fn queue_stats_looks_into_the_counters_once_for_each_queue() {
    let database = database().await;
    let fill = "insert into reveille.jobs (kind, queue) select 'k', 'q' || n from generate_series(1, 500) as n;
        insert into reveille.counters (queue, started_at, worker, completed)
        select 'q' || n, date_trunc('minute', now()) - m * '1 minute'::interval, 0, 1
        from generate_series(1, 500) as n, generate_series(6, 100) as m
        union all select 'q' || n, now() - s * '10 seconds'::interval, 1, 2
        from generate_series(1, 500) as n, generate_series(1, 30) as s;
        analyze reveille.counters";
    database.run(fill).await;
    let client = database.client().await;
    client.batch_execute("begin").await.unwrap();
    let sum = "select sum(completed_last_minute)::bigint from reveille.queue_stats";
    assert_eq!(client.query_one(sum, &[]).await.unwrap().get::<_, i64>(0), 500 * 6 * 2);
    let scans = "select idx_scan from pg_stat_xact_user_tables where relname = 'counters'";
    let scans: i64 = client.query_one(scans, &[]).await.unwrap().get(0);
    assert!(scans < 600, "{scans} scans of the indexes of counters");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    for _ in 0..5 {
        enqueue(&database.database, &note("x")).await.unwrap();
        reports.next().await;
    }
    database.run("insert into reveille.jobs (kind, payload, max_attempts) values ('note', '[1, 2]', 1)").await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    database.until("select count(*) = 5 from reveille.finished_jobs").await;
    let stats = "select jsonb_build_array(completed_last_minute, failed_last_minute) from reveille.queue_stats";
    assert_eq!(database.value(stats).await, json!([5, 1]));
    let throughput =
        "select jsonb_build_array(sum(completed), sum(failed), bool_and(mean_wait_seconds <= max_wait_seconds),
        bool_and(mean_run_seconds <= max_run_seconds)) from reveille.throughput";
    assert_eq!(database.value(throughput).await, json!([5, 1, true, true]));
    let status = "select jsonb_build_array(queues, running, slots, alive, stopping) from reveille.worker_status";
    assert_eq!(database.value(status).await, json!([["default"], 0, 4, true, false]));
    worker.stop().await;
}

#[tokio::test]
async fn old_counters_are_folded_by_the_minute_and_lose_nothing() {
    let database = database().await;
    let insert = "insert into reveille.counters (queue, started_at, worker, completed, failed, run_seconds, \
        max_run_seconds)
        select 'q', date_trunc('minute', now()) - '20 minutes'::interval + n * '10 seconds'::interval, 1 + n % 2, 3,
        1, 0.5, n
            from generate_series(0, 11) as n
        union all select 'q', now() - '10 days'::interval, 0, 1, 1, 1, 1";
    database.run(insert).await;
    let before = database
        .value(
            "select jsonb_agg(to_jsonb(t) order by minute) from reveille.throughput as t \
        where minute > now() - '1 day'::interval",
        )
        .await;
    assert_eq!(database.database.admin().prune().await.unwrap(), Some(0));
    let after = database.value("select jsonb_agg(to_jsonb(t) order by minute) from reveille.throughput as t").await;
    assert_eq!(after, before, "folding does not change the view, and the counters of ten days ago are forgotten");
    assert_eq!(database.value("select count(*) from reveille.counters").await, 2);
}

#[tokio::test]
async fn totals_do_not_change_when_counters_are_folded_or_forgotten() {
    let database = database().await;
    let insert = "insert into reveille.counters (queue, started_at, worker, completed, failed, wait_seconds, \
        run_seconds)
        select 'q' || n % 2, date_bin('10 seconds', now(), 'epoch') - n * '10 seconds'::interval, 1 + n % 3, n, 1,
        n * 0.1, n / 3.0
        from generate_series(0, 200) as n";
    database.run(insert).await;
    let totals = "select jsonb_agg(to_jsonb(t) order by queue) from reveille.queue_totals as t";
    let before = database.value(totals).await;
    assert_eq!(before[0]["completed"], json!(10100));
    let admin = database.database.admin();
    admin.prune().await.unwrap();
    assert_eq!(database.value("select count(*) < 40 from reveille.counters where worker <> 0").await, true);
    assert_eq!(database.value(totals).await, before, "folded");
    database.run("update reveille.counters set started_at = started_at - '8 days'::interval where worker = 0").await;
    admin.prune().await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.counters where worker = 0").await, 0);
    assert_eq!(database.value(totals).await, before, "forgotten");
}

#[tokio::test]
async fn folding_a_minute_does_not_change_its_throughput() {
    let database = database().await;
    let insert = "insert into reveille.counters (queue, started_at, worker, completed, failed, wait_seconds, \
        max_wait_seconds)
        select 'q', date_trunc('minute', now()) - '10 minutes'::interval + n * '10 seconds'::interval, 1 + n % 2, 1,
        1, n, n
        from generate_series(0, 5) as n";
    database.run(insert).await;
    let rows = "select jsonb_agg(jsonb_build_array(completed, failed, mean_wait_seconds, max_wait_seconds, \
        mean_run_seconds)) from reveille.throughput
        where minute > now() - '1 hour'::interval";
    let expected = json!([[6, 6, 1.25, 5, 0]]);
    assert_eq!(database.value(rows).await, expected);
    database.database.admin().prune().await.unwrap();
    assert_eq!(database.value(rows).await, expected);
}

#[tokio::test]
async fn running_and_failing_jobs_show_the_worker_and_the_error() {
    let database = database().await;
    let insert = "insert into reveille.workers (id, host, pid, version, queues, slots) \
        values (7, 'here', 1, '0', '{q}', 1);
        insert into reveille.jobs (kind, reserved_at, reserved_by, attempts, failures, errors)
        values ('k', now() - '5 seconds'::interval, 7, 2, 1,
        '[{\"error\": \"no\", \"at\": \"2026-01-01T00:00:00Z\"}]')";
    database.run(insert).await;
    let running = "select jsonb_build_array(id, attempt, worker, host, running_for between '5 s' and '65 s') \
        from reveille.running_jobs";
    assert_eq!(database.value(running).await, json!([1, 2, 7, "here", true]));
    let failing = "select jsonb_build_array(id, failures, last_error, last_failed_at = '2026-01-01T00:00:00Z', \
        running) from reveille.failing_jobs";
    assert_eq!(database.value(failing).await, json!([1, 1, "no", true, true]));
}

#[tokio::test]
async fn dead_jobs_are_summed_up_by_reason() {
    let database = database().await;
    let insert = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, \
        max_attempts, available_at,
            created_at, reason, errors, finished_at)
        select n, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), case when n = 1 then 'lost' else 'failed' end,
            jsonb_build_array(jsonb_build_object('error', 'e' || n)), now() + n * '1 s'::interval
            from generate_series(1, 4) as n";
    database.run(insert).await;
    let rows = "select jsonb_agg(jsonb_build_array(reason, jobs, last_id, last_error) order by reason) \
        from reveille.dead_jobs_overview";
    assert_eq!(database.value(rows).await, json!([["failed", 3, 4, "e4"], ["lost", 1, 1, "e1"]]));
}

#[tokio::test]
async fn history_past_every_retention_is_emptied_and_the_rest_kept() {
    let database = database().await;
    let insert = "insert into reveille.queues (name, retention) values ('long', '3 days');
        insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at,
            created_at, outcome, finished_at)
        select (extract(epoch from now())::bigint / 86400 - age) % 32, age, 'long', 'k', '{}', 2, 1, 0, 20, now(),
        now(), 'completed',
            now() - age * '1 day'::interval from generate_series(0, 20) as age";
    database.run(insert).await;
    assert_eq!(database.database.admin().prune().await.unwrap(), Some(17));
    let kept = database.value("select jsonb_agg(id order by id) from reveille.finished_jobs").await;
    assert_eq!(kept, json!([0, 1, 2, 3]));
    let finished = Filter::new().state(StateFilter::Finished);
    assert_eq!(
        database.database.admin().jobs(&finished, 10).await.unwrap().len(),
        3,
        "jobs past their own queue's retention are hidden"
    );
}

#[tokio::test]
async fn history_that_another_session_reads_is_pruned_later() {
    let database = database().await;
    let insert = "insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures, \
        max_attempts,
            available_at, created_at, outcome)
        select (extract(epoch from now())::bigint / 86400 - 9) % 32, 1, 'q', 'k', '{}', 2, 1, 0, 20, now(), now(),
        'completed'";
    database.run(insert).await;
    let reader = database.client().await;
    reader.batch_execute("begin; select * from reveille.finished_jobs").await.unwrap();
    assert_eq!(soon("upkeep ends", database.database.admin().prune()).await.unwrap(), Some(0));
    reader.batch_execute("rollback").await.unwrap();
    assert_eq!(database.database.admin().prune().await.unwrap(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_of_each_day_of_the_ring_has_a_partition() {
    let database = database().await;
    let partitions = "select count(*) from pg_inherits where inhparent = 'reveille.finished_jobs'::regclass";
    assert_eq!(database.value(partitions).await, 32);
    let insert =
        "insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, outcome)
        select (day_number % 32)::smallint, day_number, 'q', 'k', '{}', 2, 1, 0, 20, now(), now(), 'completed'
        from generate_series(20000, 20400) as day_number";
    database.run(insert).await;
}

#[tokio::test]
async fn every_view_can_be_read_by_its_name() {
    let database = database().await;
    // Leaves out `known_queues`, because this view is only a part of other views, and the views of all jobs and
    // workflows, because a million rows of them would be read: `Admin::overview_list`, `Admin::page`,
    // `Admin::workflows`, `Admin::workflow_jobs`, `Admin::job_links` and `Admin::listed_steps` read their first rows.
    let views = "select jsonb_agg(viewname) from pg_views where schemaname = 'reveille'
        and viewname not in ('known_queues', 'waiting_jobs', 'job_list', 'dead_job_list', 'finished_job_list',
            'blocked_jobs_overview', 'workflow_status', 'workflow_job_status', 'job_dependencies', 'job_steps')";
    for view in database.value(views).await.as_array().unwrap() {
        let view = View::from_name(view.as_str().unwrap()).unwrap();
        database.admin().view(view).await.unwrap();
    }
    assert_eq!(View::from_name("no_such"), None);
}

#[tokio::test]
async fn a_job_is_read_with_its_fields_whether_it_is_live_dead_or_finished() {
    let database = database().await;
    let due_at = "2096-07-24 18:00:00.25+02";
    let rows = format!(
        "set time zone 'Asia/Kolkata';
        insert into reveille.jobs (kind, key, tags, priority, available_at)
        values ('live', 'k', '{{a,b}}', 1, '{due_at}');
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at,
            created_at, reason, errors)
        values (2, 'q', 'dead', '[1]', 2, 3, 2, 2, now(), now(), 'lost', '[{{\"attempt\": 3, \"error\": \"gone\"}}]');
        insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, outcome, result, run_seconds)
        values (0, 3, 'q', 'finished', '[]', 2, 1, 0, 20, now(), now(), 'completed', '7', 0.5)"
    );
    database.run(&rows).await;
    let admin = database.admin();
    let job = async |id| admin.job(id).await.unwrap().unwrap();

    let live = job(1).await;
    assert_eq!((live.state, live.priority, live.key.as_deref()), (JobState::Delayed, Priority::High, Some("k")));
    assert_eq!((live.tags.as_slice(), live.finished_at), (&["a".to_owned(), "b".into()][..], None));
    assert_eq!(live.available_at, Some(admin.read_time(due_at).await.unwrap()));
    let dead = job(2).await;
    assert_eq!((dead.state, dead.reason, dead.attempts), (JobState::Dead, Some(FailureReason::Lost), 3));
    assert_eq!((dead.errors()[0].attempt, &*dead.errors()[0].error), (Some(3), "gone"));
    let finished = job(3).await;
    assert_eq!((finished.state, finished.run_seconds), (JobState::Completed, Some(0.5)));
    assert_eq!(finished.result().unwrap().decode::<u8>().unwrap(), 7);

    let kinds = async |filter: Filter| -> Vec<String> {
        admin.jobs(&filter, 9).await.unwrap().into_iter().map(|job| job.kind).collect()
    };
    assert_eq!(kinds(Filter::new()).await, ["live"]);
    assert_eq!(kinds(Filter::new().reason(FailureReason::Lost).queue("q")).await, ["dead"]);
    assert_eq!(kinds(Filter::new().reason(FailureReason::Failed)).await, [""; 0]);
    assert_eq!(kinds(Filter::new().state(JobState::Completed).kind("finished")).await, ["finished"]);
    assert!(admin.purge_dead(&Filter::new().state(StateFilter::Finished)).await.unwrap_err().is_invalid());
}
