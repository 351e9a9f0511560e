//! Where the database is, and connections to it.

pub(crate) mod enqueue_on;

pub(crate) mod address;
pub(crate) mod connect;
pub(crate) mod copy;
pub(crate) mod ends;
pub(crate) mod insert;
pub(crate) mod migrate;
mod parameters;
mod params;
mod pgpass;
pub(crate) mod schema;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{Error, Result};
use address::Address;
use ends::Ends;
pub use enqueue_on::{EnqueueOn, Jobs};
pub use migrate::{grants_sql, migrations_sql};
use schema::Schema;

/// Nobody else's functions and operators are run, in whatever schema the user may have on the search path.
pub(crate) const OWN_PATH: &str = "set local search_path = pg_catalog, pg_temp";
/// What a transaction of the program's own begins with. Its statements look rows up by index, whatever the planner
/// knows of the tables: of one that was never analyzed, it would rather read all.
const BY_INDEX: &str =
    "set local enable_seqscan = off; set local jit = off; set local max_parallel_workers_per_gather = 0";
/// Whoever only reads must not wait for somebody's lock, nor be in the way.
const READ_LIMITS: &str = "set local lock_timeout = '2s'; set local statement_timeout = '20s'";

/// A statement's parameter and its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A Postgres database that Reveille's tables are, or will be, in. Cheap to clone.
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

/// How to connect, beyond the address; made by [`Database::options`].
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    url: Option<String>,
    listen_url: Option<String>,
    database: Option<String>,
    schema: String,
    max_connections: usize,
}

impl Database {
    /// Connect to a server and make sure that it answers.
    ///
    /// `url` is a URL or a key-value string as libpq takes them (`sslmode` up to `verify-full`, several hosts, of
    /// which the one that takes writes is used, …). What it leaves open comes from the `PG*` environment variables
    /// and `~/.pgpass`. A parameter that protects is kept or refused by name: `require_auth` is refused unless
    /// `channel_binding=require` makes sure of it.
    ///
    /// # Errors
    /// Invalid if the address makes no sense; unavailable if nobody answers there; denied if the login is refused.
    pub async fn connect(url: impl Into<String>) -> Result<Database> {
        Database::options(Some(url.into())).connect().await
    }

    /// Connect with more to say than the address; `None` takes it from the `PG*` environment variables alone.
    pub fn options(url: Option<String>) -> DatabaseOptions {
        DatabaseOptions { url, listen_url: None, database: None, schema: "reveille".into(), max_connections: 10 }
    }

    /// Create Reveille's tables, or bring them up to date; returns the names of the migrations that it ran.
    ///
    /// Several processes may do this at once: one does it, the others wait for it.
    ///
    /// # Errors
    /// Denied if the user may not create a schema; mismatch if the schema is newer than this program.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        migrate::migrate(&self.inner.address, &self.inner.schema).await
    }

    /// Check that Reveille's tables are there and that this program knows them.
    ///
    /// # Errors
    /// Schema missing or mismatch, saying what to do.
    pub async fn check(&self) -> Result<()> {
        let client = self.client().await?;
        migrate::check(&client, &self.inner.schema).await
    }

    /// A connection from this database's pool, for the caller's own statements and transactions.
    ///
    /// # Errors
    /// Unavailable if none is free within 30 s or the server cannot be reached.
    pub async fn client(&self) -> Result<deadpool_postgres::Client> {
        take(&self.inner.pool, &self.inner.address).await
    }

    /// Reads what may take a while, as one snapshot that can neither wait for long nor be in anybody's way.
    pub(crate) async fn read(&self, what: &str, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let begin = format!("begin isolation level read committed read only; {OWN_PATH}; {BY_INDEX}; {READ_LIMITS}");
        self.in_transaction(what, &begin, sql, params).await
    }

    /// Runs one of the program's own statements, for as long as it takes.
    pub(crate) async fn run(&self, what: &str, sql: &'static str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let begin = format!("begin isolation level read committed read write; {OWN_PATH}; {BY_INDEX}");
        self.in_transaction(what, &begin, sql, params).await
    }

    /// In a transaction, so that what is set for the statement stays with nobody, even behind a pooler; all messages
    /// are sent at once.
    async fn in_transaction(
        &self,
        what: &str,
        begin: &str,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>> {
        let failed = |error| Error::database(what, error);
        let sql = self.schema().apply(sql);
        let client = self.client().await?;
        let (begun, rows, committed) = futures::join!(
            client.batch_execute(begin),
            client.query_typed(&sql, params),
            client.batch_execute("commit")
        );
        begun.map_err(failed)?;
        let rows = rows.map_err(failed)?;
        committed.map_err(failed)?;
        Ok(rows)
    }

    /// The schema that Reveille's tables live in.
    pub fn schema_name(&self) -> &str {
        self.inner.schema.name()
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.inner.schema
    }

    pub(crate) fn address(&self) -> &Address {
        &self.inner.address
    }

    /// Where to listen: past the pooler, if the main address goes through one.
    pub(crate) fn listen_address(&self) -> &Address {
        self.inner.listen_address.as_ref().unwrap_or(&self.inner.address)
    }

    /// Whether there is an address of its own for that.
    pub(crate) fn listens_elsewhere(&self) -> bool {
        self.inner.listen_address.is_some()
    }

    /// Whether a pooler stands between, whose sessions are only lent: nothing set or prepared in one lasts.
    pub fn is_pooled(&self) -> bool {
        self.inner.pooled
    }

    pub(crate) fn ends(&self) -> &Ends {
        &self.inner.ends
    }

    /// A pool of its own whose sessions have a name and start with `settings`.
    pub(crate) fn pool_with(&self, name: &str, settings: String, max_connections: usize) -> Result<Pool> {
        pool(&self.for_worker(self.address(), name), settings, max_connections, true)
    }

    /// An address whose sessions have a name and a time limit from the start: one that the database's owner has set for
    /// others could end the very statement that sets them up.
    pub(crate) fn for_worker(&self, address: &Address, name: &str) -> Address {
        let named = address.named(name);
        if self.is_pooled() { named } else { named.with_setting("statement_timeout", "30s") }
    }
}

impl DatabaseOptions {
    /// This database of the server, instead of the address's.
    pub fn database(mut self, name: impl Into<String>) -> DatabaseOptions {
        self.database = Some(name.into());
        self
    }

    /// The schema that Reveille's tables live in, instead of `reveille`: 1 to 40 of a-z, 0-9 and `_`. Channels and
    /// settings are named after it too.
    pub fn schema(mut self, name: impl Into<String>) -> DatabaseOptions {
        self.schema = name.into();
        self
    }

    /// Listen at another address: needed where the main one leads through a transaction pooler, which does not pass
    /// notifications on.
    pub fn listen_url(mut self, url: impl Into<String>) -> DatabaseOptions {
        self.listen_url = Some(url.into());
        self
    }

    /// At most so many connections for the caller's own use, 1 to 10,000; default 10. A worker opens up to 6 of its
    /// own.
    pub fn max_connections(mut self, max_connections: usize) -> DatabaseOptions {
        self.max_connections = max_connections.clamp(1, 10_000);
        self
    }

    /// Connect and make sure that the server answers. Errors as in [`Database::connect`].
    pub async fn connect(self) -> Result<Database> {
        let parse = |url| -> Result<Address> {
            let address = Address::parse(url)?;
            Ok(match &self.database {
                Some(database) => address.with_database(database),
                None => address,
            })
        };
        let address = parse(self.url.as_deref())?;
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

/// `writes`: its sessions are of no use on a server that takes no writes.
fn pool(address: &Address, settings: String, max_connections: usize, writes: bool) -> Result<Pool> {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let opener = connect::Opener::new(address, writes)?;
    let manager = Manager::from_connect(tokio_postgres::Config::new(), opener, config);
    let mut builder = Pool::builder(manager)
        .max_size(max_connections)
        .runtime(Runtime::Tokio1)
        // The session that was used last has all it needs at hand.
        .queue_mode(QueueMode::Lifo)
        .wait_timeout(Some(Duration::from_secs(30)));
    if !settings.is_empty() {
        builder = builder.post_create(Hook::async_fn(move |client, _| {
            let settings = settings.clone();
            Box::pin(async move { client.batch_execute(&settings).await.map_err(HookError::Backend) })
        }));
    }
    builder.build().map_err(|error| Error::invalid(format!("connection pool: {error}")))
}

/// A connection of a pool, its errors told as ours.
pub(crate) async fn take(pool: &Pool, address: &Address) -> Result<deadpool_postgres::Client> {
    use deadpool_postgres::PoolError;
    let what = || format!("connect to {}", address.describe());
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            Error::database(&what(), error)
        }
        PoolError::Timeout(_) => Error::unavailable(format!("{}: no connection became free within 30 s", what())),
        error => Error::unavailable(format!("{}: {error}", what())),
    })
}
