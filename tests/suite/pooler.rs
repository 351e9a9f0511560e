//! Through a real PgBouncer in transaction mode. `.ci/pooler` fetches one and runs these.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reveille::enqueue::copy_all;
use reveille::{Context, Database, State, enqueue, enqueue::enqueue_all};

use crate::harness::{
    Note, TestDatabase, Told, client, database, empty_database, eventually, host_and_port, migrations, note, start,
    teller, telling, worker,
};

/// How many sessions it lends.
const SESSIONS: usize = 4;

/// A PgBouncer in front of a database; gone with the test.
struct Pooler {
    process: Child,
    folder: PathBuf,
    port: u16,
    database: String,
}

impl Pooler {
    async fn start(database: &TestDatabase) -> Pooler {
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
            // It refuses root.
            lchown(&folder, Some(65534), Some(65534)).unwrap();
            command.uid(65534).gid(65534);
        }
        command.arg("-q").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("PgBouncer starts; .ci/pooler fetches it");
        let pooler = Pooler { process, folder, port, database: name };
        eventually("PgBouncer is there", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await;
        pooler
    }

    fn address(&self) -> String {
        format!("host=127.0.0.1 port={} user=anybody dbname={}", self.port, self.database)
    }

    /// What is left of others in any of the sessions that it lends: settings, listening, statements, locks.
    async fn leftovers(&self) -> i64 {
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

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Fails once, and then completes in its own transaction.
async fn handle(
    note: Note,
    State(told): State<Told>,
    State(database): State<Database>,
    context: Context,
) -> Result<(), Failed> {
    if note.text == "fails" && context.attempt().number == 1 {
        return Err("once".into());
    }
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    context.complete_in(&tx).await?;
    tx.commit().await?;
    told.tell(note.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PgBouncer: .ci/pooler"]
async fn everything_works_through_a_transaction_pooler_and_nothing_of_it_stays_in_its_sessions() {
    let behind = empty_database().await;
    let pooler = Pooler::start(&behind).await;
    let database = Database::connect(pooler.address()).await.unwrap();
    assert!(database.is_pooled());
    assert!(!behind.is_pooled());
    // Many at once, as when an application is started.
    let migrated = futures::future::join_all((0..4).map(|_| database.migrate())).await;
    assert_eq!(migrated.into_iter().map(|applied| applied.unwrap().len()).sum::<usize>(), migrations().len());

    let (told, mut heard) = telling();
    let build = || {
        let builder = worker(&database).listen(false).poll_interval(Duration::from_millis(50));
        builder.state(told.clone()).state(database.clone()).handle(handle)
    };
    let workers = [start(build()), start(build())];
    enqueue(&database, &note("alone")).await.unwrap();
    enqueue(&database, &note("unique")).unique_key("k").await.unwrap();
    enqueue_all(&database, [&note("many"), &note("fails")]).await.unwrap();
    copy_all(&database, &[note("copied")]).await.unwrap();
    let mut client_of_pool = database.client().await.unwrap();
    for text in ["in a pool's transaction", "in a pool's next"] {
        let tx = client_of_pool.transaction().await.unwrap();
        enqueue(&tx, &note(text)).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut plain = client(&pooler.address()).await;
    let tx = plain.transaction().await.unwrap();
    enqueue(&tx, &note("in a transaction")).await.unwrap();
    tx.commit().await.unwrap();
    let mut told: Vec<String> = Vec::new();
    for _ in 0..8 {
        told.push(heard.next().await);
    }
    told.sort();
    assert_eq!(
        told,
        [
            "alone",
            "copied",
            "fails",
            "in a pool's next",
            "in a pool's transaction",
            "in a transaction",
            "many",
            "unique"
        ]
    );
    behind.until("select count(*) = 8 from reveille.finished_jobs").await;

    let late = enqueue(&database, &note("late")).delay(Duration::from_secs(3600)).await.unwrap().id;
    let admin = database.admin();
    assert_eq!(admin.retry(late).await.unwrap(), "due");
    assert_eq!(heard.next().await, "late");
    admin.pause("default").await.unwrap();
    let waiting = enqueue(&database, &note("waiting")).await.unwrap().id;
    assert_eq!(admin.cancel(waiting).await.unwrap(), "cancelled");
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(behind.value("select count(*) from reveille.workers").await, 0);
    assert_eq!(pooler.leftovers().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PgBouncer: .ci/pooler"]
async fn a_worker_that_listens_past_the_pooler_is_woken_by_the_bell() {
    let behind = database().await;
    let pooler = Pooler::start(&behind).await;
    let options = Database::options(Some(pooler.address())).listen_url(behind.address.clone());
    let database = options.connect().await.unwrap();
    let (builder, mut heard) = teller(&database);
    let worker = start(builder);
    behind.until("select count(*) = 1 from reveille.sleepers").await;
    enqueue(&behind.database, &note("x")).await.unwrap();
    assert_eq!(heard.next().await, "x");
    assert_eq!(behind.value("select holds_lock from reveille.workers").await, true);
    worker.stop().await;
}
