//! Limits of queues and keys, and order within a key. The limits hold exactly, even if workers die.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reveille::admin::{Cancelled, QueueSettings};
use reveille::driver::WorkerInfo;
use reveille::{
    Attempt, Context, Database, State, Worker,
    driver::{Driver, Postgres},
    enqueue,
    enqueue::enqueue_all,
};
use tokio::sync::Semaphore;

use crate::harness::{
    Note, Reporter, Running, TestDatabase, claim, database, eventually, note, report, reporting, soon, start,
};

/// Counts the jobs that run at the same time, in all and for each key.
#[derive(Clone, Default)]
struct Gauge(Arc<Mutex<HashMap<String, (usize, usize)>>>);

impl Gauge {
    fn enter(&self, key: &str) {
        let mut all = self.0.lock().unwrap();
        let (now, most) = all.entry(key.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn leave(&self, key: &str) {
        self.0.lock().unwrap().get_mut(key).unwrap().0 -= 1;
    }

    fn most(&self, key: &str) -> usize {
        self.0.lock().unwrap().get(key).map_or(0, |(_, most)| *most)
    }
}

/// A handler. The gauge counts the job while the handler runs.
async fn measured(_: Note, State(gauge): State<Gauge>, context: Context) {
    let key = context.job().key.clone().unwrap_or_default();
    gauge.enter("all");
    gauge.enter(&format!("key {key}"));
    tokio::time::sleep(Duration::from_millis(2)).await;
    gauge.leave(&format!("key {key}"));
    gauge.leave("all");
}

async fn set(database: &TestDatabase, settings: QueueSettings) {
    database.admin().set_queue("default", settings).await.unwrap();
}

/// Returns a driver on which the worker `worker` is registered.
async fn driver(database: &Database, worker: i64) -> Postgres {
    let driver = Postgres::new(database.clone()).unwrap();
    let info = WorkerInfo::new(worker).host("h").queues(["default"]);
    driver.register(&info).await.unwrap();
    driver
}

/// Enqueues `n` jobs of each key, with the keys in turn.
async fn fill(database: &TestDatabase, n: usize, keys: impl IntoIterator<Item = String> + Clone) {
    let jobs: Vec<_> = (0..n)
        .flat_map(|n| {
            keys.clone().into_iter().map(move |key| {
                let mut job = reveille::job::NewJob::of(&note(&format!("{key} {n}"))).unwrap();
                job.key = Some(key).filter(|key| !key.is_empty());
                job
            })
        })
        .collect();
    enqueue_all(&database.database, &jobs).await.unwrap();
}

fn workers(database: &TestDatabase, n: usize, gauge: &Gauge) -> Vec<Running> {
    (0..n).map(|_| start(hourly(database, 10).state(gauge.clone()).handle(measured))).collect()
}

/// Builds a worker that polls once an hour, so that only the bell wakes the worker.
fn hourly(database: &TestDatabase, slots: usize) -> reveille::worker::WorkerBuilder {
    Worker::builder(database.database.clone()).queue("default", slots).poll_interval(Duration::from_secs(3600))
}

async fn finished(database: &TestDatabase, n: usize) {
    database.until(&format!("select count(*) = {n} from reveille.finished_jobs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_as_many_jobs_run_at_once_as_the_limit_allows() {
    let (database, gauge) = (database().await, Gauge::default());
    set(&database, QueueSettings::new().max_running(5)).await;
    let working = workers(&database, 4, &gauge);
    fill(&database, 400, [String::new()]).await;
    finished(&database, 400).await;
    assert_eq!(gauge.most("all"), 5);
    for worker in working {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_its_limit_and_jobs_without_a_key_have_none() {
    let (database, gauge) = (database().await, Gauge::default());
    set(&database, QueueSettings::new().max_running_per_key(2)).await;
    let keys: Vec<String> = (0..10).map(|key| format!("k{key}")).collect();
    fill(&database, 20, keys.clone()).await;
    fill(&database, 100, [String::new()]).await;
    let working = workers(&database, 3, &gauge);
    finished(&database, 300).await;
    for key in keys {
        assert_eq!(gauge.most(&format!("key {key}")), 2, "{key}");
    }
    assert!(gauge.most("key ") > 2);
    for worker in working {
        worker.stop().await;
    }
}

#[tokio::test]
async fn keys_take_turns_however_many_jobs_they_have() {
    let (database, (reporter, mut reports)) = (database().await, reporting());
    let settings = QueueSettings::new().max_running(1).max_running_per_key(1);
    set(&database, settings).await;
    let many = "insert into reveille.jobs (kind, payload, key)
        select 'note', jsonb_build_object('text', 'big ' || n), 'big' from generate_series(0, 99999) as n";
    database.run(many).await;
    fill(&database, 3, ["a".to_owned(), "z".to_owned()]).await;
    let running = start(hourly(&database, 8).state(reporter).handle(report));
    let mut first = Vec::new();
    for _ in 0..9 {
        first.push(reports.next().await);
    }
    assert_eq!(first, ["a 0", "big 0", "z 0", "a 1", "big 1", "z 1", "a 2", "big 2", "z 2"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_key_run_in_order_and_a_retry_blocks_its_key_only() {
    async fn flaky(note: Note, State(reporter): State<Reporter>, attempt: Attempt) -> Result<(), String> {
        reporter.report(&note.text);
        if note.text == "b 1" && attempt.number < 3 { Err("not yet".into()) } else { Ok(()) }
    }
    let (database, (reporter, mut reports)) = (database().await, reporting());
    set(&database, QueueSettings::new().ordered(true)).await;
    fill(&database, 4, ["a".to_owned(), "b".to_owned(), "c".to_owned()]).await;
    // Makes one job of each key urgent. This job must run in order too.
    database.run("update reveille.jobs set priority = 0 where payload ->> 'text' like '% 3'").await;
    let working: Vec<_> = (0..3).map(|_| start(hourly(&database, 10).state(reporter.clone()).handle(flaky))).collect();
    database.until("select count(*) = 8 from reveille.finished_jobs where key <> 'b'").await;
    database.until("select bool_and(available_at > now()) from reveille.jobs where payload ->> 'text' = 'b 1'").await;
    eventually("all jobs have run", async || {
        // Makes the retry due at once.
        database.run("select reveille.retry(id) from reveille.jobs where failures > 0 and reserved_at is null").await;
        database.value("select count(*) from reveille.jobs").await == 0
    })
    .await;
    let texts = reports.rest();
    let of =
        |key: &str| -> Vec<&str> { texts.iter().filter(|text| text.starts_with(key)).map(|text| &text[2..]).collect() };
    assert_eq!((of("a"), of("c")), (vec!["0", "1", "2", "3"], vec!["0", "1", "2", "3"]));
    assert_eq!(of("b"), ["0", "1", "1", "1", "2", "3"]);
    for worker in working {
        worker.stop().await;
    }
}

/// Returns the starts of the jobs that fit `of`, in milliseconds after the first start.
async fn starts(database: &TestDatabase, of: &str) -> Vec<i64> {
    let sql = format!(
        "select jsonb_agg(extract(epoch from at - first) * 1000 order by at) from (
            select available_at + wait_seconds * interval '1 second' as at,
                min(available_at + wait_seconds * interval '1 second') over () as first
            from reveille.finished_jobs where {of}
        ) as started"
    );
    database.value(&sql).await.as_array().unwrap().iter().map(|at| at.as_f64().unwrap() as i64).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_start_in_a_second_than_the_rate_allows() {
    let (database, gauge) = (database().await, Gauge::default());
    let settings = QueueSettings::new().rate_limit(100).rate_burst(10);
    set(&database, settings).await;
    let working = workers(&database, 4, &gauge);
    fill(&database, 210, [String::new()]).await;
    finished(&database, 210).await;
    let starts = starts(&database, "true").await;
    for (place, start) in starts.iter().enumerate() {
        let within = starts[place..].iter().take_while(|later| **later <= start + 1000).count();
        assert!(within <= 110, "{within} starts in the second after {start} ms");
    }
    // After the burst of 10 jobs, the other 200 jobs take at least two seconds.
    assert!((2000..).contains(starts.last().unwrap()), "{starts:?}");
    for worker in working {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_its_own_rate() {
    let (database, gauge) = (database().await, Gauge::default());
    let settings = QueueSettings::new().rate_per_key(4).rate_period(Duration::from_millis(400)).rate_burst(2);
    set(&database, settings).await;
    fill(&database, 8, ["a".to_owned(), "b".to_owned()]).await;
    let working = workers(&database, 2, &gauge);
    finished(&database, 16).await;
    for key in ["a", "b"] {
        let starts = starts(&database, &format!("key = '{key}'")).await;
        assert!(starts[1] < 100 && starts[2] >= 100, "two starts at once, then one start each 100 ms: {starts:?}");
        assert!(starts[7] >= 600, "{starts:?}");
    }
    for worker in working {
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_raised_limit_or_a_stopping_worker_lets_jobs_start_at_once() {
    async fn gated(note: Note, State(reporter): State<Reporter>, State(gate): State<Arc<Semaphore>>) {
        reporter.report(note.text);
        gate.acquire().await.unwrap().forget();
    }
    let (database, (reporter, mut reports), gate) = (database().await, reporting(), Arc::new(Semaphore::new(0)));
    set(&database, QueueSettings::new().max_running(1)).await;
    let build = || hourly(&database, 8).state(reporter.clone()).state(Arc::clone(&gate)).handle(gated);
    let first = start(build());
    fill(&database, 4, [String::new()]).await;
    assert_eq!(reports.next().await, " 0");
    let second = start(build());
    database.until("select count(*) = 2 from reveille.sleepers").await;
    set(&database, QueueSettings::new().max_running(2)).await;
    assert_eq!(reports.next().await, " 1");

    // The first worker stops. When jobs 0 and 1 end, the second worker must start jobs 2 and 3, whichever worker ran
    // jobs 0 and 1. The first worker may still claim and release job 2 or 3, so the order of these two may vary.
    first.begin_stop();
    gate.add_permits(2);
    let mut next = [reports.next().await, reports.next().await];
    next.sort();
    assert_eq!(next, [" 2", " 3"]);
    gate.add_permits(2);
    finished(&database, 4).await;
    first.ended().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_frees_the_dead_workers_part_of_the_limit() {
    let (database, gauge) = (database().await, Gauge::default());
    set(&database, QueueSettings::new().max_running(5)).await;
    fill(&database, 60, [String::new()]).await;
    let dead = driver(&database.database, 7).await;
    assert_eq!(claim(&dead, 7, 9).await.len(), 5);
    let quick = || {
        let quick = hourly(&database, 10).heartbeat(Duration::from_millis(50)).dead_after(Duration::from_millis(300));
        quick.state(gauge.clone()).handle(measured)
    };
    let working = [start(quick()), start(quick())];
    finished(&database, 60).await;
    assert_eq!(gauge.most("all"), 5);
    for worker in working {
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_job_completed_in_a_transaction_lets_the_next_one_start() {
    async fn completes(_: Note, State(database): State<Database>, context: Context) -> reveille::Result<()> {
        let mut client = database.client().await?;
        let transaction = client.transaction().await.unwrap();
        context.complete_in(&transaction).await?;
        transaction.commit().await.unwrap();
        Ok(())
    }
    let database = database().await;
    set(&database, QueueSettings::new().ordered(true)).await;
    fill(&database, 5, ["a".to_owned()]).await;
    let running = start(hourly(&database, 10).state(database.database.clone()).handle(completes));
    finished(&database, 5).await;
    running.stop().await;
}

#[tokio::test]
async fn running_jobs_count_for_a_new_limit_until_it_is_lifted() {
    let database = database().await;
    let driver = driver(&database.database, 1).await;
    fill(&database, 10, ["k".to_owned()]).await;
    assert_eq!(claim(&driver, 1, 3).await.len(), 3);
    set(&database, QueueSettings::new().max_running(4)).await;
    assert_eq!(claim(&driver, 1, 9).await.len(), 1);
    let per_key = QueueSettings::new().max_running(None).max_running_per_key(6);
    set(&database, per_key).await;
    assert_eq!(claim(&driver, 1, 9).await.len(), 2);
    database.admin().pause("default").await.unwrap();
    set(&database, QueueSettings::new().max_running_per_key(7)).await;
    assert!(claim(&driver, 1, 9).await.is_empty(), "the queue is paused");
    database.admin().resume("default").await.unwrap();
    assert_eq!(claim(&driver, 1, 9).await.len(), 1);
    set(&database, QueueSettings::new().max_running_per_key(None)).await;
    assert_eq!(claim(&driver, 1, 9).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_claims_keep_the_limits_exactly() {
    let database = database().await;
    let settings = QueueSettings::new().max_running(7).max_running_per_key(2);
    set(&database, settings).await;
    fill(&database, 50, (0..5).map(|key| format!("k{key}"))).await;
    let claimed = Arc::new(AtomicUsize::new(0));
    let claiming = (1..=6).map(|id| {
        let (database, claimed) = (database.database.clone(), Arc::clone(&claimed));
        tokio::spawn(async move {
            let driver = driver(&database, id).await;
            for _ in 0..10 {
                claimed.fetch_add(claim(&driver, id, 3).await.len(), Ordering::Relaxed);
            }
        })
    });
    for claiming in claiming.collect::<Vec<_>>() {
        soon("claims are answered", claiming).await.unwrap();
    }
    assert_eq!(claimed.load(Ordering::Relaxed), 7);
    let most = "select max(n) from (select count(*) as n from reveille.jobs where reserved_at is not null \
        group by key) as by_key";
    assert_eq!(database.value(most).await, 2);
    let shown = "select jsonb_build_array(running, running_keys, most_running_per_key) from reveille.queue_limits";
    assert_eq!(database.value(shown).await[0], 7);
}

#[tokio::test]
async fn an_earlier_job_committed_late_waits_for_the_running_one() {
    let database = database().await;
    let driver = driver(&database.database, 1).await;
    set(&database, QueueSettings::new().ordered(true)).await;
    let late = database.client().await;
    late.batch_execute("begin; insert into reveille.jobs (kind, key) values ('k', 'a')").await.unwrap();
    enqueue(&database.database, &note("second")).key("a").await.unwrap();
    let ids = |jobs: Vec<reveille::job::ReservedJob>| jobs.iter().map(|job| job.reservation.id).collect::<Vec<_>>();
    assert_eq!(ids(claim(&driver, 1, 9).await), [2], "the first job is not committed yet");
    late.batch_execute("commit").await.unwrap();
    assert!(claim(&driver, 1, 9).await.is_empty());
    database.run("delete from reveille.jobs where id = 2").await;
    assert_eq!(ids(claim(&driver, 1, 9).await), [1]);
}

#[tokio::test]
async fn cancelling_the_first_of_a_key_lets_the_next_one_start() {
    let (database, (reporter, mut reports)) = (database().await, reporting());
    set(&database, QueueSettings::new().ordered(true)).await;
    let first = enqueue(&database.database, &note("first")).key("a").delay(Duration::from_secs(3600)).await.unwrap();
    enqueue(&database.database, &note("second")).key("a").await.unwrap();
    let running = start(hourly(&database, 1).state(reporter).handle(report));
    database.until("select count(*) = 1 from reveille.sleepers").await;
    assert_eq!(database.admin().cancel(first.id).await.unwrap(), Cancelled::Cancelled);
    assert_eq!(reports.next().await, "second");
    running.stop().await;
}

#[tokio::test]
async fn limits_are_checked_before_they_are_stored() {
    let database = database().await;
    let refused = async |settings| database.admin().set_queue("q", settings).await.unwrap_err().to_string();
    let none = refused(QueueSettings::new().max_running(0)).await;
    assert!(none.contains("max_running") && none.contains("pause"), "{none}");
    let month = Duration::from_secs(31 * 86_400);
    let long = refused(QueueSettings::new().rate_period(month)).await;
    assert!(long.contains("rate_period"), "{long}");
}
