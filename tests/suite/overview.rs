//! The lists of `reveille top`.

use reveille::admin::{OverviewList, Record};

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
