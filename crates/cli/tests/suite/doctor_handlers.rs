//! The doctor names kinds for which workers have no handler.

use reveille::admin::doctor::Verdict;
use reveille::job::{NewJob, Payload, RetryPolicy};
use reveille::{Context, Job, Outcome, enqueue};
use serde::{Deserialize, Serialize};

use crate::doctor::{doctor, found, only};
use crate::harness::{database, note, reporting_worker, start, worker};

#[derive(Serialize, Deserialize)]
struct Other;

impl Job for Other {
    const KIND: &'static str = "other";
}

async fn never_ends(_: Other) {
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_without_a_handler_is_named() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let without = start(builder);
    enqueue(&database.database, &note("a")).await.unwrap();
    reports.next().await;
    only(&database, "handlers", Verdict::Ok, &[]).await;
    let odd = NewJob::new("send \"it\"", Payload::parse("{}").unwrap());
    let id = enqueue(&database.database, &odd).await.unwrap().id;
    database.until("select attempts = 1 and available_at > now() from reveille.jobs").await;
    // Jobs that are due later do not hide the job that waits for its handler, and neither do jobs of another queue.
    let insert = "insert into reveille.jobs (kind, queue, available_at)
        select 'other', 'default', now() + interval '1 hour' from generate_series(1, 2000);
        insert into reveille.jobs (kind, queue) values ('other', 'worked by none')";
    database.run(insert).await;
    let says = ["the queue \"default\"", "for the kind \"send \\\"it\\\"\"", &format!("job {id} ")];
    only(&database, "handlers", Verdict::Bad, &says).await;
    assert_eq!(doctor(&database.address, &["--ignore", "settings"]).status.code(), Some(1));

    // A worker that takes every kind.
    let any = worker(&database).handle_any(async |_: Context| Outcome::Complete, RetryPolicy::default());
    let any = start(any);
    database.until("select count(*) = 2 from reveille.workers").await;
    let kinds = "select to_jsonb(array_agg(kinds::text order by kinds)) from reveille.workers";
    assert_eq!(database.value(kinds).await, serde_json::json!(["{note}", null]));
    database.run("update reveille.jobs set available_at = now() + interval '9 seconds' where attempts > 0").await;
    let of_two = ["of the 2 workers of the queue \"default\", 1 have no handler"];
    only(&database, "handlers", Verdict::Note, &of_two).await;
    any.stop().await;
    without.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_worker_has_no_handlers_to_count_on() {
    let database = database().await;
    let leaving = start(worker(&database).handle(never_ends));
    enqueue(&database.database, &Other).await.unwrap();
    database.until("select reserved_at is not null from reveille.jobs").await;
    let (builder, _reports) = reporting_worker(&database);
    let staying = start(builder);
    leaving.begin_stop();
    database.until("select count(*) = 2 and bool_or(stopping) from reveille.workers").await;
    enqueue(&database.database, &Other).await.unwrap();
    let found = found(&database, "handlers").await;
    assert!(found[0].state == Verdict::Bad && found[0].finding.contains("for the kind \"other\""), "{found:?}");
    staying.stop().await;
}
