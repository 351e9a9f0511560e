//! `bench workflows`: the cost of workflows: a large batch, and many small workflows, each of whose jobs must run once.

use std::time::{Duration, Instant};

use clap::Args;
use reveille::enqueue::{Enqueuer, Members, Workflow, enqueue_all};
use reveille::job::{NewJob, Payload, Priority};
use serde_json::Value;

use super::BenchFigures;
use super::drain::{until_asleep, until_done};
use super::stage::{BenchStage, KIND, QUEUE};
use super::workers::{NEVER, NoOpWorkers};
use crate::Failure;
use crate::figures::rounded;
use crate::progress::share;

#[derive(Args)]
pub struct WorkflowsBench {
    /// Number of jobs of the batch. Each does nothing.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// Number of workflows of five jobs each.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    workflows: u32,
    /// Slots of the worker.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
}

/// The longest time without progress: after this time, the bench fails.
const STUCK: Duration = Duration::from_secs(60);
/// The number of jobs that are added to the batch at once.
const PART: usize = 10_000;
/// While a batch is drained, one job for this many of its jobs is enqueued that is not of the batch.
const OTHERS: u32 = 20;

impl WorkflowsBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let jobs = self.jobs;
        stage.fill(QUEUE, jobs as usize).await?;
        let (plain, others_beside_plain) = self.drain_with_others(stage, jobs).await?;

        self.empty(stage).await?;
        let began = Instant::now();
        self.enqueue_batch(stage).await?;
        let enqueued = f64::from(jobs) / began.elapsed().as_secs_f64();
        stage.run("vacuum analyze").await?;
        let (batch, others) = self.drain_with_others(stage, jobs + 1).await?;

        self.empty(stage).await?;
        let small = self.small_workflows(stage).await?;

        let mut figures = BenchFigures::new();
        figures.insert("jobs".into(), Value::from(jobs));
        figures.insert("batch_per_second".into(), rounded(batch));
        figures.insert("plain_per_second".into(), rounded(plain));
        figures.insert("baseline_per_second".into(), rounded(plain));
        figures.insert("ratio".into(), rounded(batch / plain));
        figures.insert("batch_enqueued_per_second".into(), rounded(enqueued));
        figures.insert("others_per_second".into(), rounded(others));
        figures.insert("others_ratio".into(), rounded(others / others_beside_plain));
        figures.insert("workflows".into(), Value::from(self.workflows));
        figures.insert("workflows_per_second".into(), rounded(small));
        figures.insert("workflow_jobs_per_second".into(), rounded(small * 5.0));
        Ok(figures)
    }

    /// Removes all jobs and workflows.
    async fn empty(&self, stage: &BenchStage) -> Result<(), Failure> {
        stage.empty().await?;
        stage
            .run("truncate reveille.blocked_jobs, reveille.dependencies, reveille.workflows, reveille.workflow_jobs")
            .await
    }

    /// Enqueues the jobs as a batch with a callback, in one transaction.
    async fn enqueue_batch(&self, stage: &BenchStage) -> Result<(), Failure> {
        let mut client = stage.client().await?;
        let transaction = client.transaction().await?;
        let job = no_op()?;
        let none: [NewJob; 0] = [];
        let batch = Workflow::batch("batch", none).on_complete(&job);
        let batch = Enqueuer::new().open_workflow(&transaction, batch).await?;
        let jobs = self.jobs as usize;
        for from in (0..jobs).step_by(PART) {
            stage.progress.note(format_args!("filling the batch, {}", share(from as u64, jobs as u64)));
            let members = Members::new();
            for place in from..jobs.min(from + PART) {
                members.add(place.to_string(), &job).before_any_end("on complete");
            }
            batch.add(&transaction, members).await?;
        }
        batch.seal(&transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Returns the jobs worked per second, until the last one is settled and all ends are applied.
    async fn drain(&self, stage: &BenchStage, jobs: u32) -> Result<f64, Failure> {
        Ok(self.drain_beside(stage, jobs, 0).await?.0)
    }

    /// Drains the queue, and enqueues urgent jobs without a workflow on the way. Returns the jobs worked per second: of
    /// all jobs, and of the urgent ones from their enqueue to the last end.
    async fn drain_with_others(&self, stage: &BenchStage, jobs: u32) -> Result<(f64, f64), Failure> {
        self.drain_beside(stage, jobs, jobs / OTHERS).await
    }

    async fn drain_beside(&self, stage: &BenchStage, jobs: u32, others: u32) -> Result<(f64, f64), Failure> {
        let client = stage.client().await?;
        // Pauses the queue, so that the worker sleeps with warm connections before the first job may start.
        client.execute("select reveille.pause($1)", &[&QUEUE]).await?;
        let workers = NoOpWorkers::processes(stage, 1, self.slots.into(), NEVER).await?;
        until_asleep(&client, 1).await?;
        let began = Instant::now();
        client.execute("select reveille.resume($1)", &[&QUEUE]).await?;
        let mut others_took = Duration::ZERO;
        if others > 0 {
            until_done(&client, jobs / 4).await?;
            let began = Instant::now();
            let urgent = no_op()?.priority(Priority::Urgent);
            enqueue_all(&stage.database, &vec![urgent; others as usize]).await?;
            until_none_is_urgent(&client).await?;
            others_took = began.elapsed();
        }
        until_done(&client, jobs + others).await?;
        until_applied(&client).await?;
        let per_second = f64::from(jobs + others) / began.elapsed().as_secs_f64();
        workers.stop().await?;
        Ok((per_second, f64::from(others) / others_took.as_secs_f64()))
    }

    /// Returns the workflows per second: two jobs wait for the first, one for both, and the last for that one.
    async fn small_workflows(&self, stage: &BenchStage) -> Result<f64, Failure> {
        let job = no_op()?;
        for place in 0..self.workflows {
            if place % 100 == 0 {
                stage.progress.note(format_args!("workflows, {}", share(place.into(), self.workflows.into())));
            }
            let mut workflow = Workflow::new("small");
            let first = workflow.add("first", &job);
            let left = workflow.add("left", &job).after(&first);
            let right = workflow.add("right", &job).after(&first);
            let joined = workflow.add("joined", &job).after([&left, &right]);
            workflow.add("last", &job).after(&joined);
            workflow.enqueue(&stage.database).await?;
        }
        stage.run("vacuum analyze").await?;
        let per_second = self.drain(stage, self.workflows * 5).await?;
        each_ran_once(stage, i64::from(self.workflows) * 5).await?;
        Ok(per_second / 5.0)
    }
}

/// Fails unless the history has each of this many jobs once. In each workflow, two jobs that end together start one.
async fn each_ran_once(stage: &BenchStage, jobs: i64) -> Result<(), Failure> {
    let sql = "select count(*), count(distinct id) from reveille.finished_jobs where outcome = 'completed'";
    let row = stage.client().await?.query_one(sql, &[]).await?;
    let (ends, ended): (i64, i64) = (row.get(0), row.get(1));
    if (ends, ended) != (jobs, jobs) {
        return Err(Failure::Error(format!("bench: {ended} of {jobs} jobs have {ends} ends, instead of one each")));
    }
    Ok(())
}

fn no_op() -> Result<NewJob, Failure> {
    Ok(NewJob::new(KIND, Payload::encode(&())?).queue(QUEUE))
}

/// Waits until no urgent job is left.
async fn until_none_is_urgent(client: &deadpool_postgres::Client) -> Result<(), Failure> {
    let sql = "select exists (select from reveille.jobs where queue = $1 and priority = 0)";
    let sql = client.prepare(sql).await?;
    let began = Instant::now();
    while client.query_one(&sql, &[&QUEUE]).await?.get(0) {
        if began.elapsed() > STUCK {
            return Err(Failure::Error("bench: the urgent jobs did not end within a minute".into()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until all workflows have ended.
async fn until_applied(client: &deadpool_postgres::Client) -> Result<(), Failure> {
    let sql = client.prepare("select exists (select from reveille.workflows where finished_at is null)").await?;
    let began = Instant::now();
    while client.query_one(&sql, &[]).await?.get(0) {
        if began.elapsed() > STUCK {
            return Err(Failure::Error("bench: the workflows did not end within a minute".into()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
