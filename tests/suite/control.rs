//! Live control: cancelling, timeouts, pausing, draining, and stopping a worker from another session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use reveille::{Context, State, Worker, driver::Memory, enqueue, enqueue::enqueue_all, handler::Cancellation};
use serde_json::json;
use tokio::sync::Notify;

use crate::harness::{
    DEADLINE, Note, Reporter, database, eventually, note, reporting, reporting_worker, soon, start, worker,
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_can_clean_up_at_its_timeout() {
    async fn cleans_up(note: Note, cancellation: Cancellation) -> Result<(), String> {
        cancellation.cancelled().await;
        tokio::task::yield_now().await;
        if note.text == "done" { Ok(()) } else { Err("cleaned up".into()) }
    }
    let database = database().await;
    let worker = start(worker(&database).timeout(Duration::from_secs(1)).handle(cleans_up));
    for text in ["done", "stopped"] {
        enqueue(&database.database, &note(text)).max_attempts(1).await.unwrap();
    }
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    let dead = database.value("select jsonb_build_array(reason, errors -> 0 -> 'error') from reveille.dead_jobs").await;
    assert_eq!(dead, json!(["timed_out", "took longer than its timeout of 1s: cleaned up"]));
    database.until("select payload ->> 'text' = 'done' from reveille.finished_jobs").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_is_cancelled_at_its_timeout() {
    async fn blocks(note: Note, State(reporter): State<Reporter>, cancellation: Cancellation) -> Result<(), String> {
        reporter.report(&note.text);
        let began = Instant::now();
        while note.text == "blocks" && !cancellation.is_cancelled() && began.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
        if note.text == "blocks" { Err("stopped".into()) } else { Ok(()) }
    }
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = worker(&database).heartbeat(Duration::from_millis(200)).state(reporter).handle(blocks);
    let worker = start(builder);
    enqueue(&database.database, &note("blocks")).timeout(Duration::from_secs(1)).max_attempts(1).await.unwrap();
    assert_eq!(reports.next().await, "blocks");
    enqueue(&database.database, &note("other")).await.unwrap();
    assert_eq!(reports.next().await, "other");
    database.until("select reason = 'timed_out' from reveille.dead_jobs").await;
    worker.stop().await;
}

/// The producer has another runtime than the worker, as in production. Within the worker's runtime, each enqueue would
/// wake a thread that goes on.
#[test]
fn a_job_starts_while_a_handler_blocks_its_thread() {
    async fn blocks(note: Note, State(reporter): State<Reporter>, State(release): State<Arc<Release>>) {
        // The handler first waits for a timer, so that the thread that waits for sockets runs the rest of the handler.
        tokio::time::sleep(Duration::from_millis(5)).await;
        reporter.report(&note.text);
        if note.text == "blocks" {
            let waiting = release.1.wait_timeout_while(release.0.lock().unwrap(), DEADLINE, |released| !*released);
            drop(waiting.unwrap());
        }
    }
    type Release = (std::sync::Mutex<bool>, std::sync::Condvar);
    let runtime =
        |threads| tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    let (outside, inside) = (runtime(1), runtime(4));
    let release = Arc::new(Release::default());
    let (reporter, mut reports) = reporting();
    let database = outside.block_on(database());
    let url = database.address.clone();
    let built = inside.block_on(inside.spawn({
        let release = Arc::clone(&release);
        async move {
            let database = reveille::Database::connect(url).await.unwrap();
            start(Worker::builder(database).poll_interval(HOUR).state(reporter).state(release).handle(blocks))
        }
    }));
    let worker = built.unwrap();
    outside.block_on(async {
        // A worker that sleeps has all threads of its runtime at rest but the thread that waits for sockets.
        for _ in 0..10 {
            database.until("select count(*) = 1 from reveille.sleepers").await;
            enqueue(&database.database, &note("blocks")).await.unwrap();
            assert_eq!(reports.next().await, "blocks");
            enqueue(&database.database, &note("other")).await.unwrap();
            assert_eq!(reports.next().await, "other");
            *release.0.lock().unwrap() = true;
            release.1.notify_all();
            database.until("select count(*) = 0 from reveille.jobs").await;
            *release.0.lock().unwrap() = false;
        }
    });
    inside.block_on(worker.stop());
}

/// Two workers, as (listens, heartbeat): requests reach one by its listener alone, the other by its heartbeat alone.
const WAYS: [(bool, Duration); 2] = [(true, HOUR), (false, Duration::from_millis(50))];

#[tokio::test(flavor = "multi_thread")]
async fn pausing_a_queue_releases_jobs_that_wait_for_a_slot() {
    #[derive(Default)]
    struct Pace {
        slow: AtomicBool,
        last: AtomicI64,
    }
    async fn works(_: Note, context: Context, State(pace): State<Arc<Pace>>) {
        pace.last.store(context.id(), Ordering::Relaxed);
        if pace.slow.load(Ordering::Relaxed) {
            // The job is short, so that the worker keeps the jobs that it claimed ahead.
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    }
    for (listen, heartbeat) in WAYS {
        let (database, pace) = (database().await, Arc::new(Pace::default()));
        enqueue_all(&database.database, &vec![note("x"); 20_000]).await.unwrap();
        let builder = Worker::builder(database.database.clone()).queue("default", 1).poll_interval(HOUR);
        let worker = start(builder.listen(listen).heartbeat(heartbeat).state(Arc::clone(&pace)).handle(works));
        // While jobs are quick, the worker claims ahead. Once jobs are slow, the jobs claimed ahead wait for a slot. A
        // job that has run stays reserved until it is settled. The query counts only ids above the id of the last job
        // that began to run, so that it counts no such job.
        eventually("some jobs wait for a slot", async || {
            let before = database.value("select count(*) from reveille.finished_jobs").await;
            pace.slow.store(false, Ordering::Relaxed);
            database.until(&format!("select count(*) > {before} + 100 from reveille.finished_jobs")).await;
            pace.slow.store(true, Ordering::Relaxed);
            let last = pace.last.load(Ordering::Relaxed);
            let wait = format!("select count(*) > 3 from reveille.jobs where reserved_at is not null and id > {last}");
            database.value(&wait).await == true
        })
        .await;
        database.admin().pause("default").await.unwrap();
        database.until("select count(*) = 0 from reveille.jobs where reserved_at is not null").await;
        let back = "select jsonb_build_array(max(attempts) > 0, sum(failures), bool_and(available_at = created_at)) \
            from reveille.jobs";
        let released = "the claimed jobs are released without a failure, and keep their places";
        assert_eq!(database.value(back).await, json!([true, 0, true]), "{released}");
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_drained_when_nothing_is_ready_or_running() {
    async fn gated(_: Note, State(gate): State<Arc<Notify>>) {
        gate.notified().await;
    }
    let database = database().await;
    let gate = Arc::new(Notify::new());
    let admin = database.admin();
    enqueue(&database.database, &note("later")).delay(HOUR).await.unwrap();
    assert_eq!(
        admin.wait_until_drained("default", |_| {}).await.unwrap().delayed,
        1,
        "a drain does not wait for delayed jobs"
    );
    enqueue_all(&database.database, &[note("a"), note("b")]).await.unwrap();
    let worker = start(worker(&database).state(gate.clone()).handle(gated));
    database.until("select count(*) = 2 from reveille.jobs where reserved_at is not null").await;
    let mut seen = Vec::new();
    let drained = soon(
        "the queue is drained",
        admin.wait_until_drained("default", |backlog| {
            seen.push(backlog.running);
            gate.notify_one();
        }),
    );
    let backlog = drained.await.unwrap();
    assert_eq!((seen[0], backlog.ready, backlog.running, backlog.workers), (2, 0, 0, 1));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_one_worker_leaves_the_others_running() {
    for (listen, heartbeat) in WAYS {
        let database = database().await;
        let (one, _) = reporting_worker(&database);
        let one = start(one.listen(listen).heartbeat(heartbeat));
        database.until(&format!("select count(*) = 1 from reveille.workers where holds_lock or not {listen}")).await;
        let id = database.value("select id from reveille.workers").await.as_i64().unwrap();
        let (other, _) = reporting_worker(&database);
        let other = start(other.listen(listen));
        database.until("select count(*) = 2 from reveille.workers").await;
        assert!(database.admin().stop_worker(id).await.unwrap());
        one.ended().await;
        assert!(other.is_working());
        assert!(!database.admin().stop_worker(id).await.unwrap());
        other.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_finds_and_stops_its_own_worker_by_its_id() {
    let database = database().await;
    let (other, _) = reporting_worker(&database);
    let other = start(other);
    let (builder, mut reports) = reporting_worker(&database);
    let worker = builder.queue("mail", 3).build().unwrap();
    let id = worker.id();
    let working = tokio::spawn(worker.run_until(std::future::pending::<()>()));
    let admin = database.admin();
    eventually("both workers are listed", async || admin.workers().await.unwrap().len() == 2).await;
    let rows = admin.workers().await.unwrap();
    let ours = rows.iter().find(|row| row.id == id).expect("the worker is listed under its id");
    assert_eq!((ours.pid, ours.slots, ours.running, ours.stuck), (std::process::id(), 7, 0, 0));
    assert_eq!(ours.queues, ["default", "mail"]);
    assert!(ours.alive && !ours.stopping && ours.last_seen >= ours.started_at && ours.started_at.is_some());
    assert_eq!(ours.record().get("worker").unwrap(), id.to_string());
    assert!(admin.stop_worker(id).await.unwrap());
    soon("the worker ends", working).await.unwrap().unwrap();
    enqueue(&database.database, &note("x")).await.unwrap();
    assert!(reports.rest().is_empty());
    assert!(other.is_working());
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_on_the_memory_driver_can_be_stopped_too() {
    let memory = Memory::new();
    let worker = start(Worker::builder(memory.clone()).state(reporting().0).handle(crate::harness::report));
    eventually("the worker is registered", async || !memory.workers().is_empty()).await;
    assert!(!memory.stop_worker(0));
    assert!(memory.stop_worker(memory.workers()[0]));
    worker.ended().await;
    assert!(memory.workers().is_empty());
}
