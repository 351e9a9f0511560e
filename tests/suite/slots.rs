//! The slots of a running worker are changed from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reveille::{Job, State, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::harness::{Reporter, database, eventually, note, report, reporting, start, worker};
use crate::tracing::EventLog;

/// Jobs that run until the test releases them.
#[derive(Clone)]
struct Gate {
    running: Arc<AtomicUsize>,
    release: Arc<Semaphore>,
}

#[derive(Serialize, Deserialize)]
struct Waits;

impl Job for Waits {
    const KIND: &'static str = "waits";
}

async fn waits(_: Waits, State(gate): State<Gate>, State(reporter): State<Reporter>) {
    let running = gate.running.fetch_add(1, Ordering::SeqCst) + 1;
    reporter.report(running.to_string());
    gate.release.acquire().await.unwrap().forget();
    gate.running.fetch_sub(1, Ordering::SeqCst);
}

fn gate() -> Gate {
    Gate { running: Arc::default(), release: Arc::new(Semaphore::new(0)) }
}

#[tokio::test]
async fn new_slots_take_jobs_at_once() {
    let database = database().await;
    let (gate, (reporter, mut reports)) = (gate(), reporting());
    let builder = worker(&database).queue("mail", 1).state(gate.clone()).state(reporter).handle(waits);
    let worker = start(builder);
    for _ in 0..3 {
        enqueue(&database.database, &Waits).queue("mail").await.unwrap();
    }
    assert_eq!(reports.next().await, "1");
    assert_eq!(database.database.admin().set_slots("mail", 3, None).await.unwrap(), 1);
    assert_eq!((reports.next().await, reports.next().await), ("2".into(), "3".into()));
    let slots = "select jsonb_build_array(queues, queue_slots, slots) from reveille.worker_status";
    assert_eq!(database.value(slots).await, json!([["default", "mail"], [4, 3], 7]));
    gate.release.add_permits(3);
    worker.stop().await;
}

#[tokio::test]
async fn an_occupied_slot_goes_when_its_job_ends() {
    let (events, _guard) = EventLog::start();
    let database = database().await;
    let (gate, (reporter, mut reports)) = (gate(), reporting());
    let builder = worker(&database).queue("mail", 3).state(gate.clone()).state(reporter).handle(waits);
    let worker = start(builder);
    for _ in 0..9 {
        enqueue(&database.database, &Waits).queue("mail").await.unwrap();
    }
    for running in ["1", "2", "3"] {
        assert_eq!(reports.next().await, running);
    }
    database.database.admin().set_slots("mail", 1, None).await.unwrap();
    eventually("the worker knows", async || events.count("worker.slots_changed", "queue", "mail") == 1).await;
    // The first three jobs end. The others run one at a time.
    gate.release.add_permits(3);
    assert_eq!(reports.next().await, "1");
    gate.release.add_permits(6);
    for _ in 0..5 {
        assert_eq!(reports.next().await, "1");
    }
    database.until("select count(*) = 0 from reveille.jobs").await;
    worker.stop().await;
}

#[tokio::test]
async fn without_slots_a_worker_starts_no_job_of_the_queue() {
    let (events, _guard) = EventLog::start();
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).queue("mail", 2).state(reporter).handle(report));
    enqueue(&database.database, &note("before")).queue("mail").await.unwrap();
    assert_eq!(reports.next().await, "before");
    let admin = database.database.admin();
    admin.set_slots("mail", 0, None).await.unwrap();
    eventually("the worker knows", async || events.count("worker.slots_changed", "slots", "0") == 1).await;
    enqueue(&database.database, &note("mail")).queue("mail").await.unwrap();
    for text in ["other", "another"] {
        enqueue(&database.database, &note(text)).await.unwrap();
        assert_eq!(reports.next().await, text);
    }
    admin.set_slots("mail", 1, None).await.unwrap();
    assert_eq!(reports.next().await, "mail");
    worker.stop().await;
}

#[tokio::test]
async fn only_workers_of_the_queue_get_other_slots() {
    let database = database().await;
    let rows = "insert into reveille.workers (id, host, pid, version, queues, queue_slots, slots) values
        (1, '', 1, '', '{a,b}', '{2,3}', 5), (2, '', 1, '', '{b}', '{4}', 4), (3, '', 1, '', '{b}', '{4}', 4),
        (4, 'reveille listen', 1, '', '{b}', '{}', 0)";
    database.run(rows).await;
    let admin = database.database.admin();
    assert_eq!(admin.set_slots("b", 7, Some(2)).await.unwrap(), 1);
    assert_eq!(admin.set_slots("a", 0, None).await.unwrap(), 1);
    assert_eq!(admin.set_slots("a", 5, Some(2)).await.unwrap(), 0);
    assert_eq!(admin.set_slots("unknown", 5, None).await.unwrap(), 0);
    let slots = "select jsonb_agg(jsonb_build_array(queue_slots, slots) order by id) from reveille.workers";
    assert_eq!(database.value(slots).await, json!([[[0, 3], 3], [[7], 7], [[4], 4], [[], 0]]));
    let error = admin.set_slots("a", 10_001, None).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("set 0 to 10000"), "{error}");
}
