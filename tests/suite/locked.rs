//! Another session locks the row of a running job, and everything else goes on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reveille::driver::{Ending, Failure, FailureReason, Settled, Settlement, WorkerInfo};
use reveille::job::{Payload, ReservedJob};
use reveille::{
    Context, State, Worker,
    driver::{Driver, Postgres},
    enqueue,
    enqueue::enqueue_all,
};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use crate::harness::{Note, Reporter, Running, TestDatabase, claim, database, note, reporting, soon, start, worker};
use crate::tracing::EventLog;

/// Runs `sql` in a transaction, leaves the transaction open, and returns its session.
async fn holding(database: &TestDatabase, sql: &str) -> Client {
    let client = database.client().await;
    client.batch_execute(&format!("set application_name = 'the holder'; begin; {sql}")).await.unwrap();
    client
}

type Gate = Arc<Semaphore>;

/// A handler that reports its note's text, and ends once the gate has a permit.
async fn waits(note: Note, State(reporter): State<Reporter>, State(gate): State<Gate>) {
    reporter.report(note.text);
    gate.acquire().await.unwrap().forget();
}

fn settlement(job: &ReservedJob, ending: Ending) -> Settlement {
    Settlement::new(job.reservation, ending)
}

async fn driver(database: &TestDatabase) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(7).host("test").queues(["default"])).await.unwrap();
    driver
}

/// Reserves `count` new jobs. Returns them in the order of their ids.
async fn reserved(database: &TestDatabase, driver: &Postgres, count: usize) -> Vec<ReservedJob> {
    database.run(&format!("insert into reveille.jobs (kind) select 'k' from generate_series(1, {count})")).await;
    let jobs = claim(driver, 7, count).await;
    assert_eq!(jobs.len(), count);
    jobs
}

/// Starts a worker on two queues with one job. The job runs until the gate has a permit. Then runs `lock`, which locks
/// the job's row. Returns the worker, the gate and the session that holds the lock.
async fn locked_while_it_runs(database: &TestDatabase, lock: &str) -> (Running, Gate, Client) {
    let ((reporter, mut reports), gate) = (reporting(), Gate::new(Semaphore::new(0)));
    let builder = Worker::builder(database.database.clone()).queue("default", 2).queue("b", 2);
    let worker = start(builder.state(reporter).state(Arc::clone(&gate)).handle(waits));
    enqueue(&database.database, &note("locked")).await.unwrap();
    assert_eq!(reports.next().await, "locked");
    (worker, gate, holding(database, lock).await)
}

/// Enqueues 100 jobs in each queue, and lets all jobs end.
async fn work_two_hundred(database: &TestDatabase, gate: &Gate) {
    for queue in ["default", "b"] {
        let jobs = format!(
            r#"insert into reveille.jobs (queue, kind, payload) select '{queue}', 'note', '{{"text": "x"}}'
                from generate_series(1, 100)"#
        );
        database.run(&jobs).await;
    }
    gate.add_permits(201);
    database.until("select count(*) = 200 from reveille.finished_jobs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_a_running_job_delays_the_end_of_that_job_only() {
    let database = database().await;
    let (worker, gate, holder) =
        locked_while_it_runs(&database, "select from reveille.jobs where id = 1 for update").await;
    work_two_hundred(&database, &gate).await;
    let left = "select jsonb_agg(jsonb_build_array(id, attempts, reserved_by is not null)) from reveille.jobs";
    assert_eq!(database.value(left).await, json!([[1, 1, true]]), "the worker still holds the job");
    holder.batch_execute("commit").await.unwrap();
    database.until("select count(*) = 201 from reveille.finished_jobs where failures = 0").await;
    worker.stop().await;
    assert_eq!(database.value("select sum(completed) from reveille.counters").await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_row_that_refers_to_a_job_delays_that_job_only() {
    let database = database().await;
    database.run("create table orders (job bigint references reveille.jobs on delete cascade)").await;
    let (worker, gate, holder) = locked_while_it_runs(&database, "insert into orders values (1)").await;
    work_two_hundred(&database, &gate).await;
    holder.batch_execute("commit").await.unwrap();
    database.until("select count(*) = 201 from reveille.finished_jobs where failures = 0").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_that_refers_to_a_job_delays_that_job_only() {
    let database = database().await;
    database.run("create table orders (job bigint references reveille.jobs on delete cascade)").await;
    let (reporter, mut reports) = reporting();
    let gate = Gate::new(Semaphore::new(0));
    let worker = start(worker(&database).state(reporter).state(Arc::clone(&gate)).handle(waits));
    enqueue(&database.database, &note("referred to")).await.unwrap();
    assert_eq!(reports.next().await, "referred to");
    database.run("insert into orders values (1)").await;
    let holder = holding(&database, "select from orders for update").await;
    let jobs: Vec<_> = (0..50).map(|n| note(&n.to_string())).collect();
    enqueue_all(&database.database, &jobs).await.unwrap();
    gate.add_permits(51);
    database.until("select count(*) = 50 from reveille.finished_jobs").await;
    holder.batch_execute("commit").await.unwrap();
    database.until("select count(*) = 51 from reveille.finished_jobs where failures = 0").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_counters_delay_no_job() {
    let database = database().await;
    let driver = driver(&database).await;
    let jobs = reserved(&database, &driver, 40).await;
    let batch: Vec<_> = jobs.iter().map(|job| settlement(job, Ending::Completed(None))).collect();
    // Inserts the rows in which the next minute of ended jobs would be counted.
    let row = "insert into reveille.counters (queue, started_at, worker) \
        select 'default', date_bin('10 seconds', now() + n, 'epoch'), 7
        from unnest('{0 s, 10 s, 20 s, 30 s, 40 s, 50 s, 60 s}'::interval[]) as n";
    database.run(row).await;
    let holder = holding(&database, "select from reveille.counters for update").await;
    for batch in [&batch[..20], &batch[20..30], &batch[30..31]] {
        let settled = soon("the batch is settled", driver.settle(batch)).await.unwrap();
        assert!(settled.iter().all(Settled::is_counted), "{settled:?}");
    }
    let failure = || Failure::new(FailureReason::Failed, "no");
    let recorded = settlement(&jobs[33], Ending::Recorded("default".into()));
    let waiting = settlement(&jobs[31], Ending::Waiting { failure: Some(failure()), delay: Duration::ZERO });
    let batch = [waiting, settlement(&jobs[32], Ending::Dead(failure())), recorded];
    let settled = soon("the batch is settled", driver.settle(&batch)).await.unwrap();
    assert!(settled.iter().all(Settled::is_counted), "{settled:?}");
    holder.batch_execute("commit").await.unwrap();
    let counted = "select jsonb_build_array(sum(completed), sum(failed)) from reveille.counters";
    assert_eq!(database.value(counted).await, json!([32, 2]));
}

#[tokio::test]
async fn a_batch_tells_locked_jobs_from_lost_ones() {
    let database = database().await;
    let driver = driver(&database).await;
    let failure = || Failure::new(FailureReason::Failed, "no");
    let endings = [
        Ending::Completed(None),
        Ending::Completed(Some(Payload::encode(&1).unwrap())),
        Ending::Cancelled,
        Ending::Waiting { failure: Some(failure()), delay: Duration::from_secs(60) },
        Ending::Dead(failure()),
    ];
    for ending in endings {
        let jobs = reserved(&database, &driver, 20).await;
        let (locked, lost) = (jobs[3].reservation.id, jobs[5].reservation.id);
        let holder = holding(&database, &format!("select from reveille.jobs where id = {locked} for update")).await;
        let mut batch: Vec<_> = jobs.iter().map(|job| settlement(job, ending.clone())).collect();
        batch[5].reservation.reserved_at = SystemTime::UNIX_EPOCH;
        let settled = soon("the batch is settled", driver.settle(&batch)).await.unwrap();
        for (settlement, settled) in batch.iter().zip(settled) {
            match settled {
                Settled::Counted => {}
                Settled::Lost => assert_eq!(settlement.reservation.id, lost, "{ending:?}"),
                Settled::Locked(by) => {
                    assert_eq!(settlement.reservation.id, locked, "{ending:?}");
                    assert!(by.starts_with("pid ") && by.ends_with(" (the holder)"), "{by}");
                }
            }
        }
        let left =
            format!("select jsonb_agg(id order by id) from reveille.jobs where reserved_by = 7 and id >= {locked} - 3");
        assert_eq!(database.value(&left).await, json!([locked, lost]), "{ending:?}");
        holder.batch_execute("commit").await.unwrap();
        assert_eq!(driver.settle(&batch[3..4]).await.unwrap(), [Settled::Counted], "{ending:?}");
    }
}

#[tokio::test]
async fn the_log_names_the_locked_job_and_the_session_that_locks_it() {
    let (events, _guard) = EventLog::start();
    let database = database().await;
    let (worker, gate, holder) =
        locked_while_it_runs(&database, "select from reveille.jobs where id = 1 for update").await;
    let pid = database
        .value(
            "select pid from pg_stat_activity where application_name = 'the holder' and datname = current_database()",
        )
        .await;
    gate.add_permits(1);
    crate::harness::eventually("the lock is logged", async || {
        events.count("job.locked", "by", &format!("pid {pid} (the holder)")) == 1
            && events.count("job.locked", "id", "1") == 1
    })
    .await;
    holder.batch_execute("commit").await.unwrap();
    crate::harness::eventually("the lock's end is logged", async || events.count("job.unlocked", "id", "1") == 1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_locked_job_is_dropped_and_its_handler_goes_on() {
    let database = database().await;
    async fn reports_progress(
        _: Note,
        context: Context,
        State(reporter): State<Reporter>,
        State(gate): State<Gate>,
    ) -> reveille::Result<()> {
        reporter.report("begun");
        gate.acquire().await.unwrap().forget();
        context.progress(&1).await?;
        reporter.report("reported");
        Ok(())
    }
    let ((reporter, mut reports), gate) = (reporting(), Gate::new(Semaphore::new(0)));
    let worker = start(worker(&database).state(reporter).state(Arc::clone(&gate)).handle(reports_progress));
    enqueue(&database.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "begun");
    let holder = holding(&database, "select from reveille.jobs for update").await;
    gate.add_permits(1);
    assert_eq!(reports.next().await, "reported");
    holder.batch_execute("commit").await.unwrap();
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_locked_stray_stays_and_the_other_strays_go_back() {
    let database = database().await;
    let driver = driver(&database).await;
    reserved(&database, &driver, 3).await;
    let holder = holding(&database, "select from reveille.jobs where id = 2 for update").await;
    let mut released = soon("the strays are released", driver.release_strays(7, &[])).await.unwrap();
    released.sort_unstable();
    assert_eq!(released, [1, 3]);
    holder.batch_execute("commit").await.unwrap();
    assert_eq!(driver.release_strays(7, &[]).await.unwrap(), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_locked_job_stops_and_leaves_it_to_a_rescue() {
    let database = database().await;
    let (worker, gate, holder) =
        locked_while_it_runs(&database, "select from reveille.jobs where id = 1 for update").await;
    gate.add_permits(1);
    worker.stop().await;
    assert_eq!(database.value("select count(*) from reveille.workers").await, 0);
    holder.batch_execute("commit").await.unwrap();
    let rescuer = driver(&database).await;
    assert_eq!(rescuer.rescue(7, &[]).await.unwrap().jobs, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_a_locked_job_and_counts_it() {
    let database = database().await;
    let ((reporter, mut reports), gate) = (reporting(), Gate::new(Semaphore::new(0)));
    let worker = worker(&database).state(reporter).state(Arc::clone(&gate)).handle(waits).build().unwrap();
    enqueue(&database.database, &note("x")).await.unwrap();
    let draining = tokio::spawn(async move { worker.run_until_drained().await });
    assert_eq!(reports.next().await, "x");
    let holder = holding(&database, "select from reveille.jobs for update").await;
    gate.add_permits(1);
    // The worker has searched for the holder of the lock, and will search again.
    database
        .until(
            "select count(*) > 0 from pg_stat_activity where datname = current_database() \
                and query like '-- Names the sessions that have locked%'",
        )
        .await;
    holder.batch_execute("commit").await.unwrap();
    assert_eq!(soon("the drain ends", draining).await.unwrap().unwrap().completed, 1);
}
