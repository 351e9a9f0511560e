//! The database: its address, connections to it, and its schema.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use reveille::Database;
//!
//! // From a URL, or by `Database::options` with a schema, a database name or more connections.
//! let database = Database::connect("postgres://app@db.example.com/shop?sslmode=verify-full").await?;
//! database.migrate().await?;
//!
//! let mut client = database.client().await?;
//! let transaction = client.transaction().await?;
//! # drop(transaction);
//! # Ok(())
//! # }
//! ```
//!
//! The guide: [installation](crate::guide::start::installation), [connections](crate::guide::running::sizing),
//! [poolers](crate::guide::running::poolers), [fail-over](crate::guide::running::fail_over).

pub(crate) mod enqueue_on;

pub(crate) mod address;
pub(crate) mod busy;
pub(crate) mod complete_in;
pub(crate) mod connect;
pub(crate) mod copy;
pub(crate) mod ends;
pub(crate) mod insert;
pub(crate) mod json;
pub(crate) mod linked;
pub(crate) mod migrate;
mod parameters;
mod params;
mod pgpass;
pub(crate) mod schema;
#[cfg(feature = "sqlx")]
mod sqlx;
mod tls;
pub(crate) mod transaction;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime};
use futures::future::{BoxFuture, FutureExt};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{Error, Result};
use address::Address;
use busy::BusySession;
pub use complete_in::CompleteIn;
use ends::Ends;
pub use enqueue_on::{EnqueueOn, Jobs};
pub use migrate::{grants_sql, migrations_sql};
use schema::Schema;

/// Makes unqualified names refer to the server's own functions and operators, whatever schemas are on the user's search
/// path.
pub(crate) const OWN_PATH: &str = "set local search_path = pg_catalog, pg_temp";
/// Makes the program's statements find rows by index, in the order of the index. For a table that was never analyzed,
/// the planner would choose to read the whole table, or to read and sort all rows of an index for the first few.
const BY_INDEX: &str = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local jit = off; \
    set local max_parallel_workers_per_gather = 0";
/// Limits a read's wait for locks to 2 s, and its run to 20 s.
const READ_LIMITS: &str = "set local lock_timeout = '2s'; set local statement_timeout = '20s'";

/// A parameter of a statement, with its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A Postgres database that has Reveille's tables, or will get them. Cheap to clone.
///
/// ```no_run
/// # async fn example() -> reveille::Result<()> {
/// let database = reveille::Database::connect("postgres://localhost/shop").await?;
/// database.migrate().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    listen_address: Option<Address>,
    schema: Schema,
    pool: Pool,
    pooled: bool,
    ends: Ends,
}

/// Options of a connection; made by [`Database::options`].
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct DatabaseOptions {
    url: Option<String>,
    listen_url: Option<String>,
    database: Option<String>,
    schema: String,
    application_name: Option<String>,
    max_connections: usize,
}

impl Database {
    /// Connects to a server, and checks that it answers.
    ///
    /// `url` is a URL or a key=value string, as libpq takes them. Parameters that `url` lacks come from the `PG*`
    /// environment variables and from `~/.pgpass`. All values of `sslmode` up to `verify-full` are supported. If `url`
    /// names several hosts, the database uses a host that accepts writes. A parameter for security is never ignored: it
    /// is honoured, or an error names it. For example, `require_auth` is refused unless `channel_binding=require`
    /// enforces it.
    ///
    /// # Errors
    /// Invalid if the address cannot be read; unavailable if no server answers; denied if the login is refused.
    pub async fn connect(url: impl Into<String>) -> Result<Database> {
        Database::options(Some(url.into())).connect().await
    }

    /// Returns options for a connection. With `None`, the address comes from the `PG*` environment variables alone.
    pub fn options(url: Option<String>) -> DatabaseOptions {
        let (listen_url, database, application_name) = (None, None, None);
        DatabaseOptions { url, listen_url, database, schema: "reveille".into(), application_name, max_connections: 10 }
    }

    /// Creates Reveille's tables, or brings them up to date. Returns the names of the migrations that were run.
    ///
    /// Several processes may call this at once. One process runs the migrations, and the other processes wait.
    ///
    /// # Errors
    /// Denied if the user may not create a schema; schema mismatch if the schema is newer than this program.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        migrate::migrate(&self.inner.address, &self.inner.schema).await
    }

    /// Checks that Reveille's tables exist, in the version that this program supports.
    ///
    /// # Errors
    /// Schema missing, or schema mismatch.
    pub async fn check(&self) -> Result<()> {
        let client = self.client().await?;
        migrate::check(&client, &self.inner.schema).await
    }

    /// Takes a connection from this database's pool, for the caller's statements and transactions.
    ///
    /// # Errors
    /// Unavailable if no connection of the pool becomes free within 30 s, or if the server cannot be reached.
    pub async fn client(&self) -> Result<deadpool_postgres::Client> {
        take(&self.inner.pool, &self.inner.address).await
    }

    /// Takes a connection from this database's pool, for a statement that the caller may give up.
    pub(crate) async fn busy_session(&self) -> Result<BusySession> {
        Ok(BusySession::new(self.client().await?, self))
    }

    /// Runs a read that may take long, in one snapshot. The read neither waits nor runs for more than 20 s.
    pub(crate) async fn read(&self, what: &str, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let sql = self.schema().apply(sql);
        let begin = format!("begin isolation level read committed read only; {OWN_PATH}; {BY_INDEX}; {READ_LIMITS}");
        self.in_transaction(what, &begin, &sql, params).await
    }

    /// Runs one of the program's statements, without a time limit.
    pub(crate) async fn run(&self, what: &str, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.run_applied(what, &self.schema().apply(sql), params).await
    }

    /// As [`Database::run`]. The statement already names this database's schema.
    pub(crate) async fn run_applied(&self, what: &str, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.in_transaction(what, &beginning(), sql, params).await
    }

    /// Runs a statement in a transaction, so that the settings end with the statement, even behind a pooler. All
    /// messages are sent at once.
    ///
    /// The future is boxed, so that its code is compiled once, and not in each crate that reads something.
    fn in_transaction<'a>(
        &'a self,
        what: &'a str,
        begin: &'a str,
        sql: &'a str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Vec<Row>>> {
        async move {
            let failed = |error| Error::database(what, error);
            let session = self.busy_session().await?;
            let client = session.client()?;
            let (begun, rows, committed) = futures::join!(
                client.batch_execute(begin),
                client.query_typed(sql, params),
                client.batch_execute("commit")
            );
            session.finish();
            begun.map_err(failed)?;
            let rows = rows.map_err(failed)?;
            committed.map_err(failed)?;
            Ok(rows)
        }
        .boxed()
    }

    /// The name of the schema of Reveille's tables.
    pub fn schema_name(&self) -> &str {
        self.inner.schema.name()
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.inner.schema
    }

    pub(crate) fn address(&self) -> &Address {
        &self.inner.address
    }

    /// Returns the address at which to listen.
    pub(crate) fn listen_address(&self) -> &Address {
        self.inner.listen_address.as_ref().unwrap_or(&self.inner.address)
    }

    /// True if there is a separate address for listening.
    pub(crate) fn listens_elsewhere(&self) -> bool {
        self.inner.listen_address.is_some()
    }

    /// True if the address leads to a pooler. A pooler lends sessions, so settings and prepared statements do not last.
    pub fn is_pooled(&self) -> bool {
        self.inner.pooled
    }

    pub(crate) fn ends(&self) -> &Ends {
        &self.inner.ends
    }

    /// Makes a separate pool. Its sessions have a name, and start with `settings`.
    pub(crate) fn pool_with(&self, name: &str, settings: String, max_connections: usize) -> Result<Pool> {
        pool(&self.for_worker(self.address(), name), settings, max_connections, true)
    }

    /// Returns an address for a worker's sessions: they start with a name and a `statement_timeout`. Without this
    /// timeout, a shorter timeout of the whole database could end the statement that sets up the session.
    pub(crate) fn for_worker(&self, address: &Address, name: &str) -> Address {
        let named = address.named(name);
        if self.is_pooled() { named } else { named.with_setting("statement_timeout", "30s") }
    }
}

impl DatabaseOptions {
    /// Uses this database of the server instead of the database that the address names.
    pub fn database(mut self, name: impl Into<String>) -> DatabaseOptions {
        self.database = Some(name.into());
        self
    }

    /// Uses tables in this schema; default `reveille`. The name has 1 to 40 characters of a-z, 0-9 and `_`. Channels
    /// and settings are named after the schema too.
    pub fn schema(mut self, name: impl Into<String>) -> DatabaseOptions {
        self.schema = name.into();
        self
    }

    /// Listens at another address. Set this address if the main address leads to a transaction pooler, which does not
    /// pass on notifications.
    pub fn listen_url(mut self, url: impl Into<String>) -> DatabaseOptions {
        self.listen_url = Some(url.into());
        self
    }

    /// Names the pool's sessions in `pg_stat_activity`, instead of by the address; default `reveille`. A worker's own
    /// sessions keep their names.
    pub fn application_name(mut self, name: impl Into<String>) -> DatabaseOptions {
        self.application_name = Some(name.into());
        self
    }

    /// Limits the pool to this many connections, 1 to 10,000; default 10. A worker opens up to 6 further connections.
    pub fn max_connections(mut self, max_connections: usize) -> DatabaseOptions {
        self.max_connections = max_connections.clamp(1, 10_000);
        self
    }

    /// Connects to the server, and checks that it answers.
    ///
    /// # Errors
    /// As in [`Database::connect`].
    pub async fn connect(self) -> Result<Database> {
        let parse = |url| -> Result<Address> {
            let address = Address::parse(url)?;
            Ok(match &self.database {
                Some(database) => address.with_database(database),
                None => address,
            })
        };
        let mut address = parse(self.url.as_deref())?;
        if let Some(name) = &self.application_name {
            address = address.named(name);
        }
        let listen_address = self.listen_url.as_deref().map(|url| parse(Some(url))).transpose()?;
        let schema = Schema::new(&self.schema)?;
        let pool = pool(&address, String::new(), self.max_connections, false)?;
        let pooled = connect::is_pooled(&address).await?;
        Ok(Database { inner: Arc::new(Inner { address, listen_address, schema, pool, pooled, ends: Ends::default() }) })
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.inner.address.describe())
    }
}

/// Returns the statements that begin a transaction that may change rows.
fn beginning() -> String {
    format!("begin isolation level read committed read write; {OWN_PATH}; {BY_INDEX}")
}

/// Makes a pool. If the pool `writes`, its sessions must be able to write.
fn pool(address: &Address, settings: String, max_connections: usize, writes: bool) -> Result<Pool> {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let opener = connect::Opener::new(address, writes)?;
    let manager = Manager::from_connect(tokio_postgres::Config::new(), opener, config);
    let mut builder = Pool::builder(manager)
        .max_size(max_connections)
        .runtime(Runtime::Tokio1)
        // The pool lends the session that was used last, since this session has the warmest caches.
        .queue_mode(QueueMode::Lifo)
        .wait_timeout(Some(Duration::from_secs(30)));
    if !settings.is_empty() {
        builder = builder.post_create(Hook::async_fn(move |client, _| {
            let settings = settings.clone();
            Box::pin(async move { client.batch_execute(&settings).await.map_err(HookError::Backend) })
        }));
    }
    builder.build().map_err(|error| Error::invalid(format!("cannot make a connection pool: {error}")))
}

/// Takes a connection from a pool.
pub(crate) async fn take(pool: &Pool, address: &Address) -> Result<deadpool_postgres::Client> {
    use deadpool_postgres::PoolError;
    let what = || format!("connect to {}", address.describe());
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            Error::database(&what(), error)
        }
        PoolError::Timeout(_) => Error::unavailable(format!(
            "cannot {}: no connection of the pool became free within 30 s; raise max_connections, \
                or hold connections for less time",
            what()
        )),
        error => Error::unavailable(format!("cannot {}: {error}", what())),
    })
}
