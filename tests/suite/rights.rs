//! The rights that enqueuing needs. No user can run code with the rights of the tables' owner.

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::harness::{TestDatabase, client, database, encoded_database, host_and_port, soon};

/// A user of the server, with the rights that a test grants.
struct User {
    name: String,
    address: String,
}

impl User {
    /// Creates the user. `rights` are statements that grant rights to `$user`.
    async fn new(database: &TestDatabase, rights: &str) -> User {
        let name = format!("u{}_{:08x}", std::process::id(), fastrand::u32(..));
        let config: tokio_postgres::Config = database.address.parse().unwrap();
        let ((host, port), dbname) = (host_and_port(&config), config.get_dbname().unwrap());
        database.run(&format!("create role {name} login password 'secret'")).await;
        database.run(&rights.replace("$user", &name)).await;
        let address = format!("host={host} port={port} dbname={dbname} user={name} password=secret");
        User { name, address }
    }

    async fn client(&self) -> Client {
        client(&self.address).await
    }

    async fn end(self, database: &TestDatabase) {
        database.run(&format!("drop owned by {0}; drop role {0}", self.name)).await;
    }
}

/// Listens for the bell as a worker's listener does.
async fn listener(address: &str) -> (Client, UnboundedReceiver<String>) {
    let (client, mut connection) = tokio_postgres::connect(address, NoTls).await.unwrap();
    let (sender, inbox) = unbounded();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(rung) = message {
                let _ = sender.unbounded_send(rung.payload().to_owned());
            }
        }
    });
    client.batch_execute("listen \"reveille.bell\"").await.unwrap();
    (client, inbox)
}

async fn next(inbox: &mut UnboundedReceiver<String>) -> String {
    soon("the bell rings", inbox.next()).await.expect("the listener's connection stands")
}

/// Returns SQL that makes a worker sleep on these queues.
fn sleep_on(queues: &[&str]) -> String {
    let sleepers: String = queues
        .iter()
        .map(|queue| format!("insert into reveille.sleepers (queue, worker) values ({queue}, 1);"))
        .collect();
    format!(
        "insert into reveille.workers (id, host, pid, version, queues, slots) \
            values (1, 'h', 1, 'v', '{{}}', 1);{sleepers}"
    )
}

const INSERT: &str = "insert into reveille.jobs (kind) values ('k')";

#[tokio::test]
async fn the_right_to_insert_is_enough_to_enqueue_and_to_ring() {
    let insert = "grant usage on schema reveille to $user; grant insert on reveille.jobs to $user";
    // Servers before 17 raise an error if the user may not read a sequence.
    let no_sequences = "revoke all on all sequences in schema reveille from public";
    let old_snapshot = format!("begin isolation level repeatable read; {INSERT}; commit");
    let silenced = format!("begin; set local reveille.bell = 'off'; {INSERT}; commit");
    for narrower in ["", no_sequences] {
        let database = database().await;
        database.run(narrower).await;
        let user = User::new(&database, insert).await;
        let producer = user.client().await;
        let enqueue = async |case: &str| {
            for sql in [INSERT, &old_snapshot, &silenced] {
                producer.batch_execute(sql).await.unwrap_or_else(|error| panic!("{case}, {sql}: {error:?}"));
            }
        };
        enqueue("no worker sleeps").await;
        database.run(&sleep_on(&["'default'"])).await;
        let (_listener, mut inbox) = listener(&database.address).await;
        enqueue("a worker sleeps").await;
        assert_eq!([next(&mut inbox).await, next(&mut inbox).await], ["default", "default"]);
        database.run("insert into reveille.queues (name, bell) values ('default', false)").await;
        enqueue("a worker sleeps while the bell is off").await;
        assert_eq!(database.value("select count(*) from reveille.jobs").await, 9);
        user.end(&database).await;
    }
}

#[tokio::test]
async fn periods_keep_a_user_with_few_rights_from_a_second_job() {
    let database = database().await;
    let rights = "grant usage on schema reveille to $user; grant insert, select on reveille.jobs to $user";
    let user = User::new(&database, rights).await;
    let producer = user.client().await;
    let call = "select existed from reveille.enqueue('k', unique_key => 'a', unique_until => '1 hour')";
    for isolation in ["read committed", "repeatable read"] {
        producer.batch_execute(&format!("begin isolation level {isolation}")).await.unwrap();
        let existed = [producer.query_one(call, &[]).await.unwrap(), producer.query_one(call, &[]).await.unwrap()];
        assert_eq!(existed.map(|row| row.get::<_, bool>(0)), [false, true], "{isolation}");
        producer.batch_execute("rollback").await.unwrap();
    }
    user.end(&database).await;
}

#[tokio::test]
async fn no_user_can_make_a_trigger_that_runs_as_the_owner() {
    let database = database().await;
    let rights = "grant usage on schema reveille to $user; create schema own authorization $user";
    let user = User::new(&database, rights).await;
    let stranger = user.client().await;
    stranger.batch_execute("create table own.bait (queue text)").await.unwrap();
    let functions = "select proname from pg_proc
        where pronamespace = 'reveille'::regnamespace and prosecdef and prorettype = 'trigger'::regtype";
    let functions = database.client().await.query(functions, &[]).await.unwrap();
    assert!(functions.iter().any(|function| function.get::<_, &str>(0) == "ring_after_insert"));
    for function in functions {
        let function: &str = function.get(0);
        let trigger = format!("create trigger t after insert on own.bait execute function reveille.{function}()");
        let error = stranger.batch_execute(&trigger).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{function}: {error:?}");
    }
    user.end(&database).await;
}

#[tokio::test]
async fn a_queue_name_that_cannot_be_sent_disturbs_no_listener() {
    let database = encoded_database("SQL_ASCII").await;
    let plain = database.client().await;
    plain.batch_execute(&sleep_on(&["E'\\xff'", "E'caf\\xc3\\xa9'", "'plain'"])).await.unwrap();
    let (listener, mut inbox) = listener(&database.address).await;
    for begin in ["begin", "begin isolation level repeatable read"] {
        for queue in ["E'\\xff'", "E'caf\\xc3\\xa9'", "'plain'"] {
            let insert = format!("insert into reveille.jobs (queue, kind) values ({queue}, 'k') returning id");
            plain.batch_execute(begin).await.unwrap();
            let id: i64 = plain.query_one(&insert, &[]).await.unwrap().get(0);
            plain.batch_execute("commit").await.unwrap();
            plain.batch_execute(&format!("select reveille.retry({id})")).await.unwrap();
        }
        let rung = [next(&mut inbox).await, next(&mut inbox).await, next(&mut inbox).await, next(&mut inbox).await];
        assert_eq!(rung, ["café", "café", "plain", "plain"], "{begin}");
    }
    listener.batch_execute("select 1").await.unwrap();
}
