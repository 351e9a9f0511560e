//! Creating Reveille's tables and bringing them up to date.

use std::time::{Duration, Instant};

use refinery::{AsyncMigrate, Migration, Runner};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::OWN_PATH;
use super::address::Address;
use super::connect;
use super::schema::Schema;
use crate::error::{Error, Result};

/// The files of `migrations/`, oldest first. A migration is never edited once a version of Reveille with it is
/// published. This is a static: a program would contain a constant once for each crate that uses the constant.
pub(crate) static MIGRATIONS: &[(&str, &str)] = &[
    ("V1__tables", include_str!("../../migrations/V1__tables.sql")),
    ("V2__checks", include_str!("../../migrations/V2__checks.sql")),
    ("V3__bell", include_str!("../../migrations/V3__bell.sql")),
    ("V4__functions", include_str!("../../migrations/V4__functions.sql")),
    ("V5__unique", include_str!("../../migrations/V5__unique.sql")),
    ("V6__limits", include_str!("../../migrations/V6__limits.sql")),
    ("V7__schedules", include_str!("../../migrations/V7__schedules.sql")),
    ("V8__heads", include_str!("../../migrations/V8__heads.sql")),
    ("V9__views", include_str!("../../migrations/V9__views.sql")),
    ("V10__actions", include_str!("../../migrations/V10__actions.sql")),
    ("V11__linked_jobs", include_str!("../../migrations/V11__linked_jobs.sql")),
    ("V12__steps", include_str!("../../migrations/V12__steps.sql")),
    ("V13__workflows", include_str!("../../migrations/V13__workflows.sql")),
    ("V14__queue_views", include_str!("../../migrations/V14__queue_views.sql")),
    ("V15__child_jobs", include_str!("../../migrations/V15__child_jobs.sql")),
    ("V16__applying_ends", include_str!("../../migrations/V16__applying_ends.sql")),
    ("V17__link_views", include_str!("../../migrations/V17__link_views.sql")),
    ("V18__large_workflows", include_str!("../../migrations/V18__large_workflows.sql")),
    ("V19__moves_and_kinds", include_str!("../../migrations/V19__moves_and_kinds.sql")),
];

/// The pause between two tries to take the migration lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// The wait for the migration lock before the log names its holder. Any session may take this lock and keep it.
const WARN_AFTER: Duration = Duration::from_secs(1);
/// The statement that finds the sessions that hold the migration lock.
const HOLDERS: &str = "select pg_locks.pid, pg_stat_activity.usename::text, pg_stat_activity.application_name
    from pg_catalog.pg_locks
    left join pg_catalog.pg_stat_activity on pg_stat_activity.pid = pg_locks.pid
    cross join pg_catalog.hashtextextended('reveille.migrate', 0) as name (hash)
    where pg_locks.locktype = 'advisory' and pg_locks.granted and pg_locks.objsubid = 1
        and pg_locks.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
        and pg_locks.classid::bigint = (hash >> 32) & 4294967295 and pg_locks.objid::bigint = hash & 4294967295";

/// The settings with which the transaction of each migration begins.
///
/// Unqualified names are names of the server. A migration may run for any time, but waits at most a second for a lock,
/// since workers wait behind a waiting migration. Citus would create the objects on all nodes of its cluster, and
/// `migrate` on the other nodes would then fail. Servers without Citus ignore its setting.
const BEGINNING: &str = "set local search_path = pg_catalog, pg_temp; set local statement_timeout = 0; \
    set local lock_timeout = '1s'; set local citus.enable_ddl_propagation = off;\n";

/// The time for which a migration is retried while other sessions lock the tables.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// The pause between two tries of a migration. Workers proceed in this pause.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The version of the schema that this program supports: the version of the last migration.
pub(crate) const CURRENT: i32 = version_of(MIGRATIONS[MIGRATIONS.len() - 1].0);

/// Returns the number in a migration's name, between the first letter and the underscores.
const fn version_of(name: &str) -> i32 {
    let (name, mut place, mut version) = (name.as_bytes(), 1, 0);
    while name[place].is_ascii_digit() {
        version = version * 10 + (name[place] - b'0') as i32;
        place += 1;
    }
    version
}

/// Returns the SQL of all migrations, to read it or to run it with another tool, such as `psql -1`.
///
/// The SQL is for a database without the schema, and should run in one transaction. It also records the migrations, so
/// that [`Database::migrate`](crate::Database::migrate) afterwards runs only newer ones.
///
/// # Errors
/// Invalid if the schema's name would need quotes.
pub fn migrations_sql(schema: &str) -> Result<String> {
    let schema = Schema::new(schema)?;
    let mut sql = format!("create schema if not exists {};\n{}\n", schema.name(), history(&schema));
    for ((name, file), migration) in MIGRATIONS.iter().zip(migrations(&schema)?) {
        sql += &format!(
            "\n-- {name}\n\n{}\ninsert into {} (version, name, applied_on, checksum) values\n    \
                ({}, '{}', to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '{}');\n",
            schema.apply(file),
            history_table(&schema),
            migration.version(),
            migration.name(),
            migration.checksum(),
        );
    }
    Ok(sql)
}

/// Returns the SQL that creates refinery's table of the migrations that were run.
fn history(schema: &Schema) -> String {
    <Client as AsyncMigrate>::assert_migrations_table_query(&history_table(schema))
}

/// Returns the names of all objects of a kind (`function` or `view`) that the migrations create and do not drop.
pub(crate) fn made(kind: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for line in MIGRATIONS.iter().flat_map(|(_, sql)| sql.lines()) {
        let named = |verb: &str| {
            let rest = line.strip_prefix(verb)?.strip_prefix(kind)?.strip_prefix(" ")?;
            let rest = rest.strip_prefix("if exists ").unwrap_or(rest).strip_prefix("reveille.")?;
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
        };
        if let Some(name) = named("create ").or_else(|| named("create or replace ")) {
            names.push(name);
        } else if let Some(gone) = named("drop ") {
            names.retain(|name| *name != gone);
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns the SQL that creates roles for producers, workers, monitors and administrators. Each role has only the
/// rights that it needs. The roles are named after the schema: `reveille_producer` and so on. The owner of the tables
/// runs this SQL, and runs it again after each migration.
///
/// # Errors
/// Invalid if the schema's name would need quotes.
pub fn grants_sql(schema: &str) -> Result<String> {
    let schema = Schema::new(schema)?;
    let sql = schema.apply(include_str!("../../sql/grants.sql"));
    let sql = sql.replace("schema reveille ", &format!("schema {} ", schema.name()));
    Ok(sql.replace("reveille_", &format!("{}_", schema.name())))
}

/// Runs the missing migrations under an advisory lock. Refinery takes no lock, so processes that start together would
/// collide. A transaction on a separate connection holds the lock, so that the lock works through a transaction pooler
/// too.
pub(crate) async fn migrate(address: &Address, schema: &Schema) -> Result<Vec<String>> {
    let what = || format!("migrate {}", address.describe());
    let (mut client, connection) = connect::open(address).await?;
    tokio::spawn(connection);

    // A current schema needs no migration and no lock, so the start of a program disturbs no other session.
    if version(&client, schema).await? == CURRENT {
        return Ok(Vec::new());
    }
    let (keeper, connection) = connect::open(address).await?;
    tokio::spawn(connection);
    let (began, mut has_warned) = (Instant::now(), false);
    while !lock(&keeper, schema).await.map_err(|error| Error::database(&what(), error))? {
        if !has_warned && began.elapsed() >= WARN_AFTER {
            warn_of_holders(&client, schema).await.map_err(|error| Error::database(&what(), error))?;
            has_warned = true;
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    check_not_newer(version(&client, schema).await?)?;
    if version(&client, schema).await? == 0 {
        let is_there = exists(&client, "select from pg_catalog.pg_namespace where nspname = $1", schema.name()).await?;
        let create = if is_there { String::new() } else { format!("create schema {};", schema.name()) };
        let create = format!("begin; {BEGINNING} {create} {} commit", history(schema));
        client.batch_execute(&create).await.map_err(|error| Error::database(&what(), error))?;
    }
    let applied = apply(&mut client, schema, &what()).await?;
    keeper.batch_execute("commit").await.map_err(|error| Error::database(&what(), error))?;
    Ok(applied)
}

/// Runs the missing migrations, one transaction each. If a migration meets a lock of running workers, or deadlocks with
/// them, it is tried again.
async fn apply(client: &mut Client, schema: &Schema, what: &str) -> Result<Vec<String>> {
    let (runner, began, mut applied) = (runner(schema)?, Instant::now(), Vec::new());
    loop {
        match runner.run_async(client).await {
            Ok(report) => {
                applied.extend(report.applied_migrations().iter().map(ToString::to_string));
                return Ok(applied);
            }
            Err(error) if is_in_use(&error) && began.elapsed() < RETRY_FOR => {
                let done = error.report().into_iter().flat_map(|report| report.applied_migrations());
                applied.extend(done.map(ToString::to_string));
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(failed(what, error)),
        }
    }
}

/// True if a migration failed because of other sessions' locks.
fn is_in_use(error: &refinery::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
            return matches!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED));
        }
        cause = error.source();
    }
    false
}

/// Tries to begin a transaction that holds the migration lock. If another session holds the lock, this ends the
/// transaction: a pooler may have few sessions, and can then lend this session to other clients.
async fn lock(keeper: &Client, schema: &Schema) -> Result<bool, tokio_postgres::Error> {
    let try_lock = schema.apply("select pg_try_advisory_xact_lock(hashtextextended('reveille.migrate', 0))");
    let begin = format!("begin; {OWN_PATH}; set local idle_in_transaction_session_timeout = 0");
    keeper.batch_execute(&begin).await?;
    let locked: bool = keeper.query_typed_one(&try_lock, &[]).await?.get(0);
    if !locked {
        keeper.batch_execute("rollback").await?;
    }
    Ok(locked)
}

async fn warn_of_holders(client: &Client, schema: &Schema) -> Result<(), tokio_postgres::Error> {
    for row in client.query_typed(&schema.apply(HOLDERS), &[]).await? {
        let backend: Option<i32> = row.get(0);
        let (role, application): (Option<String>, Option<String>) = (row.get(1), row.get(2));
        tracing::warn!(
            name: "migration.waiting", target: "reveille::database", backend, role, application,
            "waiting for a session that holds the migration lock; if it hangs, end it by pg_terminate_backend"
        );
    }
    Ok(())
}

/// Checks that the schema exists and has the version that this program supports.
pub(crate) async fn check(client: &Client, schema: &Schema) -> Result<()> {
    let version = version(client, schema).await?;
    check_not_newer(version)?;
    match version {
        0 => Err(Error::schema_missing(format!(
            "the database has no tables of Reveille in schema {:?}; run `reveille migrate`",
            schema.name()
        ))),
        CURRENT => Ok(()),
        older => Err(Error::schema_mismatch(format!(
            "the schema is at version {older} and this program needs version {CURRENT}; run `reveille migrate`"
        ))),
    }
}

fn check_not_newer(version: i32) -> Result<()> {
    if version > CURRENT {
        return Err(Error::schema_mismatch(format!(
            "the schema is at version {version} and this program supports version {CURRENT} at most; \
                use a newer version \
             of the program"
        )));
    }
    Ok(())
}

/// Returns the version of the schema; 0 if there is no schema.
async fn version(client: &Client, schema: &Schema) -> Result<i32> {
    let history = history_table(schema);
    if !exists(client, "select where pg_catalog.to_regclass($1) is not null", &history).await? {
        return Ok(0);
    }
    check_sees_all(client, schema).await?;
    let (versions, names): (Vec<i32>, Vec<&str>) =
        MIGRATIONS.iter().filter_map(|(name, _)| Some((version_of(name), name.split_once("__")?.1))).unzip();
    let sql = schema.apply(
        "select
            coalesce(pg_catalog.max(history.version), 0) as version,
            coalesce(pg_catalog.bool_or(history.name::text operator(pg_catalog.<>) known.name), false) as is_strange
        from reveille.schema_history as history
        left join unnest($1::int[], $2::text[]) as known (version, name)
            on known.version operator(pg_catalog.=) history.version",
    );
    let row = client
        .query_typed_one(&sql, &[(&versions, Type::INT4_ARRAY), (&names, Type::TEXT_ARRAY)])
        .await
        .map_err(|error| Error::database("read the schema's version", error))?;
    if row.get("is_strange") {
        return Err(Error::schema_mismatch(format!(
            "the schema {:?} was made before the first release, by migrations that this program does not know; \
             save what you need of its data, drop the schema, and run `reveille migrate`",
            schema.name()
        )));
    }
    Ok(row.get("version"))
}

/// Refuses a role from which row security hides rows: with hidden rows, every count and search would be wrong.
async fn check_sees_all(client: &Client, schema: &Schema) -> Result<()> {
    let sql = include_str!("../../sql/hidden_rows.sql");
    let rows = client.query_typed(sql, &[(&schema.name(), Type::TEXT)]).await;
    let rows = rows.map_err(|error| Error::database("read the catalogue", error))?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (table, role): (&str, &str) = (row.get("name"), row.get("role"));
    Err(Error::denied(format!(
        "row security may hide rows of {}.{table} from the role {role:?}, so that answers would be wrong; use a role \
         with bypassrls, or add a policy by which it sees all rows: using (true)",
        schema.name()
    )))
}

async fn exists(client: &Client, query: &str, name: &str) -> Result<bool> {
    let rows = client
        .query_typed(query, &[(&name, Type::TEXT)])
        .await
        .map_err(|error| Error::database("read the catalogue", error))?;
    Ok(!rows.is_empty())
}

fn history_table(schema: &Schema) -> String {
    format!("{}.schema_history", schema.name())
}

fn migrations(schema: &Schema) -> Result<Vec<Migration>> {
    let migration =
        |(name, sql): &(&str, &'static str)| Migration::unapplied(name, &format!("{BEGINNING}{}", schema.apply(sql)));
    let migrations: Result<_, _> = MIGRATIONS.iter().map(migration).collect();
    migrations.map_err(|error| failed("read the migrations", error))
}

fn runner(schema: &Schema) -> Result<Runner> {
    let mut runner = Runner::new(&migrations(schema)?);
    runner.set_migration_table_name(history_table(schema));
    Ok(runner)
}

fn failed(what: &str, error: refinery::Error) -> Error {
    // The innermost cause is the server's message. Refinery's own message repeats the statement.
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Error::schema_mismatch(format!("cannot {what}: {cause}")).with_source(error.to_string())
}
