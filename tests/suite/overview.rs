//! The lists of `reveille top`.

use reveille::admin::{OverviewList, Record};
use serde_json::{Value, json};

use crate::harness::{TestDatabase, database};

async fn list(database: &TestDatabase, list: OverviewList) -> Vec<Record> {
    database.admin().overview_list(&list).await.unwrap()
}

fn ids(rows: &[Record]) -> Vec<i64> {
    rows.iter().map(|row| row.decode("id").unwrap()).collect()
}

#[tokio::test]
async fn the_waiting_jobs_of_all_queues_and_levels_are_listed_in_the_order_of_their_due_times() {
    let database = database().await;
    // 300 queues and four levels: more than the 200 levels whose jobs the list can show.
    let many = "insert into reveille.jobs (kind, queue, priority, available_at)
            select 'k', 'q' || n * 7919 % 300, n * 31 % 4,
                now() + (case when n % 3 = 0 then 1 else -1 end) * (1 + n * 104729 % 9973) * interval '1 second'
            from generate_series(1, 5000) as n;
        insert into reveille.jobs (kind, queue, reserved_at, reserved_by, attempts)
            values ('running', 'q1', now(), 1, 1)";
    database.run(many).await;
    let expected = async |of: &str| -> Vec<i64> {
        let first = |state: &str| {
            format!(
                "(select id, available_at from reveille.jobs where reserved_at is null and {of} and {state}
                order by available_at, id limit 200)"
            )
        };
        let (ready, delayed) = (first("available_at <= now()"), first("available_at > now()"));
        let sql = format!("select jsonb_agg(id order by available_at, id) from ({ready} union all {delayed}) as first");
        serde_json::from_value(database.value(&sql).await).unwrap()
    };
    let all = list(&database, OverviewList::Waiting { queue: None }).await;
    assert_eq!(ids(&all), expected("true").await);
    assert_eq!(all.len(), 400);
    let of_one = list(&database, OverviewList::Waiting { queue: Some("q1".into()) }).await;
    assert_eq!(ids(&of_one), expected("queue = 'q1'").await);
    let none = list(&database, OverviewList::Waiting { queue: Some("none".into()) }).await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn lists_choose_the_jobs_of_one_worker_and_of_one_group() {
    let database = database().await;
    let rows = "insert into reveille.jobs (kind, reserved_at, reserved_by, attempts)
            values ('a', now() - interval '1 minute', 7, 1), ('b', now(), 8, 1), ('c', now() - interval '1 hour', 7, 1);
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, reason, finished_at, errors)
        select 100 + n, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), case when n % 2 = 0 then 'failed' else 'lost' end,
            now() - n * interval '1 second', '[{\"error\": \"declined\"}]'
        from generate_series(1, 6) as n";
    database.run(rows).await;
    assert_eq!(ids(&list(&database, OverviewList::Running { worker: Some(7) }).await), [3, 1]);
    assert_eq!(ids(&list(&database, OverviewList::Running { worker: None }).await), [3, 1, 2]);
    let (queue, kind, reason) = ("q".into(), "k".into(), "failed".into());
    let dead = list(&database, OverviewList::DeadJobs { queue, kind, reason }).await;
    assert_eq!(ids(&dead), [102, 104, 106]);
    assert_eq!(dead[0].get("last_error"), Some("\"declined\""));
}

#[tokio::test]
async fn a_job_with_an_infinite_due_time_is_listed() {
    let database = database().await;
    let odd = "alter table reveille.jobs disable trigger user;
        insert into reveille.jobs (kind, available_at, failures) values ('k', 'infinity', 1), ('k', '-infinity', 1)";
    database.run(odd).await;
    assert_eq!(ids(&list(&database, OverviewList::Waiting { queue: None }).await), [2, 1]);
    assert_eq!(list(&database, OverviewList::Failing).await[0].get("next_try_seconds"), Some("null"));
}

#[tokio::test]
async fn the_sums_over_all_queues_are_those_of_the_queues() {
    let database = database().await;
    let rows = "insert into reveille.jobs (kind, queue, available_at)
            select 'k', 'q' || n % 150, now() + case when n % 3 = 0 then '1 hour' else '-1 hour' end::interval
            from generate_series(1, 4000) as n;
        insert into reveille.jobs (kind, queue, reserved_at, reserved_by, attempts)
            select 'k', 'q' || n, now(), 7, 1 from generate_series(1, 5) as n;
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, reason)
        select 9000 + n, 'q' || n % 2, 'k' || n, '{}', 2, 1, 1, 1, now(), now(), 'failed'
        from generate_series(1, 5) as n;
        insert into reveille.counters (queue, started_at, worker, completed, failed)
        select 'q' || n, now() - n * interval '20 seconds', 1, 10, n from generate_series(0, 9) as n;
        insert into reveille.workers (id, host, pid, version, queues, slots) values (7, 'here', 1, '0', '{q0}', 16)";
    database.run(rows).await;
    let admin = database.admin();
    let sums = admin.queue_sums().await.unwrap();
    let expected = "select jsonb_build_object(
            'ready', sum(ready), 'delayed', sum(delayed), 'running', sum(running), 'dead', sum(dead),
            'estimated', bool_or(estimated), 'completed_last_minute', sum(completed_last_minute),
            'failed_last_minute', sum(failed_last_minute), 'workers', 1, 'slots', 16
        ) from reveille.queue_stats";
    assert_eq!(sums.decode::<Value>("sums").unwrap(), database.value(expected).await);
    assert_eq!(sums.get("dead_by_queue"), Some(r#"{"q0": 2, "q1": 3}"#));
    assert_eq!(sums.get("failed_by_queue"), Some(r#"{"q1": 1, "q2": 2, "q3": 3}"#));
}

/// 1,001 queues, of which few jobs each are counted, so that the numbers of `q0` and `q1` are estimates.
const MANY_QUEUES: &str = "alter table reveille.jobs disable trigger user;
    insert into reveille.queues (name, paused_at)
        select 'q' || n, case when n = 7 then now() end from generate_series(0, 1000) as n;
    insert into reveille.jobs (kind, queue, priority, available_at)
        select 'k', 'q' || n % 2, n % 4, now() + case when n % 5 = 0 then '1 hour' else '-1 hour' end::interval
        from generate_series(1, 900) as n;
    insert into reveille.jobs (kind, queue, available_at) select 'k', 'q2', '-infinity' from generate_series(1, 3);
    insert into reveille.jobs (kind, queue, paused_by) select 'k', 'q3', 1 from generate_series(1, 4);
    insert into reveille.jobs (kind, queue, reserved_at, reserved_by, attempts) values ('k', 'q4', now(), 7, 1);
    insert into reveille.blocked_jobs (id, queue, kind, payload, priority, max_attempts, needs, chances)
        select 9000 + n, 'q5', 'k', '{}', 2, 1, 1, 1 from generate_series(1, 5) as n;
    insert into reveille.counters (queue, started_at, worker, completed, failed)
        select 'q' || n, now() - n * interval '20 seconds', 1, 10, n from generate_series(0, 9) as n;
    insert into reveille.workers (id, host, pid, version, queues, slots) values (7, 'here', 1, '0', '{q0,q6}', 16);
    analyze reveille.jobs";

#[tokio::test]
async fn some_queues_are_read_as_the_view_tells_them() {
    let database = database().await;
    database.run(MANY_QUEUES).await;
    let view = "select jsonb_agg(to_jsonb(stats) - array['dead', 'oldest_ready_age'] order by queue)
        from reveille.queue_stats as stats where queue in ('q0', 'q1', 'q2', 'q3', 'q4', 'q5', 'q6', 'q7')";
    let view: Vec<Value> = serde_json::from_value(database.value(view).await).unwrap();
    assert!(view[0]["estimated"] == json!(true) && view[2]["estimated"] == json!(false), "{view:?}");

    let names: Vec<String> = (0..8).map(|n| format!("q{n}")).collect();
    let rows = database.admin().stats_of_queues(&names, 1001).await.unwrap();
    let mut stats: Vec<Value> = rows.iter().map(|row| row.decode("queue").unwrap()).collect();
    stats.sort_by_key(|queue| queue["queue"].as_str().map(str::to_owned));
    for (place, queue) in stats.iter_mut().filter_map(Value::as_object_mut).enumerate() {
        let age = queue.remove("oldest_ready_seconds").unwrap().as_f64();
        assert_eq!(age.is_some_and(|age| age > 3500.0), place < 2, "{queue:?}");
        assert_eq!(queue.remove("served").unwrap(), json!([0, 6].contains(&place)), "{queue:?}");
    }
    assert_eq!(stats, view);

    let unknown = database.admin().stats_of_queues(&["none".to_owned()], 1001).await.unwrap();
    assert_eq!(unknown[0].decode::<Value>("queue").unwrap()["ready"], json!(0));
}

#[tokio::test]
async fn sums_of_more_than_ten_thousand_waiting_jobs_are_estimates() {
    let database = database().await;
    let many = "insert into reveille.jobs (kind, queue, available_at)
            select 'k', 'q' || n % 150, now() + case when n % 3 = 0 then '1 hour' else '-1 hour' end::interval
            from generate_series(1, 30000) as n;
        analyze reveille.jobs";
    database.run(many).await;
    let sums = database.admin().queue_sums().await.unwrap().decode::<Value>("sums").unwrap();
    let (ready, delayed) = (sums["ready"].as_i64().unwrap(), sums["delayed"].as_i64().unwrap());
    assert!((18_000..22_000).contains(&ready) && (8_000..12_000).contains(&delayed), "{sums}");
    assert_eq!(sums["estimated"], json!(true));
}
