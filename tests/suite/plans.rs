//! A session keeps each plan that it has made. The plan must stay good at every later size of the tables.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{TestDatabase, database, note, reporting_worker};

/// The tables that may become large. A statement of a worker may read only a few of their rows.
const LARGE: [&str; 4] = ["jobs", "unique_periods", "dead_jobs", "finished_jobs"];
/// The states of these tables in which a session may plan. Each state builds on the state before it.
const STATES: [(&str, &str); 6] = [
    ("never analyzed", "truncate reveille.jobs, reveille.unique_periods"),
    ("vacuumed while empty", ""),
    (
        "few",
        "insert into reveille.jobs (queue, kind) select 'q', 'k' from generate_series(1, 300);
        insert into reveille.unique_periods select 'k', n, n, now() + n * interval '1 second'
        from generate_series(1, 300) as n",
    ),
    (
        "some of each",
        "insert into reveille.jobs (queue, kind, key, reserved_at, reserved_by)
        select 'q', 'k', n % 9, case when n % 9 = 0 then now() end, case when n % 9 = 0 then 1 end
        from generate_series(1, 1000) as n",
    ),
    (
        "parked",
        "insert into reveille.pauses (kind) select n::text from generate_series(1, 500) as n;
        insert into reveille.jobs (queue, kind, paused_by) select 'q', '1', 1 + n % 2 \
            from generate_series(1, 5000) as n",
    ),
    (
        "many",
        "insert into reveille.jobs (queue, kind, key) select 'q', 'k', nullif(n % 900, 0) \
            from generate_series(1, 50000) as n;
        insert into reveille.unique_periods select 'many', n, n, now() + n * interval '1 second'
        from generate_series(1, 50000) as n",
    ),
];
/// The statements that sessions plan at each run.
const PLANNED_EACH_TIME: [&str; 3] = ["orphans", "rescue", "vouch"];

pub fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the part of a source between the texts `from` and `to`.
fn part<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).unwrap().1.split_once(to).unwrap().0
}

/// Returns the statements of a worker, with their names.
fn statements() -> Vec<(String, String)> {
    let source_of_names = source("src/driver/postgres/statements.rs");
    let names = part(&source_of_names, "\nstatements! {", "#[cfg").split(',').map(str::trim);
    let kept = names.filter(|name| !name.is_empty() && !PLANNED_EACH_TIME.contains(name));
    kept.map(|name| (name.to_owned(), source(&format!("sql/{name}.sql")))).collect()
}

/// Returns SQL with the settings of a worker's sessions.
fn settings() -> String {
    let source = source("src/driver/postgres/session.rs");
    let settings = part(&source, "const SETTINGS: [&str; 9] = [", "];");
    settings.split('"').skip(1).step_by(2).map(|setting| format!("set {setting};")).collect()
}

/// Returns the reads of the large tables by each statement, in order: the index, and the condition on the index.
async fn plans(database: &TestDatabase) -> Vec<(String, Vec<String>)> {
    let client = database.client().await;
    client.batch_execute(&settings()).await.unwrap();
    let mut plans = Vec::new();
    for (name, sql) in statements() {
        client.batch_execute(&format!("prepare {name} as {sql}")).await.unwrap();
        let count = "select coalesce(cardinality(parameter_types), 0) from pg_prepared_statements where name = $1";
        let count: i32 = client.query_one(count, &[&name]).await.unwrap().get(0);
        let nulls = vec!["null"; count as usize].join(", ");
        let nulls = if count > 0 { format!("({nulls})") } else { nulls };
        let plan = client.query_one(&format!("explain (format json) execute {name}{nulls}"), &[]).await.unwrap();
        let mut scans = Vec::new();
        collect_scans(&plan.get::<_, Value>(0)[0]["Plan"], &mut scans);
        plans.push((name, scans));
    }
    plans
}

fn collect_scans(node: &Value, scans: &mut Vec<String>) {
    let kind = node["Node Type"].as_str().unwrap();
    let relation = node["Relation Name"].as_str().unwrap_or_default();
    // Names a partition of `finished_jobs` as the whole table.
    let table = relation.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    if LARGE.contains(&table) && kind != "ModifyTable" {
        let condition = node["Index Cond"].as_str().or(node["TID Cond"].as_str()).unwrap_or("all of it");
        scans.push(format!("{}: {condition}", node["Index Name"].as_str().unwrap_or(kind)));
    }
    node["Plans"].as_array().into_iter().flatten().for_each(|node| collect_scans(node, scans));
}

#[tokio::test]
async fn no_planned_statement_reads_a_whole_large_table() {
    let database = database().await;
    for (state, change) in STATES {
        database.run(change).await;
        if state != "never analyzed" {
            for table in LARGE {
                database.run(&format!("vacuum analyze reveille.{table}")).await;
            }
        }
        for (name, scans) in plans(&database).await {
            let whole: Vec<_> = scans.iter().filter(|scan| scan.ends_with(": all of it")).collect();
            assert!(whole.is_empty(), "{name}, {state}: {whole:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_made_without_jobs_settle_quickly_among_many_jobs() {
    let database = database().await;
    database.run("vacuum analyze reveille.jobs").await;
    database.run("alter table reveille.jobs set (autovacuum_enabled = false)").await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = crate::harness::start(builder);
    database.until("select exists (select from reveille.sleepers where not silent)").await;
    for text in ["first", "second"] {
        reveille::enqueue(&database.database, &note(text)).await.unwrap();
        assert_eq!(reports.next().await, text);
        database.until("select not exists (select from reveille.jobs where queue = 'default' and kind = 'note')").await;
        // Adds many jobs only after the end of a job, because the worker's sessions have planned their statements by
        // then.
        let many = "insert into reveille.jobs (kind, available_at) select 'later', now() + interval '1 day' \
            from generate_series(1, 20000)";
        database.run(many).await;
    }
    worker.stop().await;
    // Waits for the ends of the sessions, because a session reports its reads at its end at the latest.
    database
        .until(
            "select not exists (select from pg_stat_activity
                where datname = current_database() and application_name like 'reveille worker')",
        )
        .await;
    let read = "select sum(idx_tup_read) from pg_stat_user_indexes where relname = 'jobs' \
        and indexrelname in ('jobs_pkey', 'jobs_reserved')";
    let read = database.value(read).await;
    assert!(read.as_f64().unwrap() < 1000.0, "{read} rows were read");
}

#[tokio::test]
async fn functions_planned_among_few_jobs_are_quick_among_many() {
    let database = database().await;
    let client = database.client().await;
    for table in ["jobs", "unique_periods"] {
        client.batch_execute(&format!("alter table reveille.{table} set (autovacuum_enabled = false)")).await.unwrap();
        client.batch_execute(&format!("vacuum analyze reveille.{table}")).await.unwrap();
    }
    let calls = [
        "select reveille.enqueue('k', unique_key => 'kept-{n}')",
        "select reveille.enqueue('k', unique_key => 'kept-1')",
        "select reveille.enqueue('k', unique_key => 'kept-1', unique_mode => 'debounce', delay => '1 day')",
        "select reveille.enqueue('k', unique_key => 'period-{n}', unique_until => '1 hour')",
        "select reveille.enqueue('k', unique_key => 'period-1', unique_until => '1 hour')",
        "select reveille.enqueue_json('[{\"kind\": \"k\"}, {\"kind\": \"k\", \"delay\": 9}]')",
        "select reveille.enqueue_json('{\"kind\": \"k\", \"unique_key\": \"kept-1\"}')",
        "select * from reveille.await(1)",
        "select reveille.retry(1)",
        "select reveille.cancel(0)",
        "select reveille.complete_in(1, 1, 1, now(), 0)",
        "select reveille.unpark(10)",
    ];
    // After 12 calls, a session keeps its plan.
    for n in 1..=12 {
        let calls: String = calls.map(|call| format!("{};", call.replace("{n}", &n.to_string()))).concat();
        client.batch_execute(&calls).await.unwrap();
    }
    let many = "insert into reveille.jobs (kind, available_at) select 'later', now() + interval '1 day' \
        from generate_series(1, 20000);
        insert into reveille.unique_periods select 'later', n, n, now() + interval '1 day'
        from generate_series(1, 20000) as n;
        select reveille.enqueue('k', unique_key => 'kept-last')";
    client.batch_execute(many).await.unwrap();
    for call in calls.map(|call| call.replace("{n}", "13").replace("kept-1'", "kept-last'")) {
        let rows_read = async || {
            let read = "select sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::bigint from pg_stat_xact_user_tables
                where relname in ('jobs', 'unique_periods')";
            client.query_one(read, &[]).await.unwrap().get::<_, i64>(0)
        };
        client.batch_execute("begin").await.unwrap();
        let before = rows_read().await;
        client.batch_execute(&call).await.unwrap();
        let read = rows_read().await - before;
        client.batch_execute("commit").await.unwrap();
        assert!(read < 100, "{call}: {read} rows were read");
    }
}

/// The states of the tables during a read: large in each state, with statistics that may be wrong.
const LARGE_STATES: [(&str, &str); 5] = [
    (
        "never analyzed, nearly all dead",
        "delete from reveille.jobs where id % 1000 <> 0; delete from reveille.dead_jobs where id % 1000 <> 0",
    ),
    ("never analyzed, all alive", ""),
    ("analyzed when all were alive, and nearly all dead", "analyze; delete from reveille.jobs where id % 1000 <> 0"),
    (
        "analyzed when nearly all were dead, and filled",
        "delete from reveille.jobs where id % 1000 <> 0; analyze;
        insert into reveille.jobs (queue, kind) select 'q', 'k' from generate_series(1, 40000)",
    ),
    ("analyzed", "analyze"),
];

/// SQL that fills the tables with many live jobs and dead jobs. A few of the live jobs are running or have failed.
const FILL: &str = "alter table reveille.jobs set (autovacuum_enabled = false); alter table reveille.dead_jobs \
    set (autovacuum_enabled = false);
    insert into reveille.workers (id, host, pid, version, queues, slots, stuck_jobs, stuck_since)
    values (7, 'here', 1, '0', '{q}', 1, '{1000}', '{now}');
    insert into reveille.jobs (queue, kind, attempts, failures, reserved_at, reserved_by)
    select 'q', 'k', (n % 1000 = 0)::int, (n % 2000 = 0)::int, case when n % 1000 = 0 then now() end, case
    when n % 1000 = 0 then 7 end
    from generate_series(1, 60000) as n;
    insert into reveille.pauses (kind) values ('parked');
    insert into reveille.jobs (queue, kind, paused_by) select 'q', 'parked', 1 from generate_series(1, 5000);
    insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
    available_at, created_at, reason)
    select n, 'q', 'k', jsonb_build_object('text', repeat('x', 300)), 2, 1, 1, 1, now(), now(), 'failed'
    from generate_series(1, 30000) as n";

/// Returns the queries that run in sessions without a worker's settings.
fn questions() -> Vec<String> {
    let views = [
        "queue_stats",
        "running_jobs",
        "failing_jobs",
        "dead_jobs_overview",
        "worker_status",
        "queue_limits",
        "queue_totals",
        "known_queues",
        "pause_status",
    ];
    let views = views.map(|view| format!("select * from reveille.{view}"));
    let filled = |name: &str, params: &[(&str, &str)]| {
        params.iter().fold(source(&format!("sql/{name}.sql")), |sql, (param, value)| sql.replace(param, value))
    };
    let others = [
        filled("backlog", &[("$1", "'q'")]),
        filled("metrics", &[]),
        filled("overview", &[]),
        filled("queue_sums", &[]),
        filled("stats_of_queues", &[("$1", "array['q']"), ("$2", "1::bigint")]),
        filled("queue", &[("$1", "'q'")]),
        filled("overview_running", &[("$1", "null")]),
        filled("overview_waiting", &[("$1", "null")]),
        filled("overview_waiting", &[("$1", "'q'")]),
        filled("overview_failing", &[]),
        filled("overview_dead", &[]),
        filled("overview_dead_jobs", &[("$1", "'q'"), ("$2", "'k'"), ("$3", "'failed'")]),
        filled("overview_workers", &[]),
        filled("overview_limits", &[]),
        filled("job", &[("$1", "77::bigint")]),
    ];
    views.into_iter().chain(others).collect()
}

#[tokio::test]
async fn no_view_or_command_reads_a_whole_large_table() {
    for (state, change) in LARGE_STATES {
        let database = database().await;
        let client = database.client().await;
        client.batch_execute(FILL).await.unwrap();
        client.batch_execute(change).await.unwrap();
        let scans = async || {
            let scans = "select coalesce(sum(seq_scan), 0)::bigint from pg_stat_xact_user_tables
                where relname in ('jobs', 'dead_jobs') or relname like 'finished_jobs%'";
            client.query_one(scans, &[]).await.unwrap().get::<_, i64>(0)
        };
        for question in questions() {
            client.batch_execute("begin").await.unwrap();
            let before = scans().await;
            client.batch_execute(&question).await.unwrap_or_else(|error| panic!("{question}: {error:?}"));
            assert_eq!(scans().await - before, 0, "{state}: {question}");
            client.batch_execute("commit").await.unwrap();
        }
    }
}

/// The settings with which the program runs its statements outside of workers.
pub fn by_index() -> String {
    let source = source("src/database/mod.rs");
    let settings = part(&source, "const BY_INDEX: &str =", ";\n");
    let path = part(&source, "const OWN_PATH: &str = \"", "\";");
    format!("{path}; {}", settings.trim().trim_matches('"').replace("\\\n", " "))
}

/// Returns a statement over a slice of jobs that reads at most 500 jobs, of which 100 pass.
pub fn slice(of: &str, rest: &str, walk: &str, newest_first: bool) -> String {
    let most = i64::MAX.to_string();
    let newest_first = newest_first.to_string();
    let (ids, walk) = ("(array(select generate_series(1, 40000, 100))::bigint[])", format!("'{walk}'::text"));
    let params: [&str; 26] = [
        &walk,
        &newest_first,
        "0",
        "null",
        &most,
        "500",
        "100",
        ids,
        "'q'",
        "null",
        "null",
        "'key'",
        "null",
        "now()",
        "null",
        "null",
        "null",
        "null",
        "(extract(epoch from now())::bigint / 86400 % 32)",
        "0",
        "now()",
        "null",
        "'{\"priority\": 1}'::jsonb",
        "null::jsonb",
        "null",
        "null",
    ];
    let params: Vec<&str> = if walk.contains("key") {
        params.to_vec()
    } else {
        params.iter().map(|param| if *param == "'key'" { "null" } else { param }).collect()
    };
    let sql = format!("{}{}", source(&format!("sql/{of}.sql")), source(&format!("sql/{rest}.sql")));
    // From the last parameter on, so that $1 does not replace the beginning of $10.
    (1..=26).rev().fold(sql, |sql, place| sql.replace(&format!("${place}"), params[place - 1]))
}

/// Returns the statements over slices of jobs, with the number of jobs that each may read.
fn slices() -> Vec<(String, String, i64)> {
    let live = ["id", "queue", "due", "key", "failing", "held", "parked", "ids"];
    let dead = ["id", "queue", "ids", "recent"];
    let finished = ["id", "ids", "recent"];
    let mut all = Vec::new();
    let mut add = |of, rests: &[&str], walks: &[&str]| {
        for (rest, walk) in rests.iter().flat_map(|rest| walks.iter().map(move |walk| (rest, walk))) {
            let most = if matches!(*walk, "queue" | "parked") { 30_000 } else { 4000 };
            let name = format!("{of}, {rest}, {walk}");
            all.push((name.clone(), slice(of, rest, walk, false), most));
            if matches!(*rest, "slice_ids" | "slice_rows" | "slice_dead_rows") && *walk != "due" {
                all.push((name + ", newest first", slice(of, rest, walk, true), most));
            }
        }
    };
    add("slice_of_jobs", &["slice_ids", "slice_rows", "slice_cancelled", "slice_retried", "slice_edited"], &live);
    add("slice_of_dead_jobs", &["slice_ids", "slice_dead_rows", "slice_revived", "slice_purged"], &dead);
    add("slice_of_finished_jobs", &["slice_ids", "slice_finished_rows", "slice_run_again"], &finished);
    all
}

#[tokio::test]
async fn no_slice_of_jobs_reads_many_more_jobs_than_it_may() {
    let mut wrong = Vec::new();
    for (state, change) in LARGE_STATES {
        let database = database().await;
        let client = database.client().await;
        client.batch_execute(FILL).await.unwrap();
        let more = "insert into reveille.jobs (queue, kind, key) select 'q', 'k', 'key' from generate_series(1, 2000);
            insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures,
                max_attempts, available_at, created_at, outcome)
            select extract(epoch from now())::bigint / 86400 % 32, n, 'q', 'k', '{}', 2, 1, 0, 1, now(), now(),
                'completed'
            from generate_series(1, 30000) as n";
        client.batch_execute(more).await.unwrap();
        client.batch_execute(change).await.unwrap();
        let read = async || {
            let read = "select coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint
                from pg_stat_xact_user_tables
                where relname in ('jobs', 'dead_jobs') or relname like 'finished_jobs%'";
            let row = client.query_one(read, &[]).await.unwrap();
            (row.get::<_, i64>(0), row.get::<_, i64>(1))
        };
        let others = [(source("sql/edit_job.sql"), 20), (source("sql/remove_queue.sql"), 30_000)].map(|(sql, most)| {
            let sql =
                sql.replace("$1", if most == 20 { "77" } else { "'q'" }).replace("$2", "'{\"priority\": 1}'::jsonb");
            let sql = sql.replace("$3", "null::jsonb").replace("$4", "null::timestamptz").replace("$5", "null::float8");
            (format!("one with {most}"), sql, most)
        });
        for (name, statement, most) in slices().into_iter().chain(others) {
            client.batch_execute(&format!("begin; {}", by_index())).await.unwrap();
            let before = read().await;
            client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            let (by_scan, by_index) = read().await;
            client.batch_execute("rollback").await.unwrap();
            let (by_scan, by_index) = (by_scan - before.0, by_index - before.1);
            // A scan of the last pages of the history counts as a scan of the table.
            let is_good = by_scan <= if name.contains("recent") { 500 } else { 0 } && by_index <= most;
            if !is_good {
                wrong.push(format!("{state}: {by_scan} and {by_index} jobs: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
