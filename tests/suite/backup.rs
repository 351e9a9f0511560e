//! The steps of the page on backup and restore. The tests run `pg_dump`, `pg_restore` and `psql` where these are
//! installed, else COPY.

use std::path::PathBuf;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use reveille::dev::Server;
use reveille::{Database, enqueue};
use serde_json::{Value, json};

use crate::harness::{Reports, Running, TestDatabase, client, database, empty_database, note, reporting_worker, start};

/// Inserts jobs in every state, queue settings, a worker, a schedule and counters. Worker 7 holds one job and has died.
const DATA: &str = "
    insert into reveille.queues (name, max_running, retention) values ('limited', 2, '2 days');
    insert into reveille.workers (id, host, pid, version, queues, slots, holds_lock, last_seen_at)
    values (7, 'h', 1, 'v', '{default}', 1, true, now() - interval '1 hour');
    insert into reveille.sleepers (queue, worker) values ('default', 7);
    select reveille.schedule('yearly', cron => '@yearly', kind => 'note');
    select reveille.enqueue('note', '{\"text\": \"waiting\"}');
    insert into reveille.jobs (kind, payload, attempts, reserved_at, reserved_by)
    values ('note', '{\"text\": \"running\"}', 1, now() - interval '1 hour', 7);
    select reveille.enqueue('note', '{\"text\": \"delayed\"}', delay => '1 day', tags => '{a,b}',
    metadata => '{\"m\": 1}');
    select reveille.enqueue('note', '{\"text\": \"limited\"}', queue => 'limited');
    select reveille.enqueue('note', unique_key => 'u', unique_until => '1 hour', delay => '1 day');
    insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
    available_at, created_at, errors, reason)
    select id, queue, kind, payload, priority, 1, 1, 1, available_at, created_at, '[{\"error\": \"no\"}]', 'failed'
    from reveille.jobs where queue = 'limited';
    delete from reveille.jobs where queue = 'limited';
    select reveille.cancel((reveille.enqueue('note', '{\"text\": \"cancelled\"}')).id);
    insert into reveille.counters (queue, started_at, worker, completed)
    values ('default', now() - interval '1 hour', 7, 3);
    delete from reveille.counters;";

async fn filled() -> TestDatabase {
    let database = database().await;
    database.run(DATA).await;
    database
}

/// Returns the rows of each table. Leaves out the times in the record of migrations.
async fn contents(database: &TestDatabase) -> Value {
    let client = database.client().await;
    let tables = "select relname from pg_class where relnamespace = 'reveille'::regnamespace and relkind in ('r', 'p')
        and not relispartition order by relname";
    let mut contents = Vec::new();
    for row in client.query(tables, &[]).await.unwrap() {
        let table: &str = row.get(0);
        let columns = match table {
            "schema_history" => "version, name, checksum",
            // Leaves out the times of the chores, because each database does its own upkeep.
            "chores" => "name",
            _ => "*",
        };
        let rows = format!(
            // Leaves out `limited_since`, because a restored queue counts its running jobs anew.
            "select coalesce(jsonb_agg(row order by row), '[]')
            from (select {columns} from reveille.{table}) as t cross
            join lateral (select to_jsonb(t) - 'limited_since') as r (row)"
        );
        contents.push((table.to_owned(), client.query_one(&rows, &[]).await.unwrap().get::<_, Value>(0)));
    }
    json!(contents)
}

/// Returns the path of one of the server's programs, if the program is installed.
async fn program(database: &TestDatabase, name: &str) -> Option<PathBuf> {
    let folder = database.value("select setting from pg_config where name = 'BINDIR'").await;
    Some(PathBuf::from(folder.as_str()?).join(name)).filter(|program| program.exists())
}

/// Runs a program with `input` on its standard input. Returns the program's standard output.
fn run(program: &PathBuf, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut command = Command::new(program);
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Copies all data by `pg_dump --data-only` and `psql`, or by COPY where these programs are not installed.
async fn copy_data(from: &TestDatabase, to: &TestDatabase) {
    let programs = (program(from, "pg_dump").await, program(from, "psql").await);
    let (Some(pg_dump), Some(psql)) = programs else { return copy_data_by_hand(from, to).await };
    let dump = run(&pg_dump, &["--data-only", "--schema=reveille", "-d", &from.address], b"");
    let psql_arguments = ["-Xq", "--single-transaction", "-v", "ON_ERROR_STOP=1", "-d", &to.address];
    run(&psql, &psql_arguments, &dump);
}

async fn copy_data_by_hand(from: &TestDatabase, to: &TestDatabase) {
    let (from, mut to) = (from.client().await, to.client().await);
    let to = to.transaction().await.unwrap();
    // Copies a table with foreign keys after the tables to which its foreign keys refer.
    let tables =
        "select oid::regclass::text from pg_class where relnamespace = 'reveille'::regnamespace and relkind = 'r'
        order by exists (select from pg_constraint where conrelid = pg_class.oid and contype = 'f'), 1";
    for row in from.query(tables, &[]).await.unwrap() {
        let table: &str = row.get(0);
        let columns = "select string_agg(quote_ident(attname), ', ') from pg_attribute
            where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = ''";
        let columns: String = from.query_one(columns, &[&table]).await.unwrap().get(0);
        let rows = from.copy_out(&format!("copy {table} ({columns}) to stdout")).await.unwrap();
        let into = to.copy_in(&format!("copy {table} ({columns}) from stdin")).await.unwrap();
        let (mut rows, mut into) = (pin!(rows), pin!(into));
        while let Some(row) = rows.next().await {
            into.send(row.unwrap()).await.unwrap();
        }
        into.finish().await.unwrap();
    }
    let sequences = "select format('select setval(%L, %s)', format('reveille.%I', sequencename), last_value)
        from pg_sequences where schemaname = 'reveille' and last_value is not null";
    for row in from.query(sequences, &[]).await.unwrap() {
        to.batch_execute(row.get(0)).await.unwrap();
    }
    to.commit().await.unwrap();
}

/// Starts a worker that only the bell wakes. The worker soon declares worker 7 dead.
fn working(database: &Database) -> (Running, Reports) {
    let (builder, reports) = reporting_worker(database);
    (start(builder.heartbeat(Duration::from_millis(50))), reports)
}

/// Checks that each due job of the restored data runs once, and that a new job runs afterwards.
async fn restored_jobs_run(database: &TestDatabase, reports: &mut Reports) {
    let mut texts = [reports.next().await, reports.next().await];
    texts.sort();
    assert_eq!(texts, ["running", "waiting"]);
    let largest =
        "select max(id) from (select id from reveille.jobs union all select id from reveille.dead_jobs) as ids";
    let largest = database.value(largest).await.as_i64().unwrap();
    assert!(enqueue(&database.database, &note("later")).await.unwrap().id > largest);
    assert_eq!(reports.next().await, "later");
    assert_eq!(reports.rest(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_dump_restores_everything_and_its_jobs_run() {
    let source = filled().await;
    let (Some(pg_dump), Some(pg_restore)) = (program(&source, "pg_dump").await, program(&source, "pg_restore").await)
    else {
        return;
    };
    // First dumps the whole database, then only Reveille's schema.
    for what in [&[][..], &["--schema=reveille"]] {
        let restored = empty_database().await;
        let dump = run(&pg_dump, &[&["-Fc", "-d", &source.address][..], what].concat(), b"");
        run(&pg_restore, &["--exit-on-error", "--single-transaction", "-d", &restored.address], &dump);
        assert_eq!(contents(&restored).await, contents(&source).await);
        let findings = restored.doctor().examine().await.unwrap();
        let of_schema = |check: &str| ["schema", "indexes", "trigger", "partitions", "roles"].contains(&check);
        let mut broken = findings.iter().filter(|found| of_schema(&found.check) && found.advice.is_some());
        assert_eq!(broken.next(), None);
        let (worker, mut reports) = working(&restored);
        restored_jobs_run(&restored, &mut reports).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_dump_restores_while_a_worker_sleeps() {
    let source = filled().await;
    source.run("delete from reveille.sleepers; select setval('reveille.somebody_sleeps', 0)").await;
    let restored = database().await;
    let (worker, mut reports) = working(&restored);
    restored.until("select count(*) = 1 from reveille.sleepers").await;
    copy_data(&source, &restored).await;
    restored_jobs_run(&restored, &mut reports).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_data_dump_restores_everything_into_a_migrated_database() {
    let (source, restored) = (filled().await, database().await);
    copy_data(&source, &restored).await;
    assert_eq!(contents(&restored).await, contents(&source).await);
}

#[tokio::test]
async fn data_from_a_different_schema_history_is_refused_in_one_line() {
    let database = database().await;
    let other = "insert into reveille.schema_history select version, 'others', applied_on, checksum \
        from reveille.schema_history limit 1";
    let refusal = database.refusal(other).await;
    assert!(refusal.contains("migration 1 is tables here and others in the data"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrated_subscriber_takes_the_first_copy_and_later_changes() {
    let server = Server::options().setting("wal_level", "logical").start().unwrap();
    let at = |name: &str| server.url(name);
    let plain = client(&at("postgres")).await;
    plain.batch_execute("create database publisher").await.unwrap();
    plain.batch_execute("create database subscriber").await.unwrap();
    let (publisher, subscriber) = (client(&at("publisher")).await, client(&at("subscriber")).await);
    for name in ["publisher", "subscriber"] {
        Database::connect(at(name)).await.unwrap().migrate().await.unwrap();
    }
    publisher.batch_execute(DATA).await.unwrap();
    publisher.batch_execute("create publication p for all tables").await.unwrap();
    // Creates the replication slot first, because within one server the subscription cannot create the slot.
    publisher.query("select pg_create_logical_replication_slot('s', 'pgoutput')", &[]).await.unwrap();
    let subscribe = format!(
        "create subscription s connection '{}' publication p with (create_slot = false, slot_name = 's')",
        at("publisher")
    );
    subscriber.batch_execute(&subscribe).await.unwrap();

    let (worker, mut reports) = working(&Database::connect(at("publisher")).await.unwrap());
    let mut texts = [reports.next().await, reports.next().await];
    texts.sort();
    assert_eq!(texts, ["running", "waiting"]);
    worker.stop().await;
    // Deletes rows of a table without a primary key, because the deletions must be replicated too.
    publisher.batch_execute("delete from reveille.finished_jobs where outcome = 'cancelled'").await.unwrap();

    let all = "select jsonb_build_array(
        (select count(*) from reveille.schema_history), (select count(*) from reveille.jobs),
        (select count(*) from reveille.dead_jobs),
        (select count(*) from reveille.finished_jobs), (select count(*) from reveille.workers),
        (select count(*) from reveille.schedules))";
    let published: Value = publisher.query_one(all, &[]).await.unwrap().get(0);
    let copied = async || subscriber.query_one(all, &[]).await.is_ok_and(|row| row.get::<_, Value>(0) == published);
    crate::harness::eventually("all rows have arrived", copied).await;
    // Waits until the first copies are over. Until then, a copy and the drop of the subscription would wait for each
    // other.
    let first_copies = "select count(*) from pg_subscription_rel where srsubstate <> 'r'";
    let are_over = async || subscriber.query_one(first_copies, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 0);
    crate::harness::eventually("the first copies are over", are_over).await;

    // Makes the subscriber take over.
    let take_over = "alter subscription s disable; alter subscription s set (slot_name = none)";
    subscriber.batch_execute(take_over).await.unwrap();
    let dropping = subscriber.batch_execute("drop subscription s");
    crate::harness::soon("the subscription is dropped", dropping).await.unwrap();
    let sequences = "select setval('reveille.jobs_id_seq', greatest(max(id), 1)) from (
            select id from reveille.jobs union all select id from reveille.dead_jobs union all select id
            from reveille.finished_jobs
        ) as ids;
        select setval('reveille.schedules_id_seq', greatest(max(id), 1)) from reveille.schedules";
    subscriber.batch_execute(sequences).await.unwrap();
    let database = Database::connect(at("subscriber")).await.unwrap();
    let (worker, mut reports) = working(&database);
    enqueue(&database, &note("after")).await.unwrap();
    assert_eq!(reports.next().await, "after");
    worker.stop().await;
}

#[tokio::test]
async fn no_table_is_emptied_by_a_crash() {
    let unlogged = "select jsonb_agg(relname) from pg_class where relnamespace = 'reveille'::regnamespace \
        and relpersistence <> 'p'";
    assert_eq!(database().await.value(unlogged).await, json!(null));
}
