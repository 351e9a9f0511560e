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

/// The files of `migrations/`, oldest first. A released one is never edited.
pub(crate) const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__tables", include_str!("../../migrations/V1__tables.sql")),
    ("V2__checks", include_str!("../../migrations/V2__checks.sql")),
    ("V3__bell", include_str!("../../migrations/V3__bell.sql")),
    ("V4__functions", include_str!("../../migrations/V4__functions.sql")),
    ("V5__unique", include_str!("../../migrations/V5__unique.sql")),
    ("V6__limits", include_str!("../../migrations/V6__limits.sql")),
    ("V7__schedules", include_str!("../../migrations/V7__schedules.sql")),
    ("V8__heads", include_str!("../../migrations/V8__heads.sql")),
    ("V9__views", include_str!("../../migrations/V9__views.sql")),
];

/// How long to wait for another process that migrates before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long to wait for it before saying so: any session of the database may take that lock, and keep it.
const SAY_WHO: Duration = Duration::from_secs(1);
/// Who holds the lock.
const HOLDERS: &str = "select pg_locks.pid, pg_stat_activity.usename::text, pg_stat_activity.application_name
    from pg_catalog.pg_locks
    left join pg_catalog.pg_stat_activity on pg_stat_activity.pid = pg_locks.pid
    cross join pg_catalog.hashtextextended('reveille.migrate', 0) as name (hash)
    where pg_locks.locktype = 'advisory' and pg_locks.granted and pg_locks.objsubid = 1
        and pg_locks.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
        and pg_locks.classid::bigint = (hash >> 32) & 4294967295 and pg_locks.objid::bigint = hash & 4294967295";

/// What each migration's transaction begins with. Names that are not qualified are the server's own. A migration takes
/// the time that it takes, but workers wait only for a moment behind the lock that it waits for. Citus would pass on to
/// the nodes of its cluster what is created here, and their own `migrate` would fail; other servers do not know the
/// setting, and keep it without a meaning.
const BEGINNING: &str = "set local search_path = pg_catalog, pg_temp; set local statement_timeout = 0; \
    set local lock_timeout = '1s'; set local citus.enable_ddl_propagation = off;\n";

/// How long to try anew where the tables are in use, and the rest between two tries, in which workers get on.
const IN_USE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(200));

/// The version of the schema that this program works with: that of the last migration.
pub(crate) const CURRENT: i32 = version_of(MIGRATIONS[MIGRATIONS.len() - 1].0);

/// The number in a migration's name, between its first letter and the underscores.
const fn version_of(name: &str) -> i32 {
    let (name, mut place, mut version) = (name.as_bytes(), 1, 0);
    while name[place].is_ascii_digit() {
        version = version * 10 + (name[place] - b'0') as i32;
        place += 1;
    }
    version
}

/// The SQL of all migrations, for who wants to read or run it elsewhere.
///
/// # Errors
/// Invalid if the schema's name is not a plain one.
pub fn migrations_sql(schema: &str) -> Result<String> {
    let schema = Schema::new(schema)?;
    let files = MIGRATIONS.iter().map(|(name, sql)| format!("-- {name}\n\n{}", schema.apply(sql)));
    let foundation = format!("create schema if not exists {};\n{}", schema.name(), history(&schema));
    Ok(format!("{foundation}\n\n{}", files.collect::<Vec<_>>().join("\n")))
}

/// What makes refinery's table of the migrations that were run.
fn history(schema: &Schema) -> String {
    <Client as AsyncMigrate>::assert_migrations_table_query(&history_table(schema))
}

/// The names of what all migrations together make of one kind: `function` or `view`.
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

/// The SQL that makes roles for producers, workers, monitors and administrators, each allowed what it needs and nothing
/// more; they are named after the schema: `reveille_producer` and so on. To be run by the owner of the tables, and
/// again after each migration.
///
/// # Errors
/// Invalid if the schema's name is not a plain one.
pub fn grants_sql(schema: &str) -> Result<String> {
    let schema = Schema::new(schema)?;
    let sql = schema.apply(include_str!("../../sql/grants.sql"));
    let sql = sql.replace("schema reveille ", &format!("schema {} ", schema.name()));
    Ok(sql.replace("reveille_", &format!("{}_", schema.name())))
}

/// Runs what is missing, under an advisory lock: refinery takes none, and processes that start together would collide.
/// The lock is a transaction's, on a connection of its own, so that it holds through a transaction pooler as well.
pub(crate) async fn migrate(address: &Address, schema: &Schema) -> Result<Vec<String>> {
    let what = || format!("migrate {}", address.describe());
    let (mut client, connection) = connect::open(address).await?;
    tokio::spawn(connection);

    // A current schema takes no lock at all, so that starting disturbs nobody.
    if version(&client, schema).await? == CURRENT {
        return Ok(Vec::new());
    }
    let (keeper, connection) = connect::open(address).await?;
    tokio::spawn(connection);
    let (began, mut said) = (Instant::now(), false);
    while !lock(&keeper, schema).await.map_err(|error| Error::database(&what(), error))? {
        if !said && began.elapsed() >= SAY_WHO {
            say_who_migrates(&client, schema).await.map_err(|error| Error::database(&what(), error))?;
            said = true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
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

/// Runs what is missing, one transaction a migration. One that running workers are in the way of, or that is in theirs,
/// is tried again.
async fn apply(client: &mut Client, schema: &Schema, what: &str) -> Result<Vec<String>> {
    let (patience, rest) = IN_USE;
    let (runner, began, mut applied) = (runner(schema)?, Instant::now(), Vec::new());
    loop {
        match runner.run_async(client).await {
            Ok(report) => {
                applied.extend(report.applied_migrations().iter().map(ToString::to_string));
                return Ok(applied);
            }
            Err(error) if is_in_use(&error) && began.elapsed() < patience => {
                let done = error.report().into_iter().flat_map(|report| report.applied_migrations());
                applied.extend(done.map(ToString::to_string));
                tokio::time::sleep(rest).await;
            }
            Err(error) => return Err(failed(what, error)),
        }
    }
}

/// Whether a migration came to nothing because of locks that others hold or wait for.
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

/// Tries to begin a transaction that holds the lock. Who waits for it lets go of his session, which may be one of few.
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

async fn say_who_migrates(client: &Client, schema: &Schema) -> Result<(), tokio_postgres::Error> {
    for row in client.query_typed(&schema.apply(HOLDERS), &[]).await? {
        let backend: Option<i32> = row.get(0);
        let (role, application): (Option<String>, Option<String>) = (row.get(1), row.get(2));
        tracing::warn!(
            name: "migration.waiting", target: "reveille::database", backend, role, application,
            "waiting for another session that migrates, or holds the lock for it; pg_terminate_backend would end it"
        );
    }
    Ok(())
}

/// Checks that the schema is there and that this program knows it.
pub(crate) async fn check(client: &Client, schema: &Schema) -> Result<()> {
    let version = version(client, schema).await?;
    check_not_newer(version)?;
    match version {
        0 => Err(Error::schema_missing(format!(
            "the database has no schema {:?} of Reveille's; run `reveille migrate`",
            schema.name()
        ))),
        CURRENT => Ok(()),
        older => Err(Error::schema_mismatch(format!(
            "the schema is at version {older} and this program needs {CURRENT}; run `reveille migrate`"
        ))),
    }
}

fn check_not_newer(version: i32) -> Result<()> {
    if version > CURRENT {
        return Err(Error::schema_mismatch(format!(
            "the schema is at version {version} and this program knows {CURRENT} at most; use a newer version of the program"
        )));
    }
    Ok(())
}

/// The schema's version; 0 where there is none.
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

/// Refuses a role from which row security hides rows: whatever it counts or looks for, it would be told a lie.
async fn check_sees_all(client: &Client, schema: &Schema) -> Result<()> {
    let sql = include_str!("../../sql/hidden_rows.sql");
    let rows = client.query_typed(sql, &[(&schema.name(), Type::TEXT)]).await;
    let rows = rows.map_err(|error| Error::database("read the catalogue", error))?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (table, role): (&str, &str) = (row.get("name"), row.get("role"));
    Err(Error::denied(format!(
        "row security may hide rows of {}.{table} from the role {role:?}, and answers would be wrong; use a role with bypassrls, \
         or a policy by which it sees all rows: using (true)",
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

fn runner(schema: &Schema) -> Result<Runner> {
    let migrations: Result<Vec<Migration>, _> = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, &format!("{BEGINNING}{}", schema.apply(sql))))
        .collect();
    let mut runner = Runner::new(&migrations.map_err(|error| failed("read the migrations", error))?);
    runner.set_migration_table_name(history_table(schema));
    Ok(runner)
}

fn failed(what: &str, error: refinery::Error) -> Error {
    // The server's own words are innermost; refinery's wrapping repeats the statement.
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Error::schema_mismatch(format!("{what}: {cause}")).with_source(error.to_string())
}
