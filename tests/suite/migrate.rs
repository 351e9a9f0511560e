//! Creating the schema, and telling when it does not fit.

use reveille::Database;
use reveille::database::migrations_sql;
use serde_json::json;

use crate::harness::{database, empty_database};

#[tokio::test]
async fn many_processes_can_migrate_at_once() {
    let database = empty_database().await;
    let migrating = (0..6).map(|_| {
        let address = database.address.clone();
        tokio::spawn(async move { Database::connect(address).await.unwrap().migrate().await.unwrap().len() })
    });
    let mut applied: Vec<usize> = futures::future::join_all(migrating).await.into_iter().map(|n| n.unwrap()).collect();
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, 0, 0, 3], "one did it all, the others found it done");
}

#[tokio::test]
async fn migrating_a_current_schema_takes_no_lock() {
    let database = database().await;
    let holder = database.client().await;
    holder.batch_execute("begin; lock table reveille.jobs, reveille.workers in access exclusive mode").await.unwrap();
    assert!(database.migrate().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_history_of_migrations_is_our_own() {
    let database = database().await;
    let rows = database.value("select jsonb_agg(version order by version) from reveille.schema_history").await;
    assert_eq!(rows, json!([1, 2, 3]));
    assert_eq!(database.value("select to_regclass('public.refinery_schema_history')").await, json!(null));
}

#[tokio::test]
async fn a_missing_an_older_and_a_newer_schema_are_told_apart() {
    let missing = empty_database().await.check().await.unwrap_err();
    assert!(missing.is_schema_missing() && missing.to_string().contains("reveille migrate"), "{missing}");

    let database = database().await;
    assert!(database.check().await.is_ok());
    database.run("delete from reveille.schema_history where version = 3").await;
    let older = database.check().await.unwrap_err();
    assert!(older.is_schema_mismatch() && older.to_string().contains("reveille migrate"), "{older}");

    let newer = "insert into reveille.schema_history (version, name, applied_on, checksum)
        values (3, 'views', '2026-01-01T00:00:00Z', '1'), (99, 'future', '2026-01-01T00:00:00Z', '1')";
    database.run(newer).await;
    for newer in [database.check().await.unwrap_err(), database.migrate().await.unwrap_err()] {
        assert!(newer.is_schema_mismatch() && newer.to_string().contains("newer version of the program"), "{newer}");
    }
}

#[tokio::test]
async fn two_schemas_live_side_by_side() {
    let database = database().await;
    let other = Database::options(Some(database.address.clone())).schema("other").connect().await.unwrap();
    assert_eq!(other.migrate().await.unwrap().len(), 3);
    database.run("select other.enqueue(kind => 'k')").await;
    let stats = "select jsonb_build_array((select count(*) from other.queue_stats), (select count(*) from reveille.queue_stats))";
    assert_eq!(database.value(stats).await, json!([1, 0]));
    let strangers =
        "select count(*) from pg_proc where pronamespace = 'other'::regnamespace and prosrc like '%reveille.%'";
    assert_eq!(database.value(strangers).await, 0);
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
async fn a_schema_name_that_would_need_quotes_is_refused() {
    for name in ["a b", "x;drop", "Jobs", ""] {
        let error = Database::options(None).schema(name).connect().await.unwrap_err();
        assert!(error.is_invalid(), "{name}: {error}");
    }
}
