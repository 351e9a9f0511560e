//! Durable steps and sleeps: a handler goes on where it stopped, after failures, crashes and revivals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reveille::dev::{Server, Stop};
use reveille::driver::{Driver, Ending, Memory, Pausing, Postgres, WorkerInfo};
use reveille::handler::{Batch, Gather, StepError};
use reveille::job::{JobState, Payload, RetryPolicy};
use reveille::{Attempt, Context, Database, Error, Job, Outcome, State, Worker, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{Reporter, claim, database, eventually, reporting, soon, start, worker};

#[derive(Serialize, Deserialize)]
pub struct Order {
    pub id: i64,
}

impl Job for Order {
    const KIND: &'static str = "order";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(1))
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const ORDER: Order = Order { id: 7 };

/// Runs a step that reports its name.
async fn tell(context: &Context, reporter: &Reporter, name: &str) -> reveille::Result<()> {
    let told = async |_| {
        reporter.report(name);
        Ok::<(), Error>(())
    };
    Ok(context.step(name, told).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_recorded_does_not_run_again() {
    async fn handle(_: Order, attempt: Attempt, context: Context, State(reporter): State<Reporter>) -> Outcome {
        let charged = context.step("charge", async |key| {
            reporter.report(key);
            Ok::<i64, String>(990)
        });
        let charged = charged.await.unwrap();
        if attempt.number == 1 {
            return Outcome::Fail("the receipt is not sent".into());
        }
        reporter.report(format!("sends a receipt for {charged}"));
        Outcome::Complete
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(handle));
    let id = enqueue(&database.database, &ORDER).await.unwrap().id;
    let key = reports.next().await;
    assert!(key.starts_with(&format!("{id}-")) && key.ends_with("-charge"), "{key}");
    assert_eq!(reports.next().await, "sends a receipt for 990");
    database.until("select not exists (select from reveille.steps)").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_death_of_a_worker_the_job_goes_on_behind_its_last_step() {
    async fn handle(_: Order, context: Context, State(reporter): State<Reporter>) -> reveille::Result<()> {
        tell(&context, &reporter, "one").await?;
        if context.attempt().number == 1 {
            reporter.report("hangs");
            std::future::pending::<()>().await;
        }
        tell(&context, &reporter, "two").await
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let quick = || worker(&database).heartbeat(Duration::from_millis(50)).dead_after(Duration::from_millis(300));
    // The runtime of this worker is dropped, as if its process were killed: nothing is settled, and nobody leaves.
    let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dying = quick().state(reporter.clone()).handle(handle).build().unwrap();
    doomed.spawn(dying.run_until(std::future::pending::<()>()));
    enqueue(&database.database, &ORDER).await.unwrap();
    assert_eq!([reports.next().await, reports.next().await], ["one", "hangs"]);
    doomed.shutdown_background();
    let worker = start(quick().state(reporter).handle(handle));
    assert_eq!(reports.next().await, "two", "the first step does not run again");
    database.until("select attempts = 2 from reveille.finished_jobs").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_waits_for_a_rescue_under_way_and_is_then_refused() {
    let database = database().await;
    let driver = Arc::new(Postgres::new(database.database.clone()).unwrap());
    driver.register(&WorkerInfo::new(7).host("thawed").queues(["default"])).await.unwrap();
    enqueue(&database.database, &ORDER).await.unwrap();
    let reservation = claim(&*driver, 7, 1).await[0].reservation;
    let rescuer = database.client().await;
    let rescue = "begin; update reveille.jobs set reserved_at = null, reserved_by = null, failures = failures + 1";
    rescuer.batch_execute(rescue).await.unwrap();
    let value = Payload::encode(&1).unwrap();
    let recording = {
        let driver = Arc::clone(&driver);
        tokio::spawn(async move { driver.record_step(&reservation, "charge", &value).await })
    };
    database.until("select exists (select from pg_locks where not granted)").await;
    rescuer.batch_execute("commit").await.unwrap();
    assert_eq!(soon("the step is refused", recording).await.unwrap().unwrap(), None);
    let asleep = driver.record_wait(&reservation, "nap", Pausing::Sleep(HOUR)).await.unwrap();
    assert_eq!((asleep, database.value("select count(*) from reveille.steps").await), (None, json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_lost_its_job_learns_so_from_a_step() {
    async fn handle(_: Order, context: Context, State(database): State<Database>, State(reporter): State<Reporter>) {
        let client = database.client().await.unwrap();
        client.batch_execute("update reveille.jobs set attempts = attempts + 1").await.unwrap();
        let error = tell(&context, &reporter, "too late").await.unwrap_err();
        assert_eq!(reporter_rest(&error), (true, true));
        reporter.report(if context.cancellation().is_cancelled() { "asked to stop" } else { "not asked" });
    }
    fn reporter_rest(error: &Error) -> (bool, bool) {
        (error.is_lost(), error.to_string().contains("no longer holds job"))
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(database.database.clone()).state(reporter).handle(handle));
    enqueue(&database.database, &ORDER).await.unwrap();
    assert_eq!([reports.next().await, reports.next().await], ["too late", "asked to stop"]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_step_survives_a_crash_of_the_server() {
    // With this setting, only a commit that waits for the disk is there after the crash.
    let mut server = Server::options().fsync(true).setting("wal_writer_delay", "10s").start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let driver = Postgres::new(database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7).host("x").queues(["default"])).await.unwrap();
    enqueue(&database, &ORDER).await.unwrap();
    let reservation = claim(&driver, 7, 1).await[0].reservation;
    let value = Payload::encode(&1).unwrap();
    assert!(driver.record_step(&reservation, "charge", &value).await.unwrap().is_some());
    server.restart(Stop::Immediate).unwrap();
    let there = async || driver.steps(reservation.id).await.is_ok_and(|steps| steps.len() == 1);
    eventually("the step is there", there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_step_sets_the_failures_to_0_for_the_attempt_that_records_it() {
    async fn handle(_: Order, context: Context) -> Result<(), String> {
        let number = context.attempt().number;
        if number == 5 {
            return Ok(());
        }
        context.step(format!("part {number}"), async |_| Ok::<_, String>(number)).await.map_err(|e| e.to_string())?;
        Err("part by part".into())
    }
    let database = database().await;
    let worker = start(worker(&database).handle(handle));
    enqueue(&database.database, &ORDER).max_attempts(2).await.unwrap();
    database.until("select outcome = 'completed' and attempts = 5 from reveille.finished_jobs").await;
    worker.stop().await;
}

/// Makes one attempt at a job, on a store in memory. Returns its ending.
async fn attempt<Fut>(handle: impl Fn(Order, Context) -> Fut + Send + Sync + 'static) -> Ending
where
    Fut: Future<Output = Result<(), String>> + Send + 'static,
{
    let worker = Worker::builder(Memory::new()).handle(handle).build().unwrap();
    worker.attempt(&ORDER).await.unwrap()
}

/// Returns the text of the error of a step that ran no code.
fn refusal<E>(step: Result<i32, StepError<E>>) -> String {
    match step {
        Err(StepError::Unrecorded(error)) => error.to_string(),
        _ => panic!("not refused"),
    }
}

#[tokio::test]
async fn the_error_of_a_step_is_returned_and_the_step_can_be_tried_again() {
    let ending = attempt(|_, context| async move {
        let failed = context.step("charge", async |_| Err::<i32, _>("declined")).await;
        assert!(matches!(failed, Err(StepError::Failed("declined"))));
        assert_eq!(context.step("charge", async |_| Ok::<_, String>(2)).await.unwrap(), 2);
        Ok(())
    });
    assert_eq!(ending.await, Ending::Completed(None));
}

#[tokio::test]
async fn a_name_stands_once_in_an_attempt() {
    let ending = attempt(|_, context| async move {
        context.step("a", async |_| Ok::<_, String>(1)).await.unwrap();
        let twice = refusal(context.step("a", async |_| Ok::<_, String>(2)).await);
        assert!(twice.contains("\"a\" is used twice in one attempt"), "{twice}");
        assert!(context.sleep("a", HOUR).await.unwrap_err().is_invalid());
        let nameless = refusal(context.step("", async |_| Ok::<_, String>(2)).await);
        assert!(nameless.contains("1 to 512 bytes"), "{nameless}");
        Ok(())
    });
    assert_eq!(ending.await, Ending::Completed(None));
}

#[tokio::test]
async fn a_handler_cannot_sleep_within_a_step() {
    let ending = attempt(|_, context| async move {
        let within = async |_| context.sleep("nap", HOUR).await.map_err(|error| error.to_string());
        let Err(StepError::Failed(error)) = context.step("a", within).await else { panic!("it sleeps") };
        assert!(error.contains("while a step runs"), "{error}");
        let within = async |_| context.wait_for::<i32>("e", HOUR).await.map_err(|error| error.to_string());
        assert!(context.step("a", within).await.is_err());
        Ok(())
    });
    assert_eq!(ending.await, Ending::Completed(None));
}

#[tokio::test]
async fn no_step_begins_while_the_handler_sleeps() {
    let (reporter, mut reports) = reporting();
    let ending = attempt(move |_, context| {
        let reporter = reporter.clone();
        async move {
            let _ = futures::join!(context.sleep("nap", HOUR), async {
                reporter.report(refusal(context.step("a", async |_| Ok::<_, String>(1)).await));
            });
            Err("it goes on".into())
        }
    });
    assert!(matches!(ending.await, Ending::Waiting { failure: None, .. }));
    let refused = reports.next().await;
    assert!(refused.contains("cannot begin while the handler sleeps or waits"), "{refused}");
}

#[tokio::test]
async fn a_value_that_cannot_be_kept_is_refused() {
    #[derive(Serialize)]
    struct OneWay(i32);
    impl<'de> Deserialize<'de> for OneWay {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<OneWay, D::Error> {
            Err(serde::de::Error::custom("one way"))
        }
    }
    let ending = attempt(|_, context| async move {
        let large = context.step("large", async |_| Ok::<_, String>("x".repeat(8191))).await;
        let error = large.unwrap_err().to_string();
        assert!(error.contains("\"large\" has 8193 bytes, and the limit is 8192"), "{error}");
        context.step("large", async |_| Ok::<_, String>("x".repeat(8190))).await.unwrap();
        let error = context.step("one way", async |_| Ok::<_, String>(OneWay(1))).await.err().unwrap().to_string();
        assert!(error.contains("does not decode"), "{error}");
        Ok(())
    });
    assert_eq!(ending.await, Ending::Completed(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_type_or_kind_has_changed_is_an_error() {
    async fn handle(_: Order, attempt: Attempt, context: Context) -> Result<(), String> {
        if attempt.number == 1 {
            context.step("a", async |_| Ok::<_, String>(1)).await.unwrap();
            return Err("once more".into());
        }
        let text = context.step("a", async |_| Ok::<_, String>(String::new())).await.unwrap_err().to_string();
        assert!(text.contains("does not decode to its type"), "{text}");
        let text = context.sleep("a", HOUR).await.unwrap_err().to_string();
        assert!(text.contains("was recorded as a step and is now a sleep; give it another name"), "{text}");
        Ok(())
    }
    let memory = Memory::new();
    let worker = Worker::builder(memory.clone()).handle(handle).build().unwrap();
    let id = enqueue(&memory, &ORDER).await.unwrap().id;
    worker.run_until_empty(&memory).await.unwrap();
    let job = memory.job(id).unwrap();
    assert_eq!((job.state, job.attempts), (JobState::Completed, 2), "{:?}", job.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_or_sleep_follows_the_completion_in_a_transaction() {
    async fn handle(_: Order, context: Context, State(database): State<Database>, State(reporter): State<Reporter>) {
        let mut client = database.client().await.unwrap();
        let tx = client.transaction().await.unwrap();
        context.complete_in(&tx).await.unwrap();
        reporter.report(refusal(context.step("a", async |_| Ok::<_, String>(1)).await));
        reporter.report(context.sleep("b", HOUR).await.unwrap_err().to_string());
        tx.commit().await.unwrap();
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(database.database.clone()).state(reporter).handle(handle));
    enqueue(&database.database, &ORDER).await.unwrap();
    assert!(reports.next().await.contains("comes after `complete_in`"));
    assert!(reports.next().await.contains("comes after `complete_in`"));
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_handler_of_batches_has_steps_and_cannot_sleep() {
    async fn handle(batch: Batch<Order>) -> Result<(), String> {
        for item in &batch {
            item.context.step("a", async |_| Ok::<_, String>(1)).await.map_err(|error| error.to_string())?;
            let error = item.context.sleep("nap", HOUR).await.unwrap_err().to_string();
            assert!(error.contains("a handler of batches cannot sleep or wait"), "{error}");
        }
        Ok(())
    }
    let memory = Memory::new();
    let worker = Worker::builder(memory.clone()).handle_batch(Gather::up_to(2), handle).build().unwrap();
    for id in 0..2 {
        enqueue(&memory, &Order { id }).await.unwrap();
    }
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 2);
}

#[tokio::test]
async fn the_test_kit_runs_through_sleeps() {
    async fn handle(_: Order, context: Context, State(runs): State<Arc<AtomicUsize>>) -> reveille::Result<()> {
        let count = async |_| Ok::<_, Error>(runs.fetch_add(1, Ordering::Relaxed));
        context.step("count", count).await?;
        context.sleep("two weeks", HOUR * 24 * 14).await
    }
    let (memory, runs) = (Memory::new(), Arc::<AtomicUsize>::default());
    let worker = Worker::builder(memory.clone()).state(Arc::clone(&runs)).handle(handle).build().unwrap();
    let Ending::Waiting { failure: None, delay } = worker.attempt(&ORDER).await.unwrap() else { panic!("no snooze") };
    assert!(delay > HOUR * 24 * 13, "{delay:?}");
    let id = enqueue(&memory, &ORDER).await.unwrap().id;
    assert_eq!(worker.run_until_drained().await.unwrap().put_back, 1);
    assert_eq!(memory.job(id).unwrap().state, JobState::Delayed);
    assert_eq!(worker.run_until_empty(&memory).await.unwrap().completed, 1);
    assert_eq!(runs.load(Ordering::Relaxed), 2, "once for each job");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_by_hand_does_not_cut_a_sleep_short() {
    async fn handle(_: Order, context: Context, State(reporter): State<Reporter>) -> reveille::Result<()> {
        reporter.report(format!("attempt {}", context.attempt().number));
        context.sleep("nap", HOUR).await
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).handle(handle));
    let id = enqueue(&database.database, &ORDER).await.unwrap().id;
    for attempt in 1..=2 {
        assert_eq!(reports.next().await, format!("attempt {attempt}"));
        let asleep = format!(
            "select reserved_at is null and attempts = {attempt} \
            and available_at between now() + interval '59 minutes' and now() + interval '61 minutes' from reveille.jobs"
        );
        database.until(&asleep).await;
        database.database.admin().retry(id).await.unwrap();
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_deletes_the_steps_of_jobs_that_are_gone_and_no_others() {
    let database = database().await;
    database
        .run(
            "insert into reveille.jobs (kind) select 'k' from generate_series(1, 2);
            insert into reveille.steps (job, name, value, outcome, attempt, reserved_at)
            select job, name, '1', 'done', 1, now() from generate_series(1, 2) as job, unnest('{a,b}'::text[]) as name;
            insert into reveille.waits (job, event, until) values (1, 'e', now()), (2, 'e', now());
            delete from reveille.jobs where id = 1",
        )
        .await;
    database.database.admin().prune().await.unwrap();
    let left = "select jsonb_build_array(
        (select jsonb_agg(job) from reveille.steps), (select jsonb_agg(job) from reveille.waits))";
    assert_eq!(database.value(left).await, json!([[2, 2], [2]]));
}
