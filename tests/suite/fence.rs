//! A worker settles only jobs that it still holds, and records endings together where possible.

use std::sync::Arc;
use std::time::Duration;

use reveille::driver::{ClaimRequest, Ending, Failure, FailureReason, Settled, Settlement, WorkerInfo};
use reveille::handler::{Arguments, Handler};
use reveille::job::{IntoOutcome, Payload, Reservation, ReservedJob};
use reveille::{
    State, Worker,
    driver::{Driver, Postgres},
    enqueue,
    enqueue::enqueue_all,
};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;

use crate::harness::{Note, Reporter, TestDatabase, claim, database, note, reporting, start, worker};

async fn driver(database: &TestDatabase, worker: i64) -> Postgres {
    let driver = Postgres::new(database.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(worker).host("test").queues(["default"])).await.unwrap();
    driver
}

async fn reserved(database: &TestDatabase, driver: &Postgres, worker: i64) -> ReservedJob {
    enqueue(&database.database, &note("x")).await.unwrap();
    claim(driver, worker, 1).await.pop().expect("a job was claimed")
}

fn settlement(job: &ReservedJob, ending: Ending) -> Settlement {
    Settlement::new(job.reservation, ending)
}

/// Settles jobs. Returns, for each settlement, true if the settlement was recorded.
async fn settle(driver: &Postgres, settlements: &[Settlement]) -> Vec<bool> {
    driver.settle(settlements).await.unwrap().iter().map(Settled::is_counted).collect()
}

fn every_ending() -> [Ending; 5] {
    let failure = Failure::new(FailureReason::Failed, "no");
    let waiting = Ending::Waiting { failure: None, delay: Duration::ZERO };
    [Ending::Completed(None), Ending::Cancelled, waiting, Ending::Dead(failure), Ending::Released]
}

#[tokio::test]
async fn an_ending_counts_once() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let job = reserved(&database, &driver, 7).await;
    let settled = settlement(&job, Ending::Completed(None));
    assert_eq!(settle(&driver, std::slice::from_ref(&settled)).await, [true]);
    assert_eq!(settle(&driver, &[settled]).await, [false]);
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 1);
}

#[tokio::test]
async fn each_part_of_the_fence_holds_for_each_ending() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let job = reserved(&database, &driver, 7).await;
    for ending in every_ending() {
        let good = settlement(&job, ending);
        let mut wrong = vec![good.clone(); 4];
        wrong[0].reservation.id += 1;
        wrong[1].reservation.worker += 1;
        wrong[2].reservation.attempt += 1;
        wrong[3].reservation.reserved_at += Duration::from_micros(1);
        assert_eq!(settle(&driver, &wrong).await, [false; 4], "{:?}", good.ending);
    }
    let untouched = "select jsonb_build_array(reserved_by, attempts, failures) from reveille.jobs";
    assert_eq!(database.value(untouched).await, json!([7, 1, 0]));
}

#[tokio::test]
async fn a_batch_settles_only_jobs_that_the_worker_still_holds() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let mut batch = Vec::new();
    for ending in every_ending() {
        let job = reserved(&database, &driver, 7).await;
        batch.push(settlement(&job, ending));
    }
    batch[1].reservation.attempt = 99;
    assert_eq!(settle(&driver, &batch).await, [true, false, true, true, true]);
    let counts =
        "select jsonb_build_array((select count(*) from reveille.jobs), (select count(*) from reveille.finished_jobs),
        (select count(*) from reveille.dead_jobs))";
    assert_eq!(database.value(counts).await, json!([3, 1, 1]));
}

#[tokio::test]
async fn each_ending_of_a_batch_settles_its_own_job_in_any_order() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(reserved(&database, &driver, 7).await);
    }
    let done =
        |job: &ReservedJob| settlement(job, Ending::Completed(Some(Payload::encode(&job.reservation.id).unwrap())));
    let mut lost = settlement(&jobs[0], Ending::Cancelled);
    lost.reservation.attempt += 1;
    let batch = [lost.clone(), done(&jobs[2]), done(&jobs[0]), settlement(&jobs[1], Ending::Cancelled), lost];
    assert_eq!(settle(&driver, &batch).await, [false, true, true, true, false]);
    let ended =
        "select jsonb_agg(jsonb_build_array(outcome, (result)::bigint = id) order by id) from reveille.finished_jobs";
    assert_eq!(database.value(ended).await, json!([["completed", true], ["cancelled", null], ["completed", true]]));
}

/// Reserves 20 jobs in one claim, so that the driver can settle them in one statement by the claim's tuple ids.
async fn reserved_together(database: &TestDatabase, driver: &Postgres, worker: i64) -> Vec<ReservedJob> {
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 20)").await;
    let jobs = claim(driver, worker, 20).await;
    assert_eq!(jobs.len(), 20);
    jobs
}

fn completed(jobs: &[ReservedJob]) -> Vec<Settlement> {
    let timed = |(n, job): (u64, &ReservedJob)| {
        let settlement = settlement(job, Ending::Completed(None));
        settlement.waited(Duration::from_secs(n)).ran(Duration::from_secs(2 * n))
    };
    (1..).zip(jobs).map(timed).collect()
}

const COUNTED: &str = "select jsonb_agg(jsonb_build_array(
        completed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds, worker)) from
    (select queue, worker, sum(completed) as completed, sum(wait_seconds) as wait_seconds,
    max(max_wait_seconds) as max_wait_seconds,
        sum(run_seconds) as run_seconds, max(max_run_seconds) as max_run_seconds from reveille.counters
        group by queue, worker) as counted";

#[tokio::test]
async fn jobs_of_one_claim_are_completed_together_and_each_counts_once() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let batch = completed(&reserved_together(&database, &driver, 7).await);
    assert_eq!(settle(&driver, &batch).await, [true; 20]);
    assert_eq!(settle(&driver, &batch).await, [false; 20]);
    assert_eq!(database.value(COUNTED).await, json!([[20, 210, 20, 420, 40, 7]]));
    let kept = "select jsonb_build_array(count(*), sum(wait_seconds), sum(run_seconds), count(distinct xmin::text),
        bool_and(id = wait_seconds and worker = 7 and outcome = 'completed' and attempts = 1))
        from reveille.finished_jobs";
    assert_eq!(database.value(kept).await, json!([20, 210, 420, 1, true]));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

#[tokio::test]
async fn each_part_of_the_fence_holds_for_jobs_of_one_claim() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let good = completed(&reserved_together(&database, &driver, 7).await);
    let changes: [fn(&mut Reservation); 4] = [
        |reservation| reservation.id += 100,
        |reservation| reservation.worker += 1,
        |reservation| reservation.attempt += 1,
        |reservation| reservation.reserved_at += Duration::from_micros(1),
    ];
    for change in changes {
        let mut wrong = good.clone();
        wrong.iter_mut().for_each(|settlement| change(&mut settlement.reservation));
        assert_eq!(settle(&driver, &wrong).await, [false; 20]);
    }
    assert_eq!(database.value("select count(*) from reveille.jobs where reserved_by = 7 and attempts = 1").await, 20);
    assert_eq!(database.value("select count(*) from reveille.counters").await, 0);
}

#[tokio::test]
async fn jobs_of_several_claims_are_each_fenced_by_their_own_claim() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    for (retention, kept) in [("1 day", 39), ("0", 0)] {
        database
            .run(&format!(
                "insert into reveille.queues (name, retention) values ('default', '{retention}')
                on conflict (name) do update set retention = excluded.retention"
            ))
            .await;
        database.run("delete from reveille.finished_jobs; delete from reveille.counters").await;
        let mut batch = completed(&reserved_together(&database, &driver, 7).await);
        batch.extend(completed(&reserved_together(&database, &driver, 7).await));
        // Changes the batch as if the first job had been released, and claimed again in the claim of the last 20.
        let (first, again) = (batch[0].reservation.id, batch[20].reservation.reserved_at);
        batch[0].reservation.reserved_at = again;
        let stood = settle(&driver, &batch).await;
        assert_eq!(stood, (0..40).map(|n| n != 0).collect::<Vec<_>>());
        let left = "select jsonb_agg(jsonb_build_array(id, reserved_by)) from reveille.jobs";
        assert_eq!(database.value(left).await, json!([[first, 7]]));
        let by = "select jsonb_build_array(count(*), count(distinct xmin::text)) from reveille.finished_jobs";
        assert_eq!(database.value(by).await, json!([kept, kept.min(1)]));
        let counters = "select jsonb_agg(completed) from reveille.counters";
        assert_eq!(database.value(counters).await, json!([39]), "one statement has counted all jobs");
        database.run("delete from reveille.jobs").await;
    }
}

#[tokio::test]
async fn jobs_settled_together_count_for_their_own_queues() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let mut batch = Vec::new();
    for queue in ["one", "another"] {
        let count = if queue == "one" { 20 } else { 30 };
        let jobs =
            format!("insert into reveille.jobs (queue, kind) select '{queue}', 'k' from generate_series(1, {count})");
        database.run(&jobs).await;
        batch.extend(completed(&driver.claim(&ClaimRequest::new(7, queue, count)).await.unwrap().jobs));
    }
    assert_eq!(settle(&driver, &batch).await, [true; 50]);
    let counted = "select jsonb_agg(jsonb_build_array(queue, completed, wait_seconds) order by queue) from
        (select queue, sum(completed) as completed, sum(wait_seconds) as wait_seconds from reveille.counters
        group by queue) as counted";
    assert_eq!(database.value(counted).await, json!([["another", 30, 465], ["one", 20, 210]]));
}

#[tokio::test]
async fn jobs_whose_rows_moved_after_the_claim_are_still_settled() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let batch = completed(&reserved_together(&database, &driver, 7).await);
    database
        .run(
            "update reveille.jobs set progress = '1' where id <= 3;
            update reveille.jobs set reserved_by = 8 where id = 4;
            update reveille.jobs set awaited = true where id = 5",
        )
        .await;
    let stood = settle(&driver, &batch).await;
    assert_eq!(stood, (1..=20).map(|id| id != 4).collect::<Vec<_>>());
    assert_eq!(database.value("select jsonb_agg(id) from reveille.jobs").await, json!([4]));
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 19);
    assert_eq!(database.value("select sum(completed) from reveille.counters").await, 19);
}

#[tokio::test]
async fn a_job_in_the_former_place_of_a_lost_one_is_left_alone() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let jobs = reserved_together(&database, &driver, 7).await;
    let place = |id: i64| format!("select ctid::text from reveille.jobs where id = {id}");
    let first = database.value(&place(1)).await;
    database.run("delete from reveille.jobs where id = 1").await;
    database.run("vacuum (index_cleanup on) reveille.jobs").await;
    // The new rows take the tuple ids that became free when the claim updated the jobs.
    database.run("insert into reveille.jobs (kind) select 'other' from generate_series(1, 20)").await;
    database.run("update reveille.jobs set progress = '1' where id = 2").await;
    assert_eq!(database.value(&place(2)).await, first);
    assert_eq!(settle(&driver, &completed(&jobs[..1])).await, [false]);
    assert_eq!(database.value("select count(*) from reveille.jobs where reserved_by = 7").await, 19);
}

#[tokio::test]
async fn a_settlement_uses_the_current_retention_not_the_claims() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let (none, some, mut kept) = ("0", "1 day", 0);
    for retention in [none, none, some, some, none, none] {
        let batch = completed(&reserved_together(&database, &driver, 7).await);
        let set = format!(
            "insert into reveille.queues (name, retention) values ('default', '{retention}')
            on conflict (name) do update set retention = excluded.retention"
        );
        database.run(&set).await;
        assert_eq!(settle(&driver, &batch).await, [true; 20]);
        kept += if retention == some { 20 } else { 0 };
        assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, kept);
    }
    assert_eq!(database.value("select sum(completed) from reveille.counters").await, 120);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
}

#[tokio::test]
async fn a_worker_without_its_row_claims_nothing() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    enqueue(&database.database, &note("x")).await.unwrap();
    assert!(claim(&driver, 8, 1).await.is_empty());
    assert_eq!(claim(&driver, 7, 1).await.len(), 1);
}

#[tokio::test]
async fn a_claim_takes_no_more_than_it_asks_for_across_levels() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    database.run("insert into reveille.jobs (kind, priority) select 'k', n % 4 from generate_series(1, 40) as n").await;
    let levels: Vec<_> = claim(&driver, 7, 15).await.iter().map(|job| job.priority as i16).collect();
    assert_eq!(levels, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    assert_eq!(database.value("select count(*) from reveille.jobs where reserved_at is not null").await, 15);
}

#[tokio::test]
async fn a_job_unique_until_started_frees_its_key_when_it_starts() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let call = "select existed from reveille.enqueue(kind => 'k', unique_key => 'u', unique_until => 'started')";
    assert_eq!(database.value(call).await, false);
    assert_eq!(database.value(call).await, true);
    claim(&driver, 7, 1).await;
    assert_eq!(database.value(call).await, false, "the first job runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_after_the_job_was_taken_away_changes_nothing() {
    let database = database().await;
    async fn holds(_: Note, State(reporter): State<Reporter>, gate: State<Gate>) {
        reporter.report("started");
        gate.0.notified().await;
    }
    type Gate = std::sync::Arc<tokio::sync::Notify>;
    let (reporter, mut reports) = reporting();
    let gate = Gate::default();
    let worker = start(worker(&database).state(reporter).state(gate.clone()).handle(holds));
    enqueue(&database.database, &note("x")).await.unwrap();
    reports.next().await;
    database
        .run(
            "insert into reveille.workers (id, host, pid, version, queues, slots) \
                values (8, 'h', 1, 'v', '{default}', 1);
            update reveille.jobs set reserved_by = 8, attempts = 2",
        )
        .await;
    gate.notify_one();
    worker.stop().await;
    assert_eq!(
        database.value("select jsonb_build_array(reserved_by, attempts) from reveille.jobs").await,
        json!([8, 2])
    );
}

#[tokio::test]
async fn a_cancelled_job_that_is_put_back_is_claimed_as_cancelled() {
    let database = database().await;
    let driver = driver(&database, 7).await;
    let job = reserved(&database, &driver, 7).await;
    database.run("select reveille.cancel(1)").await;
    let later = Ending::Waiting { failure: None, delay: Duration::from_secs(3600) };
    settle(&driver, &[settlement(&job, later)]).await;
    let again = claim(&driver, 7, 1).await.pop().expect("the job is due at once");
    assert!(again.cancel_requested);
}

/// Runs twenty jobs, which end one after another, on one thread. Returns the number of transactions that settled them.
/// `interval` is tokio's `event_interval`: after this many polls of ready tasks, tasks that have yielded run again.
fn settlements_of_twenty<A, H>(interval: u32, handler: H) -> Value
where
    A: Arguments,
    H: Handler<A>,
    H::Future: Future<Output: IntoOutcome> + Send + 'static,
{
    let runtime = Builder::new_current_thread().enable_all().event_interval(interval).build().unwrap();
    runtime.block_on(async {
        let database = database().await;
        let jobs: Vec<_> = (0..20).map(|n| note(&n.to_string())).collect();
        enqueue_all(&database.database, &jobs).await.unwrap();
        let ((reporter, mut reports), turn) = (reporting(), Arc::new(Semaphore::new(0)));
        let builder = Worker::builder(database.database.clone()).queue("default", 20).state(reporter);
        let worker = start(builder.state(Arc::clone(&turn)).handle(handler));
        for _ in 0..20 {
            reports.next().await;
        }
        turn.add_permits(1);
        database.until("select (select count(*) from reveille.finished_jobs) = 20").await;
        worker.stop().await;
        database.value("select to_jsonb(count(distinct xmin::text)) from reveille.finished_jobs").await
    })
}

#[test]
fn jobs_that_end_at_the_same_moment_are_settled_together() {
    async fn wait(_: Note, State(reporter): State<Reporter>, State(turn): State<Arc<Semaphore>>) {
        reporter.report("waits");
        drop(turn.acquire().await);
    }
    assert_eq!(settlements_of_twenty(10_000, wait), 1);
}

#[test]
fn a_busy_thread_does_not_hold_back_settlements() {
    async fn work(_: Note, State(reporter): State<Reporter>, State(turn): State<Arc<Semaphore>>) {
        reporter.report("waits");
        let turn = turn.acquire().await;
        std::thread::sleep(Duration::from_millis(2));
        drop(turn);
    }
    let settlements = settlements_of_twenty(1, work);
    assert!(settlements.as_u64() > Some(1), "{settlements}");
}
