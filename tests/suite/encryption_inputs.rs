//! Encryption of the results that later jobs read.

use std::sync::Arc;

use reveille::driver::{Driver, Memory, Postgres};
use reveille::enqueue::Workflow;
use reveille::handler::{Encryption, Inputs};
use reveille::job::NewJob;
use reveille::{State, Worker};
use serde_json::Value;

use crate::encryption::{NEW, OLD, PLAIN, confide, enqueuer, keys, tell};
use crate::harness::{Note, Reporter, Reports, database, note, reporting};

/// Reads the results of the jobs before it, one by one and together.
async fn read(_: Note, inputs: Inputs, State(reporter): State<Reporter>) {
    let all = inputs.all().await.map_err(|error| error.to_string());
    for input in all.iter().flatten() {
        let told = inputs.get::<Value>(&input.label).await.unwrap();
        assert_eq!(input.result.as_ref().unwrap().decode::<Value>().unwrap(), told);
        reporter.report(format!("{}: {told}", input.kind.as_deref().unwrap_or("no kind")));
    }
    if let Err(error) = all {
        assert_eq!(inputs.page("").await.unwrap_err().to_string(), error);
        reporter.report(error);
    }
}

/// A worker on one queue.
fn worker(driver: &Arc<dyn Driver>, queue: &str, encryption: &Arc<Encryption>) -> (Worker, Reports) {
    let (reporter, reports) = reporting();
    let builder = Worker::builder(Arc::clone(driver)).queue(queue, 1).state(reporter);
    (builder.middleware(Arc::clone(encryption)).handle(tell).handle(read).build().unwrap(), reports)
}

async fn a_workflow_reads_results(driver: Arc<dyn Driver>) {
    let encryption = keys(&[NEW, OLD]);
    let mut workflow = Workflow::new("w");
    let first = workflow.add("1", &confide("done"));
    workflow.add("2", &note("reads")).after(&first);
    enqueuer(&encryption).enqueue_workflow(&*driver, workflow).await.unwrap();
    let (worker, mut reports) = worker(&driver, "default", &encryption);
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 2);
    assert_eq!(reports.next().await, r#"confide: {"told":"a secret"}"#);
}

async fn a_result_without_its_key_is_an_error(driver: Arc<dyn Driver>) {
    let (old, new) = (keys(&[OLD]), keys(&[NEW]));
    let first = enqueuer(&old).enqueue(&*driver, &confide("done")).await.unwrap().id;
    let reads = NewJob::of(&note("reads")).unwrap().queue("later");
    enqueuer(&new).enqueue(&*driver, &reads).after([first]).await.unwrap();
    assert_eq!(worker(&driver, "default", &old).0.run_until_drained().await.unwrap().completed, 1);
    let (worker, mut reports) = worker(&driver, "later", &new);
    assert_eq!(worker.run_until_drained().await.unwrap().completed, 1);
    let error = format!(
        "job 2 cannot read its input: the result of job {first} (\"{first}\"): a middleware cannot read the result: \
         the result is encrypted with the key \"old\", which this program lacks"
    );
    let told = reports.next().await;
    assert!(told.starts_with(&error), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_job_of_a_workflow_gets_results_in_plain_text() {
    a_workflow_reads_results(Arc::new(Memory::new())).await;
    for history in ["1 day", "0"] {
        let database = database().await;
        let settings = format!("insert into reveille.queues (name, retention) values ('default', '{history}')");
        database.run(&settings).await;
        a_workflow_reads_results(Arc::new(Postgres::new(database.database.clone()).unwrap())).await;
        assert_eq!(database.value(PLAIN).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lack_of_a_key_for_a_result_is_named() {
    a_result_without_its_key_is_an_error(Arc::new(Memory::new())).await;
    let database = database().await;
    a_result_without_its_key_is_an_error(Arc::new(Postgres::new(database.database.clone()).unwrap())).await;
}
