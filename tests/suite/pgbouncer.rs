//! A real PgBouncer in transaction mode, for tests. `.ci/pooler` fetches PgBouncer.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::harness::{TestDatabase, client, eventually, host_and_port};

/// The number of sessions that PgBouncer lends to its clients.
const SESSIONS: usize = 4;

/// A PgBouncer in front of a database. Dropping this ends the process.
pub struct Pooler {
    process: Child,
    pub folder: PathBuf,
    port: u16,
    database: String,
}

impl Pooler {
    pub async fn start(database: &TestDatabase) -> Pooler {
        let config: tokio_postgres::Config = database.address.parse().unwrap();
        let (host, port_of_server) = host_and_port(&config);
        let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
        let name = config.get_dbname().unwrap().to_owned();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("reveille-pooler-{port}-{:08x}", fastrand::u32(..)));
        std::fs::DirBuilder::new().mode(0o755).create(&folder).unwrap();
        let text = format!(
            "[databases]\n* = host={host} port={} user={} password={password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {SESSIONS}\n\
             unix_socket_dir =\nlogfile = {}/log\n",
            port_of_server,
            config.get_user().unwrap(),
            folder.display(),
        );
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(std::env::var("REVEILLE_PGBOUNCER").unwrap_or_else(|_| "pgbouncer".into()));
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            // Gives the folder to another user, because PgBouncer refuses to run as root.
            lchown(&folder, Some(65534), Some(65534)).unwrap();
            command.uid(65534).gid(65534);
        }
        command.arg("-q").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("PgBouncer starts; .ci/pooler fetches it");
        let pooler = Pooler { process, folder, port, database: name };
        eventually("PgBouncer is up", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
        pooler
    }

    pub fn address(&self) -> String {
        format!("host=127.0.0.1 port={} user=any dbname={}", self.port, self.database)
    }

    /// Returns the number of settings, channels, prepared statements and locks that clients have left in the lent
    /// sessions.
    pub async fn leftovers(&self) -> i64 {
        let mut clients = Vec::new();
        for _ in 0..SESSIONS {
            let client = client(&self.address()).await;
            client.batch_execute("begin").await.unwrap();
            clients.push(client);
        }
        let left = "select (select count(*) from pg_settings where source = 'session' and name not in
                ('client_encoding', 'application_name', 'DateStyle', 'TimeZone', 'standard_conforming_strings'))
            + (select count(*) from pg_listening_channels()) + (select count(*) from pg_prepared_statements)
            + (select count(*) from pg_locks where locktype = 'advisory'
                and database = (select oid from pg_database where datname = current_database()))";
        let mut sum = 0;
        for client in &clients {
            sum += client.query_typed_one(left, &[]).await.unwrap().get::<_, i64>(0);
        }
        sum
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
