//! Tests through a real PgBouncer in transaction mode. `.ci/pooler` fetches PgBouncer and runs these tests.

use std::time::Duration;

use reveille::admin::{Cancelled, Retried};
use reveille::enqueue::copy_all;
use reveille::{Context, Database, State, enqueue, enqueue::enqueue_all};

use crate::harness::{
    Note, Reporter, client, database, empty_database, migrations, note, reporting, reporting_worker, start, worker,
};
use crate::pgbouncer::Pooler;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A handler that completes its job in the handler's own transaction. The first attempt at the note "fails" fails.
async fn handle(
    note: Note,
    State(reporter): State<Reporter>,
    State(database): State<Database>,
    context: Context,
) -> Result<(), Failed> {
    if note.text == "fails" && context.attempt().number == 1 {
        return Err("once".into());
    }
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    context.complete_in(&tx).await?;
    tx.commit().await?;
    reporter.report(note.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PgBouncer: .ci/pooler"]
async fn everything_works_through_a_transaction_pooler_without_a_trace() {
    let behind = empty_database().await;
    let pooler = Pooler::start(&behind).await;
    let database = Database::connect(pooler.address()).await.unwrap();
    assert!(database.is_pooled());
    assert!(!behind.is_pooled());
    // Four clients migrate at the same time, as when an application starts.
    let migrated = futures::future::join_all((0..4).map(|_| database.migrate())).await;
    assert_eq!(migrated.into_iter().map(|applied| applied.unwrap().len()).sum::<usize>(), migrations().len());

    let (reporter, mut reports) = reporting();
    let build = || {
        let builder = worker(&database).listen(false).poll_interval(Duration::from_millis(50));
        builder.state(reporter.clone()).state(database.clone()).handle(handle)
    };
    let workers = [start(build()), start(build())];
    enqueue(&database, &note("alone")).await.unwrap();
    enqueue(&database, &note("unique")).unique_key("k").await.unwrap();
    enqueue_all(&database, [&note("many"), &note("fails")]).await.unwrap();
    copy_all(&database, &[note("copied")]).await.unwrap();
    let mut client_of_pool = database.client().await.unwrap();
    for text in ["in a pool's transaction", "in a pool's next"] {
        let tx = client_of_pool.transaction().await.unwrap();
        enqueue(&tx, &note(text)).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut plain = client(&pooler.address()).await;
    let tx = plain.transaction().await.unwrap();
    enqueue(&tx, &note("in a transaction")).await.unwrap();
    tx.commit().await.unwrap();
    let mut texts: Vec<String> = Vec::new();
    for _ in 0..8 {
        texts.push(reports.next().await);
    }
    texts.sort();
    assert_eq!(
        texts,
        [
            "alone",
            "copied",
            "fails",
            "in a pool's next",
            "in a pool's transaction",
            "in a transaction",
            "many",
            "unique"
        ]
    );
    behind.until("select count(*) = 8 from reveille.finished_jobs").await;

    let late = enqueue(&database, &note("late")).delay(Duration::from_secs(3600)).await.unwrap().id;
    let admin = database.admin();
    assert_eq!(admin.retry(late).await.unwrap(), Retried::Due);
    assert_eq!(reports.next().await, "late");
    admin.pause("default").await.unwrap();
    let waiting = enqueue(&database, &note("waiting")).await.unwrap().id;
    assert_eq!(admin.cancel(waiting).await.unwrap(), Cancelled::Cancelled);
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(behind.value("select count(*) from reveille.workers").await, 0);
    assert_eq!(pooler.leftovers().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PgBouncer: .ci/pooler"]
async fn a_worker_that_listens_past_the_pooler_is_woken_by_the_bell() {
    let behind = database().await;
    let pooler = Pooler::start(&behind).await;
    let options = Database::options(Some(pooler.address())).listen_url(behind.address.clone());
    let database = options.connect().await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    behind.until("select count(*) = 1 from reveille.sleepers").await;
    enqueue(&behind.database, &note("x")).await.unwrap();
    assert_eq!(reports.next().await, "x");
    assert_eq!(behind.value("select holds_lock from reveille.workers").await, true);
    worker.stop().await;
}
