//! The database of a bench, and the server's counters of its work.

use std::time::Duration;

use deadpool_postgres::Client;
use reveille::admin::QueueSettings;
use reveille::dev::Server;
use reveille::{
    Database,
    enqueue::enqueue_all,
    job::{NewJob, Payload},
};

use crate::Failure;
use crate::connection::Connection;
use crate::progress::{Progress, share};

pub const QUEUE: &str = "bench";
/// The kind of jobs that do nothing.
pub const KIND: &str = "bench";
/// The number of jobs that one statement enqueues when the bench fills a queue.
const FILL: usize = 10_000;

pub struct BenchStage {
    /// The throw-away server; `None` if the user gave the address of a server.
    server: Option<Server>,
    /// The database at the address that the user gave; `None` for a throw-away server. A session in this database drops
    /// the bench's database.
    pub home: Option<Database>,
    pub database: Database,
    /// The address by which a child process reaches the same database.
    pub url: Option<String>,
    pub name: String,
    pub progress: Progress,
}

impl BenchStage {
    pub async fn set(connection: &Connection, progress: Progress) -> Result<BenchStage, Failure> {
        let name = format!("reveille_bench_{:08x}", fastrand::u32(..));
        let (server, url) = match connection.url() {
            Some(url) => (None, url.to_owned()),
            None => {
                let server = Server::options().fsync(true).start()?;
                let url = server.url("postgres");
                (Some(server), url)
            }
        };
        let home = Database::connect(url.clone()).await?;
        home.client().await?.batch_execute(&format!("create database {name}")).await?;
        let database = Database::options(Some(url.clone())).database(&name).max_connections(64).connect().await?;
        database.migrate().await?;
        let home = server.is_none().then_some(home);
        Ok(BenchStage { server, home, database, url: Some(url), name, progress })
    }

    /// Drops the database, unless its server is a throw-away server.
    pub async fn clear(self) -> Result<(), Failure> {
        let Some(home) = &self.home else { return Ok(()) };
        drop(self.database);
        let client = home.client().await?;
        Ok(client.batch_execute(&format!("drop database if exists {} with (force)", self.name)).await?)
    }

    pub async fn client(&self) -> Result<Client, Failure> {
        Ok(self.database.client().await?)
    }

    pub async fn run(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.client().await?.batch_execute(sql).await?)
    }

    /// Sets the queue's retention so that no finished job is kept.
    pub async fn keep_no_history(&self) -> Result<(), Failure> {
        let none = QueueSettings::new().retention(Duration::ZERO);
        Ok(self.database.admin().set_queue(QUEUE, none).await?)
    }

    /// Removes all jobs, the history and the counters.
    pub async fn empty(&self) -> Result<(), Failure> {
        self.run("truncate reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.counters").await
    }

    /// Returns the process id of the throw-away server, if there is one.
    pub fn postmaster(&self) -> Option<u32> {
        let file = std::fs::read_to_string(self.server.as_ref()?.data_dir().join("postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok()
    }

    /// Enqueues jobs that do nothing, and vacuums.
    pub async fn fill(&self, queue: &str, jobs: usize) -> Result<(), Failure> {
        self.fill_with_keys(queue, jobs, 0).await
    }

    /// Enqueues jobs that have `keys` keys in turn, and vacuums.
    pub async fn fill_with_keys(&self, queue: &str, jobs: usize, keys: usize) -> Result<(), Failure> {
        self.send(queue, jobs, keys).await?;
        self.run("vacuum analyze reveille.jobs").await
    }

    /// Enqueues jobs without keys, without a vacuum.
    pub async fn fill_quietly(&self, queue: &str, jobs: usize) -> Result<(), Failure> {
        self.send(queue, jobs, 0).await
    }

    async fn send(&self, queue: &str, jobs: usize, keys: usize) -> Result<(), Failure> {
        let job = NewJob::new(KIND, Payload::encode(&())?).queue(queue);
        let mut sent = 0;
        while sent < jobs {
            self.progress.note(format_args!("filling the queue, {}", share(sent as u64, jobs as u64)));
            let batch = sent..jobs.min(sent + FILL);
            let key = |n: usize| n.checked_rem(keys).map(|key| format!("key {key}"));
            let keyed = |n| {
                let mut job = job.clone();
                job.key = key(n);
                job
            };
            let jobs: Vec<_> = batch.clone().map(keyed).collect();
            enqueue_all(&self.database, &jobs).await?;
            sent = batch.end;
        }
        self.progress.note("the queue is full");
        Ok(())
    }

    /// Turns the trigger that rings the bell on or off.
    pub async fn trigger(&self, on: bool) -> Result<(), Failure> {
        self.run(&format!("alter table reveille.jobs {} trigger ring", if on { "enable" } else { "disable" })).await
    }
}

/// The work that the server has done so far.
pub struct ServerWork {
    wal_bytes: i64,
    wal_images: i64,
    commits: i64,
}

impl ServerWork {
    /// Reads the counters. Call this after the sessions have ended, because a session reports its last work at its end.
    pub async fn so_far(client: &Client) -> Result<ServerWork, Failure> {
        let sql = "select pg_stat_force_next_flush(), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,
            (select wal_fpi from pg_stat_wal)::bigint,
            (select xact_commit from pg_stat_database where datname = current_database())::bigint";
        let row = client.query_one(sql, &[]).await?;
        Ok(ServerWork { wal_bytes: row.get(1), wal_images: row.get(2), commits: row.get(3) })
    }

    pub fn commits_since(&self, earlier: &ServerWork) -> f64 {
        (self.commits - earlier.commits) as f64
    }

    pub fn wal_bytes_since(&self, earlier: &ServerWork) -> f64 {
        (self.wal_bytes - earlier.wal_bytes) as f64
    }

    /// Returns the number of full-page images in the WAL. The server writes them after each checkpoint.
    pub fn wal_images_since(&self, earlier: &ServerWork) -> f64 {
        (self.wal_images - earlier.wal_images) as f64
    }
}
