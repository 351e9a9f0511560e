//! Looking back below the marks of a queue.

use std::time::Duration;

use reveille::driver::{Mark, Marks};
use reveille::{Driver, Postgres, Worker};

use crate::harness::{TestDatabase, database, start, tell, teller, telling};

async fn heads(database: &TestDatabase, from: Marks) -> [Option<i64>; 4] {
    let driver = Postgres::new(database.database.clone()).unwrap();
    driver.heads("q", from).await.unwrap().map(|head| head.map(|head| head.id))
}

#[tokio::test]
async fn a_look_back_says_where_each_level_begins() {
    let database = database().await;
    database
        .run(
            "insert into reveille.jobs (id, queue, kind, priority, available_at, reserved_at, reserved_by, attempts)
            overriding system value values
            (1, 'q', 'k', 0, now() + interval '1 hour', null, null, 0),
            (2, 'q', 'k', 1, now() - interval '3 hours', now(), 7, 1),
            (3, 'q', 'k', 1, now() - interval '1 hour', null, null, 0),
            (4, 'q', 'k', 2, now() - interval '1 hour', null, null, 0),
            (5, 'q', 'k', 2, now() - interval '2 hours', null, null, 0),
            (6, 'other', 'k', 3, now(), null, null, 0)",
        )
        .await;
    assert_eq!(heads(&database, Marks::default()).await, [None, Some(3), Some(5), None]);
    let mark = Mark { available_at: std::time::SystemTime::now() - Duration::from_secs(5400), id: 0 };
    assert_eq!(heads(&database, [Some(mark); 4]).await, [None, Some(3), Some(4), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_found_below_the_marks_of_a_queue_full_of_dead_rows() {
    let database = database().await;
    let holder = database.client().await;
    holder.batch_execute("begin isolation level repeatable read; select count(*) from reveille.jobs").await.unwrap();
    // So many that looking from the very start is too dear to do each time.
    database
        .run(
            "insert into reveille.jobs (kind, available_at) select 'note', now() - interval '1 hour' from generate_series(1, 60000);
            delete from reveille.jobs",
        )
        .await;
    let (builder, mut heard) = teller(&database.database);
    let worker = start(builder.poll_interval(Duration::from_secs(3600)));
    for text in ["first", "second"] {
        database.until("select exists (select from reveille.sleepers)").await;
        let insert = format!(
            "insert into reveille.jobs (kind, payload, available_at)
            values ('note', '{{\"text\": \"{text}\"}}', now() - interval '2 hours')"
        );
        database.run(&insert).await;
        assert_eq!(heard.next().await, text);
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_below_the_marks_is_found_while_the_queue_is_full() {
    const FULL: usize = 100_000;
    let database = database().await;
    database
        .run(&format!(
            "insert into reveille.jobs (kind, payload) select 'note', '{{\"text\": \"full\"}}' from generate_series(1, {FULL})"
        ))
        .await;
    let (told, mut heard) = telling();
    let worker = start(Worker::builder(database.database.clone()).queue("default", 64).state(told).handle(tell));
    let mut before = 0;
    while heard.next().await != "late" {
        before += 1;
        if before == 1000 {
            // As from a transaction that was open for so long.
            database
                .run(
                    "insert into reveille.jobs (kind, payload, priority, available_at)
                    values ('note', '{\"text\": \"late\"}', 0, now() - interval '300 ms')",
                )
                .await;
        }
    }
    assert!(before < FULL * 9 / 10, "it started after {before} of {FULL} others");
    worker.stop().await;
}
