//! A job that a handler enqueues is a child of the handler's job.

use std::sync::Arc;

use reveille::enqueue::{Enqueuer, copy_all};
use reveille::handler::{Batch, Gather};
use reveille::job::Payload;
use reveille::{
    Context, Database, Job, State, Worker,
    driver::{Driver, Memory},
    enqueue,
    enqueue::enqueue_all,
    job::NewJob,
    testing,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{Note, database, note, start, worker};

#[derive(Clone, Serialize, Deserialize)]
struct Parent;

impl Job for Parent {
    const KIND: &'static str = "parent";
}

fn child(kind: &str) -> NewJob {
    NewJob::new(kind, Payload::encode(&()).unwrap()).queue("children")
}

/// A handler that enqueues in every possible way.
async fn enqueues(
    _: Parent,
    State(database): State<Database>,
    enqueuer: Enqueuer,
    context: Context,
) -> reveille::Result<()> {
    enqueue(&database, &child("plain")).await?;
    let mut client = database.client().await?;
    enqueue(&client, &child("on a client")).await?;
    enqueue(&client, &child("unique")).unique_key("u").await?;
    let tx = client.transaction().await.unwrap();
    enqueue(&tx, &child("in a transaction")).await?;
    tx.commit().await.unwrap();
    enqueue_all(&database, &[child("alike"), child("alike")]).await?;
    enqueue_all(&database, &[child("many"), child("of several kinds")]).await?;
    copy_all(&database, &[child("copied")]).await?;
    enqueuer.enqueue(&database, &child("by an enqueuer")).await?;
    let (from_context, elsewhere) = (context.enqueuer(), database.clone());
    tokio::spawn(async move {
        from_context.enqueue(&elsewhere, &child("in a task, by the context")).await.unwrap();
        enqueue(&elsewhere, &child("in a task, without an enqueuer")).await.unwrap();
    })
    .await
    .unwrap();
    let other = child("of a given parent").parent(77);
    enqueue(&database, &other).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_a_handler_enqueues_in_any_way_name_their_parent() {
    let database = database().await;
    database.run("select setval('reveille.jobs_id_seq', 41)").await;
    let running = start(worker(&database).state(database.database.clone()).handle(enqueues));
    let parent = enqueue(&database.database, &Parent).await.unwrap().id;
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    running.stop().await;
    let parents = "select jsonb_object_agg(coalesce(parent_id, 0), kinds) from
        (select parent_id, jsonb_agg(kind order by id) as kinds from reveille.jobs group by parent_id) as listed";
    let own = json!([
        "plain",
        "on a client",
        "unique",
        "in a transaction",
        "alike",
        "alike",
        "many",
        "of several kinds",
        "copied",
        "by an enqueuer",
        "in a task, by the context"
    ]);
    assert_eq!(parent, 42);
    let expected = json!({"0": ["in a task, without an enqueuer"], "42": own, "77": ["of a given parent"]});
    assert_eq!(database.value(parents).await, expected);
    assert_eq!(database.value("select to_jsonb(parent_id) from reveille.finished_jobs").await, json!(null));
    let found = testing::enqueued(&database.database).await.unwrap();
    let of_plain = found.all().iter().find(|found| found.job.kind == "plain").unwrap();
    assert_eq!(of_plain.job.parent_id, Some(42), "a test sees the parent too");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_from_a_batch_have_a_parent_only_if_an_item_enqueues_them() {
    async fn batch(batch: Batch<Note>, State(database): State<Database>) -> reveille::Result<()> {
        enqueue(&database, &child("of the batch")).await?;
        for item in &batch {
            item.context.enqueuer().enqueue(&database, &child("of an item")).await?;
        }
        Ok(())
    }
    let database = database().await;
    let builder = worker(&database).state(database.database.clone());
    let running = start(builder.handle_batch(Gather::up_to(2), batch));
    enqueue_all(&database.database, &[note("a"), note("b")]).await.unwrap();
    database.until("select count(*) = 2 from reveille.finished_jobs").await;
    running.stop().await;
    let parents = "select jsonb_agg(parent_id order by parent_id) from reveille.jobs where kind = 'of an item'";
    assert_eq!(database.value(parents).await, json!([1, 2]));
    assert_eq!(database.value("select count(parent_id) from reveille.jobs where kind = 'of the batch'").await, 0);
}

#[tokio::test]
async fn a_job_enqueued_outside_a_handler_has_no_parent() {
    let database = database().await;
    enqueue(&database.database, &note("a")).await.unwrap();
    database.run("select reveille.enqueue(kind => 'k'); select reveille.enqueue(kind => 'of 9', parent_id => 9)").await;
    let parents = "select jsonb_agg(parent_id order by id) from reveille.jobs";
    assert_eq!(database.value(parents).await, json!([null, null, 9]));
}

#[tokio::test]
async fn a_job_that_is_not_stored_is_no_parent() {
    async fn handler(_: Parent, State(memory): State<Arc<Memory>>, context: Context) -> reveille::Result<()> {
        let jobs = [child("a")];
        enqueue(&*memory, &jobs[0]).await?;
        context.enqueuer().enqueue(&*memory, &jobs[0]).await?;
        Ok(())
    }
    let memory = Arc::new(Memory::new());
    let driver: Arc<dyn Driver> = memory.clone();
    let worker = Worker::builder(driver).state(Arc::clone(&memory)).handle(handler).build().unwrap();
    worker.attempt(&Parent).await.unwrap();
    assert_eq!(memory.jobs().iter().map(|stored| stored.job.parent_id).collect::<Vec<_>>(), [None, None]);
    enqueue(&*memory, &Parent).await.unwrap();
    worker.work_one::<Parent>().await.unwrap().unwrap();
    let parents: Vec<_> = memory.jobs().iter().map(|stored| stored.job.parent_id).collect();
    assert_eq!(parents, [None, None, None, Some(3), Some(3)], "a stored job is a parent");
}
