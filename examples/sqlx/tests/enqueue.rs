//! Jobs are enqueued and completed on connections, transactions and pools of sqlx.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reveille::dev::Server;
use reveille::enqueue::{Enqueuer, Members, Workflow, copy_all, emit, enqueue_all};
use reveille::handler::{EncryptedField, Encryption, Middleware};
use reveille::job::{Enqueued, NewJob, Payload, Priority, RetryPolicy, UniqueMode};
use reveille::{Context, Database, State, Worker, enqueue};
use reveille_sqlx_example::{Charge, Failure, SendWelcome, charge_later, create_tables, sign_up, welcome_all, worker};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};

struct Application {
    pool: PgPool,
    database: Database,
    server: Server,
}

impl Application {
    async fn start() -> Application {
        let server = Server::start().unwrap();
        let url = server.url("postgres");
        let (database, pool) = (Database::connect(&url).await.unwrap(), PgPool::connect(&url).await.unwrap());
        database.migrate().await.unwrap();
        create_tables(&pool).await.unwrap();
        Application { pool, database, server }
    }

    /// Returns the single value of a query as JSON.
    async fn value(&self, sql: &str) -> Value {
        let query = format!("select to_jsonb(answer)::text from ({sql}) as answer(value)");
        let text: String = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&self.pool).await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["value"].take()
    }

    async fn jobs(&self) -> Value {
        self.value("select count(*) from reveille.jobs").await
    }

    async fn run(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }
}

fn raw(kind: &str) -> NewJob {
    NewJob::new(kind, Payload::encode(&json!({})).unwrap())
}

#[tokio::test]
async fn a_user_and_its_job_are_stored_together_or_not_at_all() {
    let application = Application::start().await;
    let user_id = sign_up(&application.pool, "ada@example.org").await.unwrap();
    let row = "select jsonb_build_array(kind, queue, payload, tags) from reveille.jobs";
    let expected = json!(["send_welcome", "mail", {"user_id": user_id}, ["signup"]]);
    assert_eq!(application.value(row).await, expected);

    // The address is taken, so nothing is stored. A transaction that is dropped stores nothing either.
    sign_up(&application.pool, "ada@example.org").await.unwrap_err();
    let mut tx = application.pool.begin().await.unwrap();
    enqueue(&mut *tx, &SendWelcome { user_id: 7 }).await.unwrap();
    let mut inner = tx.begin().await.unwrap();
    enqueue(&mut *inner, &SendWelcome { user_id: 8 }).await.unwrap();
    inner.rollback().await.unwrap();
    let inside: i64 = sqlx::query_scalar("select count(*) from reveille.jobs").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(inside, 2, "a rolled back savepoint leaves the jobs before it");
    drop(tx);
    assert_eq!(application.jobs().await, 1);
}

#[tokio::test]
async fn connections_and_pools_of_any_kind_take_jobs() {
    let application = Application::start().await;
    let mut connection = PgConnection::connect(&application.server.url("postgres")).await.unwrap();
    enqueue(&mut connection, &SendWelcome { user_id: 1 }).await.unwrap();
    let mut pooled = application.pool.acquire().await.unwrap();
    enqueue(&mut *pooled, &SendWelcome { user_id: 2 }).await.unwrap();
    enqueue(&application.pool, &SendWelcome { user_id: 3 }).await.unwrap();
    enqueue(&Arc::new(application.pool.clone()), &SendWelcome { user_id: 4 }).await.unwrap();
    enqueue_all(&application.pool, &[SendWelcome { user_id: 5 }]).await.unwrap();
    assert_eq!(enqueue_all::<_, SendWelcome>(&mut connection, &[]).await.unwrap(), []);
    copy_all(&application.pool, &[SendWelcome { user_id: 6 }]).await.unwrap();
    copy_all(&mut connection, &[SendWelcome { user_id: 7 }]).await.unwrap();
    let ids = "select jsonb_agg((payload ->> 'user_id')::int order by id) from reveille.jobs";
    assert_eq!(application.value(ids).await, json!([1, 2, 3, 4, 5, 6, 7]));
}

#[tokio::test]
async fn every_option_of_one_job_of_many_and_of_a_copy_reaches_its_column() {
    let application = Application::start().await;
    let digits = "12345678901234567890.012345678901234567890";
    let metadata = Payload::parse(&format!("{{\"m\": {digits}}}")).unwrap();
    let full = NewJob::new("full", Payload::parse(&format!("{{\"n\": {digits}}}")).unwrap())
        .queue("mail\t\\N 🐘")
        .priority(Priority::Urgent)
        .max_attempts(3)
        .at(SystemTime::UNIX_EPOCH + Duration::from_micros(4_000_000_000_000_001))
        .timeout(Duration::from_millis(1500))
        .key("tenant 7")
        .tag("a, b")
        .tag("{c}")
        .parent(9)
        .metadata(&metadata)
        .unwrap();
    let mut tx = application.pool.begin().await.unwrap();
    enqueue(&mut *tx, &full).await.unwrap();
    enqueue_all(&mut *tx, [&full, &full]).await.unwrap();
    enqueue_all(&mut *tx, [&raw("plain"), &full]).await.unwrap();
    enqueue_all(&mut *tx, [&raw("plain").unique_key("k"), &full]).await.unwrap();
    assert_eq!(copy_all(&mut *tx, &[raw("plain"), full]).await.unwrap(), 2);
    tx.commit().await.unwrap();
    let rows = "select jsonb_agg(distinct to_jsonb(jobs) - 'id' - 'created_at') from reveille.jobs where kind = 'full'";
    let rows = application.value(rows).await;
    assert_eq!(rows.as_array().unwrap().len(), 1, "all ways store the same row: {rows:#}");
    let row = "select to_jsonb(array[queue, priority::text, max_attempts::text, extract(epoch from available_at)::text,
            timeout::text, key, tags::text, payload ->> 'n', metadata ->> 'm', parent_id::text])
        from reveille.jobs where kind = 'full' limit 1";
    let expected = json!([
        "mail\t\\N 🐘",
        "0",
        "3",
        "4000000000.000001",
        "00:00:01.5",
        "tenant 7",
        "{\"a, b\",\"{c}\"}",
        digits,
        digits,
        "9"
    ]);
    assert_eq!(application.value(row).await, expected);
}

#[tokio::test]
async fn unique_jobs_exist_once_and_ids_come_in_the_order_of_the_jobs() {
    let application = Application::start().await;
    let mut tx = application.pool.begin().await.unwrap();
    let first = enqueue(&mut *tx, &raw("k")).unique_key("u").await.unwrap();
    assert!(!first.existed);
    let again = enqueue(&mut *tx, &raw("k")).unique_key("u").unique_mode(UniqueMode::Replace).await.unwrap();
    assert_eq!(again, Enqueued::new(first.id, true));
    tx.commit().await.unwrap();
    sign_up(&application.pool, "ada@example.org").await.unwrap();
    sign_up(&application.pool, "bob@example.org").await.unwrap();
    assert_eq!(welcome_all(&application.pool).await.unwrap(), 2);
    let many: Vec<NewJob> = (0..1000).map(|n| raw("many").priority(Priority::ALL[n % 4])).collect();
    let ids = enqueue_all(&application.pool, &many).await.unwrap();
    assert!(ids.is_sorted_by(|a, b| a.id < b.id) && ids.len() == 1000);
}

#[tokio::test]
async fn a_copy_keeps_its_jobs_or_none_and_the_connection_goes_on() {
    let application = Application::start().await;
    let mut connection = application.pool.acquire().await.unwrap();
    let jobs: Vec<SendWelcome> = (0..20_000).map(|user_id| SendWelcome { user_id }).collect();
    assert_eq!(copy_all(&mut *connection, &jobs).await.unwrap(), 20_000);
    let in_order = "select bool_and((payload ->> 'user_id')::int = place - 1) and count(*) = 20000
        from (select payload, row_number() over (order by id) as place from reveille.jobs) as jobs";
    assert_eq!(application.value(in_order).await, true);
    let error = copy_all(&mut *connection, &[raw("good"), raw("")]).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("kind"), "{error}");
    let error = copy_all(&mut *connection, &[raw("good"), raw("k").unique_key("u")]).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("unique key"), "{error}");
    assert_eq!(copy_all(&mut *connection, &[raw("good")]).await.unwrap(), 1, "the connection still works");
    assert_eq!(application.jobs().await, 20_001);
}

#[tokio::test]
async fn an_error_says_what_happened_and_what_to_do() {
    let application = Application::start().await;
    let mut tx = application.pool.begin().await.unwrap();
    let error = enqueue(&mut *tx, &raw("")).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("kind must have 1 to 128"), "{error}");
    enqueue(&mut *tx, &raw("k")).await.expect("the transaction is still usable");
    tx.commit().await.unwrap();

    // The same messages as with tokio-postgres.
    application.run("alter table reveille.jobs add constraint no_bad check (kind <> 'bad')").await;
    let error = enqueue(&application.pool, &raw("bad")).await.unwrap_err();
    let expected = "cannot enqueue: new row for relation \"jobs\" violates check constraint \"no_bad\"";
    assert_eq!(error.to_string(), expected);
    assert_eq!(enqueue(&application.database, &raw("bad")).await.unwrap_err().to_string(), expected);
    assert!(error.is_invalid() && error.code().is_some_and(|code| code.code() == "23514"));
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    assert!(source.unwrap().as_database_error().is_some(), "the error of sqlx is the source");

    let missing = enqueue(&application.pool, &raw("k")).schema("missing").await.unwrap_err();
    assert!(missing.is_schema_missing() && missing.to_string().contains("reveille migrate"), "{missing}");
    let lazy = PgPoolOptions::new().acquire_timeout(Duration::from_millis(50));
    let nowhere = lazy.connect_lazy("postgres://nobody@127.0.0.1:1/nothing").unwrap();
    let error = enqueue(&nowhere, &raw("k")).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("is the server running and reachable?"), "{error}");
    nowhere.close().await;
    assert!(enqueue(&nowhere, &raw("k")).await.unwrap_err().is_unavailable());
    let mut ended = application.pool.begin().await.unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle in transaction'";
    application.run(end).await;
    let error = enqueue(&mut *ended, &raw("k")).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
}

/// Marks each job, and refuses charges of nothing.
struct Marks;

impl Middleware for Marks {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if job.payload.member::<i64>("cents")? == Some(0) {
            return Err("nothing to charge".into());
        }
        Ok(job.set_metadata_member("marked", &true)?)
    }
}

#[tokio::test]
async fn jobs_pass_the_middleware_of_their_enqueuer() {
    let application = Application::start().await;
    let enqueuer = Enqueuer::new().middleware(Marks);
    charge_later(&enqueuer, &application.pool, &Charge { user_id: 7, cents: 5 }).await.unwrap();
    let row = "select jsonb_build_array(metadata, key, available_at > now() + '59 minutes') from reveille.jobs";
    assert_eq!(application.value(row).await, json!([{"marked": true}, "7", true]));
    let mut tx = application.pool.begin().await.unwrap();
    let refused = enqueuer.enqueue(&mut *tx, &Charge { user_id: 7, cents: 0 }).await.unwrap_err();
    assert!(refused.is_refused(), "{refused}");
    enqueuer.enqueue_all(&mut *tx, &[Charge { user_id: 8, cents: 1 }]).await.unwrap();
    enqueuer.copy_all(&mut *tx, &[Charge { user_id: 9, cents: 1 }]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(application.value("select bool_and((metadata -> 'marked')::bool) from reveille.jobs").await, true);
    assert_eq!(application.jobs().await, 3);
}

#[tokio::test]
async fn one_job_many_and_a_copy_are_encrypted() {
    let application = Application::start().await;
    let encryption = Arc::new(Encryption::parse("a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap());
    let enqueuer = Enqueuer::new().middleware(Arc::clone(&encryption));
    let job = || raw("secret");
    let mut tx = application.pool.begin().await.unwrap();
    enqueuer.enqueue(&mut *tx, &job()).await.unwrap();
    enqueuer.enqueue_all(&mut *tx, &[job()]).await.unwrap();
    enqueuer.copy_all(&mut *tx, &[job()]).await.unwrap();
    tx.commit().await.unwrap();
    let stored = application.value("select jsonb_agg(payload) from reveille.jobs").await;
    for payload in stored.as_array().unwrap() {
        let payload = Payload::encode(payload).unwrap();
        let plain = encryption.open("secret", EncryptedField::Payload, &payload).unwrap();
        assert_eq!(plain.as_bytes(), b"{}");
    }
    assert_eq!(stored.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_job_is_enqueued_into_the_tables_of_another_schema() {
    let application = Application::start().await;
    let options = Database::options(Some(application.server.url("postgres"))).schema("two");
    let two = options.connect().await.unwrap();
    two.migrate().await.unwrap();
    two.enqueuer().enqueue(&application.pool, &raw("k")).await.unwrap();
    enqueue(&application.pool, &raw("k")).schema("two").await.unwrap();
    assert_eq!(application.value("select count(*) from two.jobs").await, 2);
    assert_eq!(application.jobs().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_and_the_completion_of_its_job_commit_together() {
    let application = Application::start().await;
    enqueue(&application.pool, &Charge { user_id: 7, cents: 500 }).await.unwrap();
    let worker = worker(application.database.clone(), application.pool.clone()).unwrap();
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 1);
    let row = "select jsonb_build_array(outcome, attempts, (select sum(cents) from example_charges))
        from reveille.finished_jobs";
    assert_eq!(application.value(row).await, json!(["completed", 1, 500]));
}

/// Rolls back its first transaction, tries a connection without a transaction, and then completes its job.
async fn completes_late(job: Charge, State(pool): State<PgPool>, context: Context) -> Result<(), Failure> {
    let insert = "insert into example_charges (user_id, cents) values ($1, $2)";
    let mut tx = pool.begin().await?;
    sqlx::query(insert).bind(job.user_id).bind(100i64).execute(&mut *tx).await?;
    context.complete_in(&mut tx).await?;
    if context.attempt().number == 1 {
        return Ok(());
    }
    tx.rollback().await?;
    let mut connection = pool.acquire().await?;
    let error = context.complete_in(&mut *connection).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("in a transaction"), "{error}");
    let mut tx = connection.begin().await?;
    sqlx::query(insert).bind(job.user_id).bind(job.cents).execute(&mut *tx).await?;
    context.complete_in(&mut *tx).await?;
    assert!(context.complete_in(&mut tx).await.unwrap_err().is_invalid(), "a job can be completed only once");
    tx.commit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_is_rolled_back_leaves_neither_effect_nor_ending() {
    let application = Application::start().await;
    enqueue(&application.pool, &Charge { user_id: 7, cents: 500 }).await.unwrap();
    let worker = Worker::builder(application.database.clone()).state(application.pool.clone()).handle(completes_late);
    let drained = worker.build().unwrap().run_until_drained().await.unwrap();
    assert_eq!(drained.completed, 1);
    let row = "select jsonb_build_array(outcome, attempts, errors -> 0 ->> 'error', (select sum(cents)
            from example_charges))
        from reveille.finished_jobs";
    let error = "the transaction that completed the job was rolled back";
    assert_eq!(application.value(row).await, json!(["completed", 2, error, 500]));
}

#[tokio::test]
async fn a_second_enqueue_on_a_connection_takes_one_prepared_statement() {
    let application = Application::start().await;
    let mut connection = application.pool.acquire().await.unwrap();
    for user_id in 0..3 {
        enqueue(&mut *connection, &SendWelcome { user_id }).await.unwrap();
    }
    let prepared = "select count(*) from pg_prepared_statements
        where statement like '%insert into reveille.jobs%' and statement not like '%pg_prepared_statements%'";
    let prepared: i64 = sqlx::query_scalar(prepared).fetch_one(&mut *connection).await.unwrap();
    assert_eq!(prepared, 1);
}

/// Two jobs, of which the second waits for the first.
fn pair(name: &str) -> Workflow {
    let mut workflow = Workflow::new(name);
    let first = workflow.add("first", &raw("first"));
    workflow.add("second", &raw("second")).after(&first);
    workflow
}

#[tokio::test]
async fn workflows_are_stored_with_the_transaction_or_not_at_all() {
    let application = Application::start().await;
    let mut undone = application.pool.begin().await.unwrap();
    pair("undone").enqueue(&mut *undone).await.unwrap();
    let first = enqueue(&mut *undone, &raw("first")).await.unwrap().id;
    enqueue(&mut *undone, &raw("second")).after([first]).await.unwrap();
    undone.rollback().await.unwrap();
    assert_eq!(application.value("select count(*) from reveille.workflows").await, 0);

    let mut tx = application.pool.begin().await.unwrap();
    let mut circle = Workflow::new("circle");
    circle.add("a", &raw("k")).after("b");
    circle.add("b", &raw("k")).after("a");
    let error = circle.enqueue(&mut *tx).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("circle"), "{error}");
    let whole = pair("whole").unique_key("k").enqueue(&mut *tx).await.expect("the transaction is still usable");
    let again = pair("whole").unique_key("k").enqueue(&mut *tx).await.unwrap();
    assert_eq!((again.id, again.existed), (whole.id, true));
    let parts = pair("parts").open(&mut *tx).await.unwrap();
    let third = Members::new();
    third.add("third", &raw("third")).after("second");
    parts.add(&mut *tx, third).await.unwrap();
    tx.commit().await.unwrap();
    parts.seal(&application.pool).await.unwrap();
    let first = enqueue(&application.pool, &raw("first")).await.unwrap().id;
    enqueue(&application.pool, &raw("second")).after([first]).await.unwrap();

    let states = "select jsonb_agg(jsonb_build_array(name, state, jobs, blocked) order by id)
        from reveille.workflow_status";
    let expected = json!([["whole", "running", 2, 1], ["parts", "running", 3, 2]]);
    assert_eq!(application.value(states).await, expected);
    assert_eq!(application.value("select count(*) from reveille.blocked_jobs").await, 4);
    let builder = Worker::builder(application.database.clone()).queue("default", 1);
    let worker = builder.handle_any(|_: Context| async {}, RetryPolicy::default()).build().unwrap();
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 7);
    let expected = json!([["whole", "completed", 2, 0], ["parts", "completed", 3, 0]]);
    assert_eq!(application.value(states).await, expected);
}

#[tokio::test]
async fn events_come_with_the_transaction() {
    let application = Application::start().await;
    let mut undone = application.pool.begin().await.unwrap();
    assert!(emit(&mut *undone, "paid:7", &1).await.unwrap());
    undone.rollback().await.unwrap();
    let mut tx = application.pool.begin().await.unwrap();
    let error = emit(&mut *tx, "reveille:end:7", &1).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("are reserved"), "{error}");
    assert!(emit(&mut *tx, "paid:7", &2).await.expect("the transaction is still usable"));
    assert!(!emit(&mut *tx, "paid:7", &3).await.unwrap());
    tx.commit().await.unwrap();
    assert!(emit(&application.pool, "paid:8", &json!(null)).await.unwrap());
    assert!(!emit(&application.pool, "paid:7", &4).await.unwrap());
    let events = application.value("select jsonb_object_agg(name, payload) from reveille.events").await;
    assert_eq!(events, json!({"paid:7": 2, "paid:8": null}));
}
