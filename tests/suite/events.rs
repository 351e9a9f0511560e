//! Events: whenever an event comes, before or after the wait, the waiting job goes on with its payload.

use std::time::Duration;

use futures::future::join_all;
use reveille::admin::StepKind;
use reveille::driver::Memory;
use reveille::enqueue::{Enqueuer, emit};
use reveille::job::{JobState, Payload};
use reveille::{Context, Outcome, State, Worker, enqueue};
use serde_json::{Value, json};

use crate::durable::Order;
use crate::harness::{Reporter, TestDatabase, database, reporting, soon, start, worker};

const HOUR: Duration = Duration::from_secs(3600);
/// True once the job has snoozed until its event comes.
const WAITS: &str = "select exists (select from reveille.waits) and not exists (
    select from reveille.jobs where reserved_at is not null or available_at < now() + interval '50 minutes')";

/// Waits for the payment of an order, and reports it.
async fn await_payment(order: Order, context: Context, State(reporter): State<Reporter>) -> reveille::Result<()> {
    let paid: Option<Value> = context.wait_for(format!("paid:{}", order.id), HOUR).await?;
    reporter.report(format!("{}: {}", order.id, paid.unwrap_or(json!("never"))));
    Ok(())
}

async fn is_done(database: &TestDatabase, jobs: usize) {
    database.until(&format!("select count(*) = {jobs} from reveille.finished_jobs where outcome = 'completed'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_lets_a_waiting_job_go_on_once_its_transaction_commits() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(await_payment));
    enqueue(&database.database, &Order { id: 7 }).max_attempts(1).await.unwrap();
    database.until(WAITS).await;
    let mut client = database.client().await;
    let undone = client.transaction().await.unwrap();
    assert!(emit(&undone, "paid:7", &json!({"cents": 1})).await.unwrap());
    undone.rollback().await.unwrap();
    let tx = client.transaction().await.unwrap();
    assert!(emit(&tx, "paid:7", &json!({"cents": 990})).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(reports.next().await, r#"7: {"cents":990}"#);
    is_done(&database, 1).await;
    assert_eq!(database.value("select failures from reveille.finished_jobs").await, 0);
    database.until("select not exists (select from reveille.waits)").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_although_a_waiting_job_cannot_be_changed_and_an_end_cannot_be_applied() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(await_payment));
    for id in [7, 8] {
        enqueue(&database.database, &Order { id }).await.unwrap();
    }
    let waits = "select count(*) = 2 from reveille.waits join reveille.jobs on jobs.id = waits.job
        where jobs.reserved_at is null";
    database.until(waits).await;
    database
        .run(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
            create trigger refuse before update of available_at on reveille.jobs for each row
            when (old.id = 1) execute function refuse();
            create trigger refuse before delete on reveille.linked_ends for each row execute function refuse();
            insert into reveille.linked_ends (job, outcome) values (99, 'completed');
            select reveille.emit('paid:7', '1'), reveille.emit('paid:8', '2')",
        )
        .await;
    assert_eq!(reports.next().await, "8: 2");
    worker.stop().await;
}

#[tokio::test]
async fn what_no_event_can_have_is_refused_with_the_limit_in_sql_and_in_rust() {
    let database = database().await;
    let (long, large) = ("x".repeat(513), "x".repeat(8191));
    for (event, payload) in [("", ""), (&*long, ""), ("reveille:x", ""), ("a \"b\"", &*large)] {
        let error = emit(&database.database, event, payload).await.unwrap_err().to_string();
        let refusal = database.refusal(&format!("select reveille.emit('{event}', '\"{payload}\"')")).await;
        assert_eq!(refusal, error.split(';').next().unwrap());
    }
    let nothing = database.refusal("select reveille.emit(null)").await;
    assert_eq!(nothing, "an event's name must have 1 to 512 bytes, not 0");
    database.run("select reveille.emit('null', null)").await;
    assert_eq!(database.value("select payload from reveille.events").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_came_before_the_wait_counts_at_once() {
    let database = database().await;
    database.run("select reveille.emit('paid:7', '1'), reveille.emit('paid:7', '2')").await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(await_payment));
    enqueue(&database.database, &Order { id: 7 }).await.unwrap();
    assert_eq!(reports.next().await, "7: 1");
    is_done(&database, 1).await;
    assert_eq!(database.value("select attempts from reveille.finished_jobs").await, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_that_comes_at_the_same_time_as_its_wait() {
    const ORDERS: i64 = 300;
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let workers = [(); 2].map(|()| start(worker(&database).state(reporter.clone()).handle(await_payment)));
    let client = database.client().await;
    for id in 0..ORDERS {
        // The event comes while the handler begins to wait, a little earlier, or a little later.
        let (event, order) = (format!("paid:{id}"), Order { id });
        let later = async {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..20_000))).await;
            emit(&client, &event, &id).await
        };
        let (enqueued, emitted) = futures::join!(async { enqueue(&database.database, &order).await }, later);
        assert!(enqueued.is_ok() && emitted.unwrap());
    }
    let mut told = Vec::new();
    for _ in 0..ORDERS {
        told.push(reports.next().await);
    }
    told.sort();
    let mut expected: Vec<String> = (0..ORDERS).map(|id| format!("{id}: {id}")).collect();
    expected.sort();
    assert_eq!(told, expected);
    is_done(&database, ORDERS as usize).await;
    join_all(workers.into_iter().map(|worker| worker.stop())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_lets_all_jobs_go_on_that_wait_for_it() {
    async fn handle(order: Order, context: Context, State(reporter): State<Reporter>) -> reveille::Result<()> {
        let open: Option<bool> = context.wait_for("the shop opens", HOUR).await?;
        reporter.report(format!("{} {open:?}", order.id));
        Ok(())
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(handle));
    for id in 1..=20 {
        enqueue(&database.database, &Order { id }).await.unwrap();
    }
    database.until("select count(*) = 20 from reveille.waits where seen").await;
    emit(&database.database, "the shop opens", &true).await.unwrap();
    let mut told = Vec::new();
    for _ in 1..=20 {
        told.push(reports.next().await);
    }
    told.sort();
    let mut expected: Vec<String> = (1..=20).map(|id| format!("{id} Some(true)")).collect();
    expected.sort();
    assert_eq!(told, expected);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_emits_of_a_name_one_is_the_first() {
    let database = database().await;
    let emits = (0..20).map(|n| {
        let database = database.database.clone();
        async move { emit(&database, "e", &n).await.unwrap().then_some(n) }
    });
    let first: Vec<i32> = soon("all events are emitted", join_all(emits)).await.into_iter().flatten().collect();
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(database.value("select payload from reveille.events").await, json!(first[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_without_an_event_when_its_time_is_over() {
    async fn handle(_: Order, context: Context, State(reporter): State<Reporter>) -> reveille::Result<()> {
        let come: Option<i32> = context.wait_for("e", Duration::from_millis(200)).await?;
        reporter.report(format!("{come:?}"));
        if context.attempt().number == 2 { Err(reveille::Error::invalid("once more")) } else { Ok(()) }
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(handle));
    enqueue(&database.database, &Order { id: 7 }).await.unwrap();
    assert_eq!(reports.next().await, "None");
    emit(&database.database, "e", &1).await.unwrap();
    database.run("update reveille.jobs set available_at = now() where reserved_at is null").await;
    assert_eq!(reports.next().await, "None", "the outcome is recorded");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_a_waiting_job_delays_its_event_and_does_not_lose_it() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let quick = worker(&database).heartbeat(Duration::from_millis(50));
    let worker = start(quick.state(reporter).handle(await_payment));
    for id in [7, 8] {
        enqueue(&database.database, &Order { id }).await.unwrap();
    }
    database.until("select count(*) = 2 from reveille.waits where seen").await;
    database.until(WAITS).await;
    let locker = database.client().await;
    locker.batch_execute("begin; select from reveille.jobs where id = 1 for update").await.unwrap();
    for event in ["paid:7", "paid:8"] {
        emit(&database.database, event, &1).await.unwrap();
    }
    assert_eq!(reports.next().await, "8: 1", "the other job does not wait for the lock");
    locker.batch_execute("commit").await.unwrap();
    assert_eq!(reports.next().await, "7: 1");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_listen_learns_of_events_by_its_heartbeats() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let deaf = worker(&database).listen(false).poll_interval(Duration::from_millis(50));
    let worker = start(deaf.heartbeat(Duration::from_millis(50)).state(reporter).handle(await_payment));
    enqueue(&database.database, &Order { id: 7 }).await.unwrap();
    database.until(WAITS).await;
    emit(&database.database, "paid:7", &1).await.unwrap();
    assert_eq!(reports.next().await, "7: 1");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_deletes_old_events_unless_a_job_still_waits_for_them() {
    let database = database().await;
    database
        .run(
            "insert into reveille.jobs (kind) values ('k');
            insert into reveille.waits (job, event, until) values (1, 'waited for', now());
            insert into reveille.events (name, until, seen) values
                ('waited for', now() - interval '1 second', true), ('old', now() - interval '1 second', true),
                ('unseen', now() - interval '1 second', false), ('young', now() + interval '1 hour', true)",
        )
        .await;
    database.database.admin().prune().await.unwrap();
    let left = "select jsonb_agg(name order by name) from reveille.events";
    assert_eq!(database.value(left).await, json!(["unseen", "waited for", "young"]));
    let kept = "select date_part('day', until - emitted_at) from reveille.events where name = 'e'";
    database.run("select reveille.emit('e')").await;
    assert_eq!(database.value(kept).await, 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_kept_is_refused_with_the_reason() {
    let database = database().await;
    let on = &database.database;
    for (refused, why) in [
        (emit(on, "", &1).await, "1 to 512 bytes"),
        (emit(on, "e".repeat(513), &1).await, "1 to 512 bytes"),
        (emit(on, "e", &"x".repeat(8191)).await, "has 8193 bytes, and the limit is 8192"),
    ] {
        let error = refused.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(why), "{error}");
    }
    assert!(emit(on, "e".repeat(512), &"x".repeat(8190)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_another_schema_are_emitted_there() {
    let database = database().await;
    let options = reveille::Database::options(Some(database.address.clone()));
    let other = options.schema("other").connect().await.unwrap();
    other.migrate().await.unwrap();
    let client = database.client().await;
    assert!(Enqueuer::new().schema("other").emit(&client, "e", &1).await.unwrap());
    assert!(!emit(&other, "e", &1).await.unwrap());
    assert!(emit(&client, "e", &1).await.unwrap());
}

#[tokio::test]
async fn an_inline_worker_runs_the_jobs_that_an_event_makes_due() {
    let (memory, (reporter, mut reports)) = (Memory::new(), reporting());
    let inline = Worker::builder(memory.clone()).state(reporter).handle(await_payment).build().unwrap().inline();
    let id = enqueue(&inline, &Order { id: 7 }).await.unwrap().id;
    assert_eq!(memory.job(id).unwrap().state, JobState::Delayed);
    assert!(emit(&inline, "paid:7", &1).await.unwrap());
    assert_eq!(reports.rest(), ["7: 1"]);
    assert_eq!(memory.job(id).unwrap().state, JobState::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_has_recorded_is_read_oldest_first() {
    async fn handle(_: Order, context: Context) -> Outcome {
        context.step("charge", async |_| Ok::<i64, String>(990)).await.unwrap();
        let _ = context.wait_for::<i64>("paid:7", HOUR).await;
        Outcome::Complete
    }
    let database = database().await;
    let worker = start(worker(&database).handle(handle));
    let id = enqueue(&database.database, &Order { id: 7 }).await.unwrap().id;
    database.until("select count(*) = 1 from reveille.waits").await;
    let steps = database.admin().job_steps(id, 10).await.unwrap();
    let [charge, paid] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((&*charge.name, charge.kind, charge.is_open), ("charge", StepKind::Step, false));
    assert_eq!((charge.value.as_ref().map(Payload::as_bytes), charge.attempt), (Some(&b"990"[..]), 1));
    assert_eq!((&*paid.name, paid.kind, paid.is_open, paid.has_timed_out), ("paid:7", StepKind::Wait, true, false));
    assert!(paid.value.is_none() && paid.until > paid.recorded_at);
    let listed = database.admin().listed_steps(id, 1).await.unwrap();
    assert_eq!(listed.iter().map(|step| &*step.name).collect::<Vec<_>>(), ["paid:7"]);
    let listed = database.admin().listed_steps(id, 10).await.unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|step| step.value.is_none()));
    worker.stop().await;
}
