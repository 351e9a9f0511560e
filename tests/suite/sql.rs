//! The SQL for callers in any language: plain inserts, functions and constraints.

use futures::StreamExt;
use serde_json::{Value, json};
use tokio_postgres::{AsyncMessage, NoTls};

use crate::harness::{TestDatabase, database, soon};

/// Reserves all jobs for a worker that does not run.
async fn reserve(database: &TestDatabase) {
    database.run("update reveille.jobs set reserved_at = now(), reserved_by = 7, attempts = attempts + 1").await;
}

/// Returns the bells that ring while each of these statements runs in a separate session.
async fn bells(database: &TestDatabase, statements: &[&str]) -> Vec<String> {
    let (client, mut connection) = tokio_postgres::connect(&database.address, NoTls).await.unwrap();
    let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
    let listening = tokio::spawn(async move {
        let mut bells = Vec::new();
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(bell) = message {
                if bell.payload() == "the end" {
                    break;
                }
                bells.push(bell.payload().to_owned());
            }
        }
        bells
    });
    client.batch_execute("listen \"reveille.bell\"").await.unwrap();
    for statement in statements {
        database.run(statement).await;
    }
    database.run("notify \"reveille.bell\", 'the end'").await;
    soon("all bells arrive", listening).await.unwrap()
}

#[tokio::test]
async fn a_plain_insert_is_a_full_citizen() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind, payload) values ('hello', '{\"a\": 1}')").await;
    let row = "select jsonb_build_array(queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at <= now(), reserved_at is null) from reveille.jobs";
    assert_eq!(database.value(row).await, json!(["default", "hello", {"a": 1}, 2, 0, 0, 20, true, true]));
}

#[tokio::test]
async fn enqueue_takes_named_arguments() {
    let database = database().await;
    let call = "select reveille.enqueue(kind => 'hello', payload => '[1]', queue => 'q', delay => '1 hour', \
        priority => 1::smallint,
        max_attempts => 2, timeout => '3 s', key => 'k', tags => array['t'], metadata => '{\"m\": 1}')";
    database.run(call).await;
    let row = "select jsonb_build_array(queue, kind, payload, priority, max_attempts, timeout, key, tags, metadata,
        available_at - created_at) from reveille.jobs";
    let expected = json!(["q", "hello", [1], 1, 2, "00:00:03", "k", ["t"], {"m": 1}, "01:00:00"]);
    assert_eq!(database.value(row).await, expected);
}

#[tokio::test]
async fn enqueue_returns_the_id_and_whether_the_job_existed() {
    let database = database().await;
    let call = "select to_jsonb(e) from reveille.enqueue(kind => 'hello', unique_key => 'k') as e";
    assert_eq!(database.value(call).await, json!({"id": 1, "existed": false}));
    assert_eq!(database.value(call).await, json!({"id": 1, "existed": true}));
}

#[tokio::test]
async fn enqueue_refuses_arguments_that_make_no_sense() {
    let database = database().await;
    let refusal = async |arguments: &str| database.refusal(&format!("select reveille.enqueue({arguments})")).await;
    assert!(refusal("kind => 'k', delay => '1 s', available_at => now()").await.contains("not both"));
    assert!(refusal("kind => 'k', delay => '-1 s'").await.contains("must not be negative"));
    assert!(refusal("kind => 'k', unique_key => 'k', unique_mode => 'maybe'").await.contains("unique_mode"));
    assert!(refusal("kind => 'k', unique_key => 'k', unique_until => 'never'").await.contains("unique_until"));
    assert!(refusal("kind => ''").await.contains("kind_has_1_to_128_characters"));
    assert!(refusal("kind => null").await.contains("kind"));
}

#[tokio::test]
async fn a_large_payload_is_refused_unless_the_limit_is_raised() {
    let database = database().await;
    let call = "select reveille.enqueue(kind => 'k', payload => to_jsonb(repeat('x', 2000000)))";
    assert!(database.refusal(call).await.contains("larger than the limit"));
    database.run(&format!("set reveille.max_payload = '3000000'; {call}")).await;
    database.run(&call.replace("'k'", "'k', max_payload => 3000000")).await;
    let lowered = format!("set reveille.max_payload = 3000000; {}", call.replace("'k'", "'k', max_payload => 9"));
    assert!(database.refusal(&lowered).await.contains("larger than the limit of 9 bytes"));
    let insert = "insert into reveille.jobs (kind, payload) values ('k', to_jsonb(repeat('x', 10000000)))";
    assert!(database.refusal(insert).await.contains("payload_is_at_most_8_mib"));
}

#[tokio::test]
async fn a_value_that_is_small_only_when_compressed_is_refused() {
    let database = database().await;
    let bomb = "create table bomb as select jsonb_build_object('x', repeat('a', 10000000)) as p, \
        array_fill('b'::text, array[64]) as t;
        update bomb set t = array(select repeat(tag, 257) from unnest(t) as tag)";
    database.run(bomb).await;
    assert_eq!(
        database.value("select pg_column_size(p) < 200000 from bomb").await,
        true,
        "the large payload is stored compressed"
    );
    for (columns, values, name) in [
        ("kind, payload", "'k', p", "payload_is_at_most_8_mib"),
        ("kind, metadata", "'k', p", "metadata_is_at_most_256_kib"),
        ("kind, tags", "'k', t", "tags_are_at_most_16_kib"),
    ] {
        let insert = format!("insert into reveille.jobs ({columns}) select {values} from bomb");
        assert!(database.refusal(&insert).await.contains(name), "{columns}");
        let update = format!(
            "insert into reveille.jobs (kind) values ('k'); update reveille.jobs \
                set ({columns}) = (select {values} from bomb)"
        );
        assert!(database.refusal(&update).await.contains(name), "{columns}");
        let schedule =
            format!("insert into reveille.schedules (name, every, {columns}) select 's', '1 hour', {values} from bomb");
        assert!(database.refusal(&schedule).await.contains(name), "{columns}");
    }
}

#[tokio::test]
async fn a_running_unique_job_is_not_replaced() {
    let database = database().await;
    database.run("select reveille.enqueue(kind => 'k', payload => '1', unique_key => 'u')").await;
    reserve(&database).await;
    let replace = "select existed from reveille.enqueue(kind => 'k', payload => '2', unique_key => 'u', \
        unique_mode => 'debounce')";
    assert_eq!(database.value(replace).await, true);
    assert_eq!(database.value("select payload from reveille.jobs").await, 1);
}

#[tokio::test]
async fn cancel_returns_what_became_of_the_job() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('a'), ('b')").await;
    assert_eq!(database.value("select reveille.cancel(1)").await, "cancelled");
    assert_eq!(database.value("select reveille.cancel(1)").await, "finished");
    assert_eq!(database.value("select outcome from reveille.finished_jobs where id = 1").await, "cancelled");
    reserve(&database).await;
    assert_eq!(database.value("select reveille.cancel(id => 2)").await, "requested");
    assert_eq!(database.value("select cancel_requested_at is not null from reveille.jobs").await, true);
    assert_eq!(database.value("select reveille.cancel(99)").await, "unknown");
}

#[tokio::test]
async fn a_cancelled_job_of_a_queue_without_history_leaves_no_trace() {
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('default', '0')").await;
    database.run("insert into reveille.jobs (kind) values ('a')").await;
    assert_eq!(database.value("select reveille.cancel(1)").await, "cancelled");
    assert_eq!(database.value("select reveille.cancel(1)").await, "unknown");
}

/// Makes a dead job with the id 1, a unique key and two failures.
async fn bury(database: &TestDatabase) {
    let bury = "insert into reveille.jobs (kind, unique_key) values ('k', 'u');
        with gone as (delete from reveille.jobs returning *)
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at,
            created_at, unique_key, errors, reason)
        select id, queue, kind, payload, priority, 2, 2, 2, available_at, created_at, unique_key,
        '[{\"error\": \"no\"}]', 'failed'
        from gone";
    database.run(bury).await;
}

#[tokio::test]
async fn retry_revives_a_dead_job_with_its_id_and_past() {
    let database = database().await;
    bury(&database).await;
    assert_eq!(database.value("select reveille.cancel(1)").await, "dead");
    assert_eq!(database.value("select reveille.retry(1)").await, "revived");
    let row = "select jsonb_build_array(id, attempts, failures, errors, available_at <= now()) from reveille.jobs";
    assert_eq!(database.value(row).await, json!([1, 2, 0, [{"error": "no"}], true]));
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 0);
}

#[tokio::test]
async fn a_revival_that_collides_is_refused_and_changes_nothing() {
    let database = database().await;
    bury(&database).await;
    database.run("insert into reveille.jobs (kind, unique_key) values ('k', 'u')").await;
    assert!(database.refusal("select reveille.retry(1)").await.contains("unique key"));
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 1);
}

#[tokio::test]
async fn retry_makes_a_delayed_job_due() {
    let database = database().await;
    database.run("select reveille.enqueue(kind => 'k', delay => '1 day')").await;
    assert_eq!(database.value("select reveille.retry(1)").await, "due");
    assert_eq!(database.value("select available_at <= now() from reveille.jobs").await, true);
    reserve(&database).await;
    assert_eq!(database.value("select reveille.retry(1)").await, "running");
    assert_eq!(database.value("select reveille.retry(99)").await, "unknown");
}

#[tokio::test]
async fn pausing_twice_keeps_the_first_time() {
    let database = database().await;
    database.run("select reveille.pause('q')").await;
    let first = database.value("select paused_at from reveille.queues").await;
    database.run("select reveille.pause(queue => 'q')").await;
    assert_eq!(database.value("select paused_at from reveille.queues").await, first);
    database.run("select reveille.resume('q')").await;
    assert_eq!(database.value("select paused_at is null from reveille.queues").await, true);
}

#[tokio::test]
async fn constraints_keep_bad_rows_out() {
    let database = database().await;
    let bad = [
        ("kind", "''", "kind_has"),
        ("kind", "repeat('k', 129)", "kind_has"),
        ("queue", "''", "queue_has"),
        ("priority", "4", "priority_is"),
        ("priority", "-1", "priority_is"),
        ("attempts", "-1", "attempts_is"),
        ("failures", "1", "failures_is"),
        ("max_attempts", "0", "max_attempts_is"),
        ("available_at", "'infinity'", "times_are_finite"),
        ("created_at", "'-infinity'", "times_are_finite"),
        ("reserved_at", "now()", "reserved_at_and_by"),
        ("unique_key", "''", "unique_key_has"),
        ("unique_until", "'finished'", "unique_until_is"),
        ("key", "repeat('k', 513)", "key_has"),
        ("timeout", "'0'", "timeout_is"),
        ("tags", "array[null::text]", "tags_are"),
        ("metadata", "'[]'", "metadata_is"),
        ("errors", "'{}'", "errors_is"),
    ];
    for (column, value, constraint) in bad {
        let columns = if column == "kind" { "kind".to_owned() } else { format!("kind, {column}") };
        let values = if column == "kind" { value.to_owned() } else { format!("'k', {value}") };
        let refusal = database.refusal(&format!("insert into reveille.jobs ({columns}) values ({values})")).await;
        assert!(refusal.contains(constraint), "{column} = {value}: {refusal}");
    }
    assert!(database.refusal("insert into reveille.jobs (id, kind) values (1, 'k')").await.contains("id"));
    // One bad job among many makes the whole insert fail. A job that replaces another job is checked too.
    let many = "insert into reveille.jobs (kind, priority) select 'k', case n when 500 then 4 else 2 end \
        from generate_series(1, 1000) as n";
    assert!(database.refusal(many).await.contains("priority_is"));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
    database.run("select reveille.enqueue(kind => 'k', unique_key => 'u')").await;
    let replace = "select reveille.enqueue(kind => 'k', unique_key => 'u', unique_mode => 'replace', metadata => '[]')";
    assert!(database.refusal(replace).await.contains("metadata_is"));
}

#[tokio::test]
async fn constraints_let_good_rows_in_and_keep_them_good() {
    let database = database().await;
    let all = "insert into reveille.jobs (queue, kind, payload, priority, max_attempts, available_at, unique_key, \
        unique_until, key, timeout, tags, metadata)
        values (repeat('ü', 128), repeat('k', 128), '[]', 3, 1, 'epoch', repeat('u', 512), 'started',
        repeat('k', 512), '1 second', array['a'], '{}')";
    database.run(all).await;
    database
        .run(
            "insert into reveille.jobs (kind, reserved_at, reserved_by, attempts, failures, errors) \
        values ('k', now(), 1, 2, 2, '[]')",
        )
        .await;
    let bad =
        [("kind = ''", "kind_has"), ("available_at = 'infinity'", "times_are_finite"), ("priority = 4", "priority_is")];
    for (change, constraint) in bad {
        let refusal = database.refusal(&format!("update reveille.jobs set {change} where attempts = 0")).await;
        assert!(refusal.contains(constraint), "{change}: {refusal}");
    }
    // An update that is no claim is checked too if it changes a column that a claim sets.
    let unclaimed = [
        ("attempts = -1", "attempts_is"),
        ("reserved_at = now()", "reserved_at_and_by"),
        ("unique_key = ''", "unique_key_has"),
        ("unique_until = 'never'", "unique_until_is"),
    ];
    for (change, constraint) in unclaimed {
        let refusal = database.refusal(&format!("update reveille.jobs set {change} where attempts = 0")).await;
        assert!(refusal.contains(constraint), "{change}: {refusal}");
    }
    // Jobs that were claimed before are checked too.
    for (change, constraint) in bad {
        let refusal = database.refusal(&format!("update reveille.jobs set {change} where attempts > 0")).await;
        assert!(refusal.contains(constraint), "{change}: {refusal}");
    }
}

/// A session keeps the plan of the check. If the plan were made for a large insert, the server would compile it at each
/// later insert.
#[tokio::test]
async fn after_a_large_insert_small_ones_are_checked_quickly() {
    let database = database().await;
    let client = database.client().await;
    let large = "set jit_above_cost = 10; insert into reveille.jobs (kind) select 'k' from generate_series(1, 100000)";
    client.batch_execute(large).await.unwrap();
    let insert = "explain (analyze, format json) insert into reveille.jobs (kind) values ('k')";
    let mut quickest = f64::MAX;
    for _ in 0..20 {
        let plan: Value = client.query_one(insert, &[]).await.unwrap().get(0);
        let triggers = plan[0]["Triggers"].as_array().unwrap();
        let check = triggers.iter().find(|trigger| trigger["Trigger Name"] == "check_inserted").unwrap();
        quickest = quickest.min(check["Time"].as_f64().unwrap());
    }
    assert!(quickest < 2.0, "{quickest} ms; without compiling, about 0.1 ms");
}

#[tokio::test]
async fn no_search_path_lets_a_bad_job_in() {
    let database = database().await;
    let client = database.client().await;
    let evil = "create schema evil;
        create function evil.length(text) returns int language sql immutable as 'select 1';
        create function evil.isfinite(timestamptz) returns boolean language sql immutable as 'select true';
        create function evil.gt(int, int) returns boolean language sql immutable as 'select false';
        create operator evil.> (leftarg = int, rightarg = int, function = evil.gt);
        set search_path = evil, pg_catalog";
    client.batch_execute(evil).await.unwrap();
    for (columns, values) in
        [("kind", "repeat('k', 129)"), ("kind, available_at", "'k', 'infinity'"), ("kind, failures", "'k', 1")]
    {
        let insert = format!("insert into reveille.jobs ({columns}) values ({values})");
        let error = client.batch_execute(&insert).await.unwrap_err();
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::CHECK_VIOLATION), "{insert}");
    }
}

#[tokio::test]
async fn a_setting_that_cannot_be_kept_is_refused() {
    let database = database().await;
    let refusal = database.refusal("insert into reveille.queues (name, max_running) values ('q', 0)").await;
    assert!(refusal.contains("limits_are_positive"), "{refusal}");
    let refusal = database.refusal("insert into reveille.queues (name, retention) values ('q', '31 days')").await;
    assert!(refusal.contains("retention_is_0_to_30_days"), "{refusal}");
}

/// Registers a worker that sleeps on these queues.
async fn sleeper(database: &TestDatabase, queues: &[&str]) {
    let worker =
        "insert into reveille.workers (id, host, pid, version, queues, slots) values (1, 'h', 1, 'v', '{}', 1)";
    database.run(worker).await;
    for queue in queues {
        database.run(&format!("insert into reveille.sleepers (queue, worker) values ('{queue}', 1)")).await;
    }
}

#[tokio::test]
async fn the_bell_rings_only_for_sleeping_workers() {
    let database = database().await;
    sleeper(&database, &["slept_on"]).await;
    let awake = "insert into reveille.jobs (kind, queue) values ('k', 'awake')";
    let slept_on = "insert into reveille.jobs (kind, queue) values ('k', 'slept_on')";
    assert_eq!(bells(&database, &[awake, slept_on]).await, ["slept_on"]);
    let gone = "delete from reveille.workers";
    assert!(bells(&database, &[gone, slept_on]).await.is_empty(), "no bell rings for a worker whose row is gone");
}

#[tokio::test]
async fn a_transaction_with_an_older_snapshot_always_rings() {
    let database = database().await;
    sleeper(&database, &["elsewhere"]).await;
    for isolation in ["repeatable read", "serializable"] {
        let insert =
            format!("begin isolation level {isolation}; insert into reveille.jobs (kind) values ('k'); commit");
        assert_eq!(bells(&database, &[&insert]).await, ["default"], "{isolation}");
    }
}

#[tokio::test]
async fn an_insert_rings_once_for_each_queue_however_many_rows() {
    let database = database().await;
    let insert = "insert into reveille.jobs (kind, queue) select 'k', 'q' || n % 2 from generate_series(1, 100) as n";
    sleeper(&database, &["q0", "q1"]).await;
    let mut bells = bells(&database, &[insert]).await;
    bells.sort();
    assert_eq!(bells, ["q0", "q1"]);
}

#[tokio::test]
async fn every_call_that_makes_a_job_due_rings() {
    let database = database().await;
    let delayed = "select reveille.enqueue(kind => 'k', queue => 'a', delay => '1 hour', unique_key => 'u')";
    let debounce = "select reveille.enqueue(kind => 'k', queue => 'b', unique_key => 'u', unique_mode => 'debounce')";
    sleeper(&database, &["a", "b", "c"]).await;
    let rung = bells(&database, &[delayed, debounce, "select reveille.retry(1)", "select reveille.resume('c')"]).await;
    assert_eq!(rung, ["a", "a", "a", "c"], "a debounced job keeps its queue");
}

#[tokio::test]
async fn an_update_that_makes_a_job_due_sooner_or_moves_it_rings() {
    let database = database().await;
    let rows = "insert into reveille.jobs (kind, queue, available_at, unique_key) \
        select 'k', 'a', now() + '1 hour'::interval, n::text
        from generate_series(1, 3) as n";
    database.run(rows).await;
    sleeper(&database, &["a", "b"]).await;
    let again = "insert into reveille.jobs (kind, queue, unique_key) values ('k', 'a', '3')
        on conflict (kind, unique_key) where unique_key is not null do update set";
    let statements = [
        "update reveille.jobs set available_at = now()",
        "update reveille.jobs set queue = 'b' where id = 1",
        "update reveille.jobs set queue = 'no sleeper' where id = 2",
        &format!("{again} available_at = now() - interval '1 second'"),
        &format!("{again} queue = 'b'"),
    ];
    // Each statement rings once per queue, for any number of rows. The inserts insert no row, so they ring no bell.
    assert_eq!(bells(&database, &statements).await, ["a", "b", "a", "b"]);
    let silent = [
        "update reveille.jobs set available_at = now() + interval '1 hour'",
        "update reveille.jobs set priority = 0, tags = array['t']",
        "set reveille.bell = 'off'; update reveille.jobs set available_at = now()",
        "update reveille.jobs set reserved_at = now(), reserved_by = 7, attempts = 1",
        "update reveille.jobs set available_at = now() - interval '1 day'",
        "update reveille.jobs set reserved_at = null, reserved_by = null, available_at = now() - interval '2 days'",
    ];
    assert_eq!(
        bells(&database, &silent).await,
        Vec::<String>::new(),
        "updates that make no waiting job due sooner, or with the bell off"
    );
}

#[tokio::test]
async fn a_user_who_may_only_update_jobs_rings_too() {
    let database = database().await;
    let role = format!("clerk_{:08x}", fastrand::u32(..));
    let rows = format!(
        "insert into reveille.jobs (kind, available_at) values ('k', now() + '1 hour'::interval);
        create role {role}; grant usage on schema reveille to {role};
        grant select, update on reveille.jobs to {role}; grant execute on all functions in schema reveille to {role}"
    );
    database.run(&rows).await;
    sleeper(&database, &["default"]).await;
    let update = format!("set role {role}; update reveille.jobs set available_at = now()");
    assert_eq!(bells(&database, &[&update]).await, ["default"]);
    database.run(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn bells_can_be_silenced_by_transaction_and_by_queue() {
    let database = database().await;
    let silent = "begin; set local reveille.bell = 'off'; insert into reveille.jobs (kind) values ('k'); commit";
    let by_queue = "insert into reveille.queues (name, bell) values ('quiet', false)";
    let quiet = "insert into reveille.jobs (kind, queue) values ('k', 'quiet')";
    let rolled_back = "begin; insert into reveille.jobs (kind) values ('k'); rollback";
    let after = "insert into reveille.jobs (kind, queue) values ('k', 'after')";
    sleeper(&database, &["default", "quiet", "after"]).await;
    assert_eq!(bells(&database, &[silent, by_queue, quiet, rolled_back, after]).await, ["after"]);
}

#[tokio::test]
async fn a_queues_bell_is_off_for_present_and_later_sleepers() {
    let database = database().await;
    sleeper(&database, &["q"]).await;
    let job = "insert into reveille.jobs (kind, queue) values ('k', 'q')";
    let (off, on) = ("update reveille.queues set bell = false", "update reveille.queues set bell = true");
    let asleep_anew = "delete from reveille.sleepers; insert into reveille.sleepers (queue, worker) values ('q', 1)";
    assert_eq!(bells(&database, &["insert into reveille.queues (name) values ('q')", job]).await, ["q"]);
    assert!(bells(&database, &[off, job, asleep_anew, job]).await.is_empty());
    assert_eq!(bells(&database, &[on, job]).await, ["q"], "the worker went to sleep while the bell was off");
    assert_eq!(
        bells(&database, &[off, "delete from reveille.queues", job]).await,
        ["q"],
        "a queue without a row has its bell on"
    );
}

#[tokio::test]
async fn a_hostile_search_path_changes_nothing() {
    let database = database().await;
    let hostile = "create schema evil;
        create table evil.jobs (like reveille.jobs); create table evil.queues (name text);
        create function evil.now() returns timestamptz language sql as $$ select 'epoch'::timestamptz $$;
        create function evil.pg_notify(text, text) returns void language sql as $$ select 1 / 0 $$;
        create function evil.coalesce(int, int) returns int language sql as $$ select 1 / 0 $$;
        create function evil.eq(text, text) returns boolean language sql as $$ select 1 / 0 = 1 $$;
        create operator evil.= (leftarg = text, rightarg = text, function = evil.eq);
        set search_path = evil, pg_catalog;
        insert into reveille.jobs (kind) values ('k');
        select reveille.enqueue(kind => 'k', unique_key => 'u');
        select reveille.enqueue(kind => 'k', unique_key => 'u', unique_mode => 'debounce');
        select reveille.cancel(1); select reveille.retry(2); select reveille.pause('q'); select reveille.resume('q');
        select * from reveille.queue_stats";
    database.run(hostile).await;
    assert_eq!(database.value("select count(*) from reveille.jobs where created_at > '2020-01-01'").await, 1);
}

#[tokio::test]
async fn every_table_column_function_and_view_is_explained() {
    let database = database().await;
    let tables = "select coalesce(jsonb_agg(relname), '[]') from pg_class
        where relnamespace = 'reveille'::regnamespace and relkind in ('r', 'p', 'v') and not relispartition
        and relname <> 'schema_history' and obj_description(oid, 'pg_class') is null";
    assert_eq!(database.value(tables).await, json!([]));
    let columns = "select coalesce(jsonb_agg(relname || '.' || attname), '[]') from pg_attribute
        join pg_class on pg_class.oid = attrelid
        where relnamespace = 'reveille'::regnamespace and relkind in ('r', 'p') and not relispartition
        and relname not in ('schema_history', 'dead_jobs', 'finished_jobs') and attnum > 0
        and col_description(attrelid, attnum) is null";
    assert_eq!(database.value(columns).await, json!([]));
    let functions = "select coalesce(jsonb_agg(proname), '[]') from pg_proc
        where pronamespace = 'reveille'::regnamespace and obj_description(oid, 'pg_proc') is null";
    assert_eq!(database.value(functions).await, json!([]));
}
