//! One table is the entry to two databases, by `postgres_fdw`. The SQL of `docs/beyond/one-entry.md` makes the entry.

use std::collections::BTreeSet;

use reveille::database::grants_sql;
use reveille::enqueue::Enqueuer;
use reveille::{Database, enqueue};
use tokio_postgres::Client;

use crate::harness::{
    TestDatabase, address, client, database, empty_database, host_and_port, note, reporting_worker, start,
};

const PAGE: &str = include_str!("../../docs/beyond/one-entry.md");
/// Eight jobs whose keys spread over both databases.
const EIGHT: &str = "insert into entry.jobs (kind, payload, key)
    select 'note', jsonb_build_object('text', 'note ' || n), 'customer-' || n from generate_series(1, 8) as n";

/// Two databases that hold jobs, `a` and `b`, and a third for producers, who enqueue through its foreign tables.
struct Entry {
    a: TestDatabase,
    b: TestDatabase,
    producers: TestDatabase,
}

impl Entry {
    async fn new() -> Entry {
        let config: tokio_postgres::Config = address("postgres").parse().unwrap();
        let user = config.get_user().unwrap();
        let password = String::from_utf8_lossy(config.get_password().unwrap_or_default());
        let entry = Entry::without_tables().await;
        entry.make_tables("reveille", user, &password, "current_user").await;
        entry
    }

    async fn without_tables() -> Entry {
        Entry { a: database().await, b: database().await, producers: empty_database().await }
    }

    /// Makes the entry: foreign tables for the jobs of both databases, in this schema. The foreign tables log in as the
    /// role `user`. The role `program` may insert into the entry.
    async fn make_tables(&self, schema: &str, user: &str, password: &str, program: &str) {
        let has_fdw = "select count(*) from pg_available_extensions where name = 'postgres_fdw'";
        assert_eq!(
            self.producers.value(has_fdw).await,
            1,
            "this server has no postgres_fdw: install Postgres' contrib modules"
        );
        let mut sql = PAGE.split("```sql\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
        let mut replace = |old: &str, new: &str| {
            assert!(sql.contains(old), "the page has {old:?}");
            sql = sql.replace(old, new);
        };
        for (name, jobs) in [("jobs-a", &self.a), ("jobs-b", &self.b)] {
            let config: tokio_postgres::Config = jobs.address.parse().unwrap();
            let ((host, port), dbname) = (host_and_port(&config), config.get_dbname().unwrap());
            replace(
                &format!("host '{name}', port '5432', dbname 'jobs'"),
                &format!("host '{host}', port '{port}', dbname '{dbname}'"),
            );
        }
        replace("user 'entry', password 'secret'", &format!("user '{user}', password '{password}'"));
        replace("schema_name 'reveille'", &format!("schema_name '{schema}'"));
        replace("current_user", program);
        self.producers.run(&sql).await;
        self.producers.run("create table orders (id bigint)").await;
    }

    /// Returns the number of jobs that wait in each of the two databases.
    async fn waiting(&self) -> [i64; 2] {
        let mut counts = [0; 2];
        for (count, jobs) in counts.iter_mut().zip([&self.a, &self.b]) {
            *count = jobs.value("select count(*) from reveille.jobs").await.as_i64().unwrap();
        }
        counts
    }

    async fn producer(&self) -> Client {
        self.producers.client().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_insert_spreads_jobs_over_two_databases_and_wakes_both_workers() {
    let entry = Entry::new().await;
    // The workers poll once an hour, so only the bell wakes them.
    let (builder, mut at_a) = reporting_worker(&entry.a);
    let worker_a = start(builder);
    let (builder, mut at_b) = reporting_worker(&entry.b);
    let worker_b = start(builder);
    for jobs in [&entry.a, &entry.b] {
        jobs.until("select exists (select from reveille.sleepers where queue = 'default')").await;
    }
    let mut producer = entry.producer().await;
    let tx = producer.transaction().await.unwrap();
    let rows = tx.query(&format!("{EIGHT} returning tableoid::regclass::text, id"), &[]).await.unwrap();
    tx.commit().await.unwrap();
    let places: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let in_a = places.iter().filter(|(table, _)| table == "entry.jobs_a").count();
    assert!(places.len() == 8 && 0 < in_a && in_a < 8, "{places:?}");
    let mut seen = BTreeSet::new();
    for _ in 0..in_a {
        seen.insert(at_a.next().await);
    }
    for _ in in_a..8 {
        seen.insert(at_b.next().await);
    }
    assert_eq!(seen, (1..=8).map(|n| format!("note {n}")).collect());
    worker_a.stop().await;
    worker_b.stop().await;
    // The ids that the insert returned are the ids in the database of each job.
    let of_a: Vec<String> =
        places.iter().filter(|(table, _)| table == "entry.jobs_a").map(|(_, id)| id.to_string()).collect();
    let found =
        format!("select count(*) from reveille.finished_jobs where id in ({}) and attempts = 1", of_a.join(", "));
    assert_eq!(entry.a.value(&found).await, in_a);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_leaves_no_job_in_any_database() {
    let entry = Entry::new().await;
    let mut producer = entry.producer().await;
    let tx = producer.transaction().await.unwrap();
    assert_eq!(tx.execute(EIGHT, &[]).await.unwrap(), 8);
    tx.rollback().await.unwrap();
    assert_eq!(entry.waiting().await, [0, 0]);
    // An error rolls back the inserts in both databases, and so does a rollback to a savepoint.
    let tx = producer.transaction().await.unwrap();
    tx.execute(EIGHT, &[]).await.unwrap();
    let odd = tx.execute("insert into entry.jobs (kind, key, priority) values ('note', 'customer-1', 9)", &[]).await;
    let odd = odd.unwrap_err().as_db_error().unwrap().message().to_owned();
    assert!(odd.contains("priority_is_0_to_3"), "{odd}");
    drop(tx);
    assert_eq!(entry.waiting().await, [0, 0]);
    let mut tx = producer.transaction().await.unwrap();
    let savepoint = tx.transaction().await.unwrap();
    savepoint.execute(EIGHT, &[]).await.unwrap();
    savepoint.rollback().await.unwrap();
    tx.execute("insert into entry.jobs (kind) values ('note')", &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(entry.waiting().await, [1, 0], "a job without a key goes to the first database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_exist_although_its_transaction_failed_at_the_commit() {
    let entry = Entry::new().await;
    entry.producers.run("insert into orders values (1), (2)").await;
    let (one, two) = (entry.producer().await, entry.producer().await);
    // Each transaction reads the order that the other inserts. One transaction must fail, and it fails at its commit.
    one.batch_execute("begin isolation level serializable; select from orders where id = 1").await.unwrap();
    one.batch_execute("insert into orders values (2)").await.unwrap();
    one.batch_execute(EIGHT).await.unwrap();
    two.batch_execute("begin isolation level serializable; select from orders where id = 2").await.unwrap();
    two.batch_execute("insert into orders values (1); commit").await.unwrap();
    let refused = one.batch_execute("commit").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "40001", "{refused:?}");
    assert_eq!(entry.producers.value("select count(*) from orders").await, 3);
    assert_eq!(entry.waiting().await.iter().sum::<i64>(), 8, "the job servers had committed before");
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_enqueues_through_the_entry_with_the_rights_of_a_producer() {
    let entry = Entry::without_tables().await;
    // Roles belong to the whole server, so their names begin with the schema of this test.
    let schema = format!("r{}_{:08x}", std::process::id(), fastrand::u32(..));
    let (user, program) = (format!("{schema}_entry"), format!("{schema}_program"));
    for jobs in [&entry.a, &entry.b] {
        let owner = Database::options(Some(jobs.address.clone())).schema(&schema).connect().await.unwrap();
        owner.migrate().await.unwrap();
        jobs.run(&grants_sql(&schema).unwrap()).await;
    }
    entry.producers.run(&format!("create role {program} login password 'p'")).await;
    entry.a.run(&format!("create role {user} login password 'p' in role {schema}_producer")).await;
    for jobs in [&entry.a, &entry.b] {
        jobs.run(&format!("grant insert (id) on {schema}.jobs to {user}")).await;
    }
    entry.make_tables(&schema, &user, "p", &program).await;

    let config: tokio_postgres::Config = entry.producers.address.parse().unwrap();
    let ((host, port), dbname) = (host_and_port(&config), config.get_dbname().unwrap());
    let mut producer = client(&format!("host={host} port={port} dbname={dbname} user={program} password=p")).await;
    let tx = producer.transaction().await.unwrap();
    let job = enqueue(&tx, &note("one")).schema("entry").key("customer-1").queue("mail").tag("t").await.unwrap();
    let enqueuer = Enqueuer::new().schema("entry");
    let many: Vec<_> = (0..10).map(|_| note("many")).collect();
    assert_eq!(enqueuer.enqueue_all(&tx, &many).await.unwrap().len(), 10);
    assert_eq!(enqueuer.copy_all(&tx, &many).await.unwrap(), 10);
    tx.commit().await.unwrap();
    let first = format!("select id from {schema}.jobs where key = 'customer-1' and queue = 'mail' and tags = '{{t}}'");
    assert_eq!(entry.a.value(&first).await, job.id);
    assert_eq!(entry.a.value(&format!("select count(*) from {schema}.jobs")).await, 21);

    // The program cannot read the password of the entry, and the entry cannot read payloads.
    let read = "select count(*) from pg_user_mappings where umoptions is not null";
    assert_eq!(producer.query_one(read, &[]).await.unwrap().get::<_, i64>(0), 0);
    let refused = producer.batch_execute("select payload from entry.jobs").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501");
    let refused = enqueue(&producer, &note("unique")).schema("entry").unique_key("u").await.unwrap_err();
    assert!(refused.to_string().contains("entry.enqueue"), "{refused}");

    entry.producers.run(&format!("drop owned by {program}; drop role {program}")).await;
    let roles = ["entry", "producer", "worker", "monitor", "admin"].map(|role| format!("{schema}_{role}")).join(", ");
    for jobs in [&entry.a, &entry.b] {
        jobs.run(&format!("drop owned by {roles}")).await;
    }
    entry.a.run(&format!("drop role {roles}")).await;
}
