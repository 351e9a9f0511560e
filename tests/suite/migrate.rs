//! The schema is created and upgraded, and a schema that does not fit the program is refused.

use std::sync::Arc;

use reveille::Database;
use reveille::database::migrations_sql;
use serde_json::json;

use crate::harness::{Note, database, empty_database, eventually, migrations, older_database, soon, start, worker};

#[tokio::test]
async fn many_processes_can_migrate_at_once() {
    let database = empty_database().await;
    let migrating = (0..6).map(|_| {
        let address = database.address.clone();
        tokio::spawn(async move { Database::connect(address).await.unwrap().migrate().await.unwrap().len() })
    });
    let migrating = futures::future::join_all(migrating);
    let applied = soon("all processes have migrated", migrating).await;
    let mut applied: Vec<usize> = applied.into_iter().map(|n| n.unwrap()).collect();
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, 0, 0, migrations().len()], "one process applies all migrations, the others none");
}

#[tokio::test]
async fn migrating_a_current_schema_takes_no_lock() {
    let database = database().await;
    let holder = database.client().await;
    holder.batch_execute("begin; lock table reveille.jobs, reveille.workers in access exclusive mode").await.unwrap();
    assert!(soon("the migration ends", database.migrate()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_history_of_migrations_is_in_reveilles_schema() {
    let database = database().await;
    let rows = database.value("select jsonb_agg(version order by version) from reveille.schema_history").await;
    let versions: Vec<u32> =
        migrations().iter().map(|name| name[1..name.find('_').unwrap()].parse().unwrap()).collect();
    assert_eq!(rows, json!(versions));
    assert_eq!(database.value("select to_regclass('public.refinery_schema_history')").await, json!(null));
}

#[tokio::test]
async fn missing_older_and_newer_schemas_are_different_errors() {
    let missing = empty_database().await.check().await.unwrap_err();
    assert!(missing.is_schema_missing() && missing.to_string().contains("reveille migrate"), "{missing}");

    let database = database().await;
    assert!(database.check().await.is_ok());
    let last = "(select max(version) from reveille.schema_history)";
    database.run(&format!("create table last as select * from reveille.schema_history where version = {last}")).await;
    database.run(&format!("delete from reveille.schema_history where version = {last}")).await;
    let older = database.check().await.unwrap_err();
    assert!(older.is_schema_mismatch() && older.to_string().contains("reveille migrate"), "{older}");

    let newer = "insert into reveille.schema_history select * from last;
        insert into reveille.schema_history (version, name, applied_on, checksum)
        values (99, 'future', '2026-01-01T00:00:00Z', '1')";
    database.run(newer).await;
    for newer in [database.check().await.unwrap_err(), database.migrate().await.unwrap_err()] {
        assert!(newer.is_schema_mismatch() && newer.to_string().contains("newer version of the program"), "{newer}");
    }
}

#[tokio::test]
async fn a_schema_from_before_the_first_release_is_refused_in_one_line() {
    let database = database().await;
    database.run("update reveille.schema_history set name = 'functions' where version = 2").await;
    for refused in [database.check().await.unwrap_err(), database.migrate().await.unwrap_err()] {
        let text = refused.to_string();
        assert!(refused.is_schema_mismatch() && text.contains("drop the schema") && !text.contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn two_schemas_live_side_by_side() {
    let database = database().await;
    let other = Database::options(Some(database.address.clone())).schema("other").connect().await.unwrap();
    assert_eq!(other.migrate().await.unwrap(), migrations());
    database.run("select other.enqueue(kind => 'k')").await;
    let stats = "select jsonb_build_array((select count(*) from other.queue_stats), \
        (select count(*) from reveille.queue_stats))";
    assert_eq!(database.value(stats).await, json!([1, 0]));
    let strangers =
        "select count(*) from pg_proc where pronamespace = 'other'::regnamespace and prosrc like '%reveille.%'";
    assert_eq!(database.value(strangers).await, 0);
}

#[tokio::test]
async fn an_upgrade_waits_for_open_transactions_and_loses_no_job() {
    let database = older_database(6).await;
    let jobs = "insert into reveille.jobs (kind, payload) select 'note', jsonb_build_object('text', n::text) \
        from generate_series(1, 3) as n;
        insert into reveille.workers (id, host, pid, version, queues, slots)
        values (7, 'h', 1, '0.0.1', '{default}', 1);
        update reveille.jobs set reserved_at = now(), reserved_by = 7, attempts = 1 where id = 2";
    database.run(jobs).await;
    assert!(database.check().await.unwrap_err().is_schema_mismatch());

    let at_work = database.client().await;
    at_work.batch_execute("begin; update reveille.queues set retention = null").await.unwrap();
    let upgrading = tokio::spawn({
        let database = database.database.clone();
        async move { database.migrate().await.unwrap() }
    });
    let waits = "select exists (select from pg_locks where not granted and mode = 'ShareRowExclusiveLock')";
    database.until(waits).await;
    database.until(&format!("select not ({waits})")).await;
    assert!(
        !upgrading.is_finished(),
        "the upgrade releases its locks for a while, so that workers go on, and tries again"
    );
    at_work.batch_execute("commit").await.unwrap();
    assert_eq!(soon("the upgrade is done", upgrading).await.unwrap(), migrations()[5..]);

    // Removes the old worker, as if it had died during the upgrade.
    database.run("delete from reveille.workers").await;
    async fn done(_: Note) {}
    let running = start(worker(&database).handle(done));
    database.until("select count(*) = 3 from reveille.finished_jobs").await;
    running.stop().await;
}

#[tokio::test]
async fn the_printed_sql_makes_the_same_schema() {
    let (printed, migrated) = (empty_database().await, database().await);
    printed.run(&migrations_sql("reveille").unwrap()).await;
    let shape = "select jsonb_agg(relname || ':' || relkind::text order by relname, relkind) from pg_class
        where relnamespace = 'reveille'::regnamespace and relname not like 'schema_history%'";
    assert_eq!(printed.value(shape).await, migrated.value(shape).await);
}

#[tokio::test]
async fn after_the_printed_sql_nothing_is_left_to_migrate() {
    let database = empty_database().await;
    database.run(&migrations_sql("reveille").unwrap()).await;
    database.database.check().await.unwrap();
    assert_eq!(database.database.migrate().await.unwrap(), Vec::<String>::new());

    // The next migration is run on top, as if a newer version of Reveille had printed less.
    let older = older_database(9).await;
    assert_eq!(older.database.migrate().await.unwrap(), migrations()[8..]);
}

/// Returns SQL that makes every later change of the schema note the value of `setting` in `public.seen`.
fn note_each_change(setting: &str) -> String {
    format!(
        "create table public.seen (tag text, value text);
        create function public.note_change() returns event_trigger language plpgsql as $$ begin
            -- Notes nothing if the object exists already.
            insert into public.seen select command_tag, current_setting('{setting}', true)
            from pg_event_trigger_ddl_commands();
        end $$;
        create event trigger note_change on ddl_command_end execute function public.note_change()"
    )
}

#[tokio::test]
async fn a_migration_is_not_passed_on_to_the_nodes_of_a_cluster() {
    let database = empty_database().await;
    database.run(&note_each_change("citus.enable_ddl_propagation")).await;
    database.migrate().await.unwrap();
    let tags =
        "select jsonb_build_array(count(*) filter (where tag = 'CREATE SCHEMA'), count(*) > 50) from public.seen";
    assert_eq!(database.value(tags).await, json!([1, true]));
    let passed_on = "select jsonb_agg(tag) from public.seen where value is distinct from 'off'";
    assert_eq!(database.value(passed_on).await, json!(null));
}

#[tokio::test]
async fn a_migration_into_an_existing_schema_is_not_passed_on() {
    let database = empty_database().await;
    database.run("create schema reveille").await;
    database.run(&note_each_change("citus.enable_ddl_propagation")).await;
    database.migrate().await.unwrap();
    let passed_on = "select jsonb_agg(tag) from public.seen where value is distinct from 'off'";
    assert_eq!(database.value(passed_on).await, json!(null));
}

#[tokio::test]
async fn a_schema_name_that_would_need_quotes_is_refused() {
    for name in ["a b", "x;drop", "Jobs", ""] {
        let error = Database::options(None).schema(name).connect().await.unwrap_err();
        assert!(error.is_invalid(), "{name}: {error}");
    }
}

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_waiting_migration_names_the_holder_of_the_lock() {
    let (database, log) = (empty_database().await, Log::default());
    let stranger = database.client().await;
    let lock = "set application_name = 'stranger'; select pg_advisory_lock(hashtextextended('reveille.migrate', 0))";
    stranger.batch_execute(lock).await.unwrap();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let migrating = database.database.migrate();
    let saying = async {
        eventually("the log names the holder", async || log.text().contains("stranger")).await;
        stranger.batch_execute("select pg_advisory_unlock_all()").await.unwrap();
    };
    let (applied, ()) = tokio::join!(migrating, saying);
    assert_eq!(applied.unwrap(), migrations());
}
