//! Workers do the upkeep: one chore at a time, in slices, without delaying other sessions.

use reveille::driver::Driver;
use reveille::driver::Postgres;
use serde_json::json;

use crate::harness::{TestDatabase, database, soon};

/// Inserts a finished job for each number that the query `hours` returns. The job ended this number of hours ago, and
/// has this number as its id.
async fn finish(database: &TestDatabase, queue: &str, hours: &str) {
    let insert = format!(
        "insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures, \
            max_attempts, available_at,
            created_at, outcome, finished_at)
        select extract(epoch from now() - age * '1 hour'::interval)::bigint / 86400 % 32, age, '{queue}', 'k', '{{}}',
        2, 1, 0, 20,
            now(), now(), 'completed', now() - age * '1 hour'::interval
        from ({hours}) as ended (age)"
    );
    database.run(&insert).await;
}

/// Returns a worker's driver. Its first round of upkeep does every chore.
fn new_worker(database: &TestDatabase) -> Postgres {
    Postgres::new(database.database.clone()).unwrap()
}

async fn kept(database: &TestDatabase, table: &str, queue: &str) -> serde_json::Value {
    database.value(&format!("select jsonb_agg(id order by id) from reveille.{table} where queue = '{queue}'")).await
}

#[tokio::test]
async fn a_strangers_advisory_lock_does_not_stop_upkeep() {
    let database = database().await;
    let stranger = database.client().await;
    stranger.batch_execute("select pg_advisory_lock(hashtextextended('reveille.prune', 0))").await.unwrap();
    database.run("insert into reveille.rates values ('q', '', now() - '1 hour'::interval)").await;
    assert_eq!(soon("upkeep ends", database.admin().prune()).await.unwrap(), Some(0));
    assert_eq!(database.value("select count(*) from reveille.rates").await, 0);
}

#[tokio::test]
async fn a_chore_that_another_worker_does_is_skipped() {
    let database = database().await;
    database.run("insert into reveille.rates values ('q', '', now() - '1 hour'::interval)").await;
    database
        .run("insert into reveille.counters (queue, started_at, worker) values ('q', now() - '9 days'::interval, 0)")
        .await;
    let other = database.client().await;
    other
        .batch_execute("begin; select from reveille.chores where name in ('rates', 'old days') for update")
        .await
        .unwrap();
    let pruned = soon("upkeep ends", database.admin().prune()).await.unwrap();
    assert_eq!(pruned, None, "another session does the chore of the old days");
    assert_eq!(database.value("select count(*) from reveille.rates").await, 1);
    assert_eq!(database.value("select count(*) from reveille.counters").await, 0);
    other.batch_execute("commit").await.unwrap();
    assert_eq!(database.admin().prune().await.unwrap(), Some(0));
    assert_eq!(database.value("select count(*) from reveille.rates").await, 0);
}

#[tokio::test]
async fn a_failing_chore_keeps_the_slices_before_the_failure() {
    let database = database().await;
    let insert =
        "insert into reveille.unique_periods select 'k', n, n, now() - '1 day'::interval + n * '1 second'::interval
        from generate_series(1, 2500) as n";
    database.run(insert).await;
    // Makes the deletion of a row in the last slice fail.
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
        create trigger refuse before delete on reveille.unique_periods for each row
        when (old.unique_key = '2500') execute function refuse()";
    database.run(refuse).await;
    database.run("insert into reveille.queues (name, dead_retention) values ('q', '0')").await;
    database.admin().prune().await.unwrap_err();
    assert_eq!(database.value("select count(*) from reveille.unique_periods").await, 500);
    let since = "select done_at is not null from reveille.chores where name = 'dead jobs'";
    assert_eq!(database.value(since).await, true, "the chores after the failing chore are done");
}

#[tokio::test]
async fn finished_jobs_are_kept_for_their_queues_retention() {
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('short', '1 hour'), ('long', '30 days')").await;
    for queue in ["short", "usual", "long"] {
        finish(&database, queue, "values (0), (2), (23), (25), (49), (700), (719)").await;
    }
    database.admin().prune().await.unwrap();
    assert_eq!(kept(&database, "finished_jobs", "short").await, json!([0]));
    assert_eq!(kept(&database, "finished_jobs", "usual").await, json!([0, 2, 23]));
    assert_eq!(kept(&database, "finished_jobs", "long").await, json!([0, 2, 23, 25, 49, 700, 719]));
}

#[tokio::test]
async fn a_shortened_retention_applies_to_older_finished_jobs() {
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('q', '30 days')").await;
    finish(&database, "q", "values (1), (100), (500)").await;
    let driver = new_worker(&database);
    driver.prune().await.unwrap();
    assert_eq!(kept(&database, "finished_jobs", "q").await, json!([1, 100, 500]));
    database
        .run(
            "update reveille.queues set retention = '3 hours'; insert into reveille.queues (name, retention) \
        values ('r', '30 days')",
        )
        .await;
    // Makes the chores seem to have begun 21 minutes earlier, because workers search each day of the history at most
    // once in 20 minutes.
    database.run("update reveille.chores set began_at = began_at - '21 minutes'::interval").await;
    new_worker(&database).prune().await.unwrap();
    assert_eq!(kept(&database, "finished_jobs", "q").await, json!([1]));
}

/// Leaves 149,850 dead rows among the live jobs, with autovacuum off.
async fn churn(database: &TestDatabase) {
    let churn = "alter table reveille.jobs set (autovacuum_enabled = false);
        insert into reveille.jobs (queue, kind) select 'q', 'k' from generate_series(1, 150000);
        delete from reveille.jobs where id % 1000 <> 0";
    database.run(churn).await;
    database.until("select pg_stat_get_dead_tuples('reveille.jobs'::regclass) > 100000").await;
}

#[tokio::test]
async fn upkeep_vacuums_and_analyzes_jobs_without_autovacuum() {
    let database = database().await;
    churn(&database).await;
    assert_eq!(database.value("select count(*) from pg_statistic where starelid = 'reveille.jobs'::regclass").await, 0);
    let driver = new_worker(&database);
    driver.prune().await.unwrap();
    database.until("select pg_stat_get_dead_tuples('reveille.jobs'::regclass) < 1000").await;
    let known = "select count(*) > 5 from pg_statistic where starelid = 'reveille.jobs'::regclass";
    assert_eq!(database.value(known).await, true);
}

#[tokio::test]
async fn a_vacuum_that_can_remove_nothing_is_not_repeated_at_once() {
    let database = database().await;
    let holder = database.client().await;
    holder.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    churn(&database).await;
    let driver = new_worker(&database);
    let vacuums = "select pg_stat_get_vacuum_count('reveille.jobs'::regclass)";
    driver.prune().await.unwrap();
    database.until(&format!("{vacuums} = 1")).await;
    // Sets the time of the vacuum to now, so that the test's own duration does not matter.
    database.run("update reveille.chores set began_at = now(), done_at = now() where name = 'vacuum'").await;
    driver.prune().await.unwrap();
    let rests = "select began_at > now() - interval '1 minute' and done_at >= began_at from reveille.chores \
        where name = 'vacuum'";
    assert_eq!(database.value(rests).await, true);
    holder.batch_execute("commit").await.unwrap();
    database
        .run(
            "update reveille.chores set began_at = began_at - interval '1 hour', done_at = done_at - interval '1 hour'",
        )
        .await;
    driver.prune().await.unwrap();
    database.until("select pg_stat_get_dead_tuples('reveille.jobs'::regclass) < 1000").await;
    assert_eq!(database.value(vacuums).await, 2);
}

#[tokio::test]
async fn inserts_alone_make_no_autovacuum_of_the_history() {
    let database = database().await;
    let set = "select count(*) from pg_class where relname like 'finished_jobs_%' and relkind = 'r'
        and reloptions @> '{autovacuum_vacuum_insert_threshold=-1}'
        and not exists (select from unnest(reloptions) as option where option ~ 'enabled|freeze')";
    assert_eq!(database.value(set).await, 32);
    let jobs =
        "select reloptions @> '{autovacuum_vacuum_cost_delay=0}' from pg_class where oid = 'reveille.jobs'::regclass";
    assert_eq!(database.value(jobs).await, true);
}

#[tokio::test]
async fn workers_prune_in_slices_and_at_most_every_twenty_minutes() {
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('q', '1 hour'), ('r', '30 days')").await;
    let driver = new_worker(&database);
    // Inserts rows on more pages than one slice reads.
    finish(&database, "q", "select 2 from generate_series(1, 60000)").await;
    let pages = "select max(pg_relation_size(oid)) / 8192 from pg_class where relname like 'finished_jobs_%'";
    assert!(database.value(pages).await.as_i64().unwrap() > 512);
    driver.prune().await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 0);
    finish(&database, "q", "values (2)").await;
    new_worker(&database).prune().await.unwrap();
    assert_eq!(kept(&database, "finished_jobs", "q").await, json!([2]));
    database.admin().prune().await.unwrap();
    assert_eq!(
        database.value("select count(*) from reveille.finished_jobs").await,
        0,
        "an administrator's prune does everything at any time"
    );
}

#[tokio::test]
async fn a_locked_finished_job_is_pruned_later_and_delays_no_other() {
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('q', '1 hour'), ('r', '30 days')").await;
    finish(&database, "q", "values (50), (51), (52)").await;
    let holder = database.client().await;
    holder.batch_execute("begin; select from reveille.finished_jobs where id = 51 for update").await.unwrap();
    soon("upkeep ends", database.admin().prune()).await.unwrap();
    assert_eq!(kept(&database, "finished_jobs", "q").await, json!([51]));
    holder.batch_execute("commit").await.unwrap();
    database.admin().prune().await.unwrap();
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 0);
}

#[tokio::test]
async fn dead_jobs_are_kept_for_their_queues_retention_or_for_ever() {
    let database = database().await;
    database
        .run(
            "insert into reveille.queues (name, dead_retention) \
        values ('short', '2 days'), ('none', '0'), ('unset', null)",
        )
        .await;
    for queue in ["short", "none", "unset", "unknown"] {
        let insert = format!(
            "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
                available_at,
                created_at, reason, finished_at)
            select nextval('reveille.jobs_id_seq'), '{queue}', 'k' || n % 3, '{{}}', 2, 1, 1, 1, now(), now(),
                case when n % 2 = 0 then 'lost' else 'failed' end, now() - n * '1 hour'::interval - '1 minute'::interval
            from generate_series(0, 2499) as n"
        );
        database.run(&insert).await;
    }
    database.admin().prune().await.unwrap();
    let left = "select jsonb_object_agg(queue, jobs) from (select queue, count(*) as jobs from reveille.dead_jobs \
        group by queue) as left_over";
    assert_eq!(database.value(left).await, json!({"short": 48, "unset": 2500, "unknown": 2500}));
}
