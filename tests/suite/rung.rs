//! The claim that a bell asks for: which jobs it takes, and where it is made.

use std::time::SystemTime;

use reveille::driver::{Start, WorkerInfo};
use reveille::{
    driver::{Driver, Postgres},
    enqueue,
};

use crate::harness::{Heard, TestDatabase, database, note, soon, start, teller};

const RUNG: Start = Start { marks: [None; 4], shared: false, rung: true };

async fn claim(driver: &Postgres, worker: i64, from: Start) -> Vec<i64> {
    let claimed = driver.claim(worker, "q", 3, from).await.unwrap();
    claimed.jobs.iter().map(|job| job.reservation.id).collect()
}

#[tokio::test]
async fn a_claim_for_the_bell_takes_what_any_claim_takes_in_the_same_order() {
    let database = database().await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    let info = WorkerInfo { id: 7, host: "test".into(), pid: 1, queues: vec!["q".into()], slots: 1 };
    driver.register(&info).await.unwrap();
    database
        .run(
            "insert into reveille.jobs (id, queue, kind, priority, available_at) overriding system value values
            (1, 'q', 'k', 3, now() - interval '3 hours'),
            (2, 'q', 'k', 2, now() - interval '1 hour'),
            (3, 'q', 'k', 2, now() - interval '2 hours'),
            (4, 'q', 'k', 0, now() + interval '1 hour'),
            (5, 'other', 'k', 0, now()),
            (6, 'q', 'k', 0, now())",
        )
        .await;
    for from in [Start::default(), RUNG] {
        assert_eq!(claim(&driver, 8, from).await, [0; 0], "there is no such worker");
        assert_eq!(claim(&driver, 7, from).await, [6, 3, 2]);
        assert_eq!(claim(&driver, 7, from).await, [1], "one is delayed, and one in another queue");
        database.run("update reveille.jobs set reserved_at = null, reserved_by = null").await;
        database.run("select reveille.pause('q')").await;
        assert_eq!(claim(&driver, 7, from).await, [0; 0], "paused");
        database.run("select reveille.resume('q'); update reveille.queues set max_running = 1").await;
        assert_eq!(claim(&driver, 7, from).await, [6], "within the limits");
        database
            .run("delete from reveille.queues; update reveille.jobs set reserved_at = null, reserved_by = null")
            .await;
    }
}

/// Enqueues jobs until one is claimed where its bell was heard.
async fn until_claimed_where_heard(database: &TestDatabase, heard: &mut Heard) {
    let client = database.client().await;
    let since = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'reveille listener' and query_start > $1";
    loop {
        database.until("select exists (select from reveille.sleepers)").await;
        let began: SystemTime = client.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
        enqueue(&database.database, &note("rung")).await.unwrap();
        assert_eq!(heard.next().await, "rung");
        if client.query_one(since, &[&began]).await.unwrap().get::<_, i64>(0) == 1 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_made_where_the_bell_was_heard() {
    let database = database().await;
    let (builder, mut heard) = teller(&database);
    let worker = start(builder);
    soon("a claim in the listener's session", until_claimed_where_heard(&database, &mut heard)).await;
    worker.stop().await;
}

/// Holds up the claim of a job until it is cancelled, if it is made where the bell was heard: whether it was.
async fn cancelled_where_heard(database: &TestDatabase) -> bool {
    let holder = database.client().await;
    holder.batch_execute("begin; lock table reveille.queues in access exclusive mode").await.unwrap();
    enqueue(&database.database, &note("held up")).await.unwrap();
    let claim = "select application_name, pid from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '-- Reserve due jobs%'";
    database.until(&format!("select exists ({claim})")).await;
    let cancelled =
        format!("select pg_cancel_backend(pid) from ({claim}) as claim where application_name = 'reveille listener'");
    let cancelled = database.value(&cancelled).await == true;
    holder.batch_execute("commit").await.unwrap();
    cancelled
}

#[tokio::test(flavor = "multi_thread")]
async fn where_that_session_fails_it_is_made_in_another() {
    let database = database().await;
    let (builder, mut heard) = teller(&database);
    let worker = start(builder);
    soon("a claim in the listener's session", async {
        loop {
            until_claimed_where_heard(&database, &mut heard).await;
            let cancelled = cancelled_where_heard(&database).await;
            assert_eq!(heard.next().await, "held up");
            if cancelled {
                break;
            }
        }
    })
    .await;
    enqueue(&database.database, &note("next")).await.unwrap();
    assert_eq!(heard.next().await, "next", "that session hears as before");
    worker.stop().await;
    assert_eq!(database.value("select max(attempts) from reveille.finished_jobs").await, 1);
}
