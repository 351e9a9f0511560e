use tokio_postgres::{Client, NoTls};

use super::server::Server;
use crate::error::{Error, Result};

impl Server {
    /// Starts a standby: a second server with the same options, which follows this server by streaming replication and
    /// accepts only reads.
    ///
    /// To test a fail-over, drop this server, and run `select pg_promote()` on the standby. Dropping the server stops
    /// it as a crash would. Replication is asynchronous: if your test needs the last commits, wait until they have
    /// reached the standby.
    ///
    /// ```no_run
    /// # async fn example() -> reveille::Result<()> {
    /// let primary = reveille::dev::Server::start()?;
    /// let standby = primary.standby().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Unavailable if this server does not run or the standby does not start.
    pub async fn standby(&self) -> Result<Server> {
        let failed = |error| Error::database("make a standby", error);
        let (client, connection) = tokio_postgres::connect(&self.url("postgres"), NoTls).await.map_err(failed)?;
        tokio::spawn(connection);
        // With the replication slot, the primary keeps its log for the standby.
        let slot = format!("standby_{:08x}", fastrand::u32(..));
        let keep = format!("select pg_create_physical_replication_slot('{slot}', true)");
        client.batch_execute(&keep).await.map_err(failed)?;
        let backup = Backup::begin(&client).await.map_err(failed)?;
        let standby = Server::initialise(&self.bin, &self.options, self.password.clone(), Some(&self.data_dir()));
        let label = backup.end().await.map_err(failed)?;
        let mut standby = standby?;
        standby.follow(self, &slot, &label)?;
        standby.start_on_a_free_port()
    }

    fn follow(&mut self, primary: &Server, slot: &str, label: &str) -> Result<()> {
        let (port, password) = (primary.port(), &primary.password);
        let settings = format!(
            "primary_conninfo = 'host=127.0.0.1 port={port} user=postgres password={password}'\n\
             primary_slot_name = '{slot}'"
        );
        self.append("data/backup_label", label)?;
        self.append("data/standby.signal", "")?;
        self.append("data/postgresql.auto.conf", &settings)
    }
}

/// A base backup of the primary. The backup ends with its session.
struct Backup<'a> {
    client: &'a Client,
    end: &'static str,
}

impl Backup<'_> {
    async fn begin(client: &Client) -> Result<Backup<'_>, tokio_postgres::Error> {
        let version = client.query_one("select current_setting('server_version_num')::int", &[]).await?;
        let (begin, end) = if version.get::<_, i32>(0) >= 150_000 {
            ("select pg_backup_start('standby', true)", "select labelfile from pg_backup_stop(false)")
        } else {
            ("select pg_start_backup('standby', true, false)", "select labelfile from pg_stop_backup(false, false)")
        };
        client.batch_execute(begin).await?;
        Ok(Backup { client, end })
    }

    /// Ends the backup, and returns the text of the file `backup_label`. Without this file, the copy is not consistent.
    async fn end(self) -> Result<String, tokio_postgres::Error> {
        Ok(self.client.query_one(self.end, &[]).await?.get(0))
    }
}
