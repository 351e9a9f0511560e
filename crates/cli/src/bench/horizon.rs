//! `bench horizon`: the cost of a transaction that stays open. Vacuum cannot remove the dead rows that this transaction
//! may see.

use std::time::{Duration, Instant};

use clap::Args;
use reveille::job::Payload;
use reveille::{enqueue, job::NewJob};
use serde_json::Value;

use super::stage::{BenchStage, KIND, QUEUE};
use super::workers::{NEVER, NoOpWorkers};
use super::{BenchFigures, drain, raw};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct HorizonBench {
    /// Number of dead rows that claims must pass.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    dead: u32,
    /// Number of jobs of each drain.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    jobs: u32,
}

/// The time for which single enqueues and the naive loop are measured.
const SOME_TIME: Duration = Duration::from_secs(3);

struct Speed {
    drained: f64,
    naive: f64,
    enqueued: f64,
}

impl HorizonBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let holder = stage.client().await?;
        holder.batch_execute("begin isolation level repeatable read; select count(*) from reveille.jobs").await?;
        let fresh = self.speed(stage).await?;
        stage
            .run(&format!(
                "insert into reveille.jobs (queue, kind, payload, available_at)
                 select '{QUEUE}', '{KIND}', 'null', now() - interval '1 hour' from generate_series(1, {});
                 delete from reveille.jobs",
                self.dead
            ))
            .await?;
        let after = self.speed(stage).await?;
        holder.batch_execute("rollback").await?;

        let mut figures = BenchFigures::new();
        figures.insert("dead".into(), Value::from(self.dead));
        for (name, fresh, after) in [
            ("", fresh.drained, after.drained),
            ("naive_", fresh.naive, after.naive),
            ("enqueue_", fresh.enqueued, after.enqueued),
        ] {
            figures.insert(format!("{name}fresh_per_second"), rounded(fresh));
            figures.insert(format!("{name}after_per_second"), rounded(after));
            figures.insert(format!("{name}ratio"), rounded(after / fresh));
        }
        Ok(figures)
    }

    async fn speed(&self, stage: &BenchStage) -> Result<Speed, Failure> {
        let enqueued = single(stage).await?;
        let naive = raw::naive_for(stage, SOME_TIME).await?;
        stage.run("delete from reveille.jobs; delete from reveille.counters").await?;
        stage.fill(QUEUE, self.jobs as usize).await?;
        let client = stage.client().await?;
        let workers = NoOpWorkers::here(&stage.database, 64, NEVER)?;
        // Only the first look of a worker reads all dead rows. The warm-up keeps this look out of the measurement.
        let warm_up = self.jobs / 10;
        drain::until_done(&client, warm_up).await?;
        let began = Instant::now();
        drain::until_done(&client, self.jobs).await?;
        let drained = f64::from(self.jobs - warm_up) / began.elapsed().as_secs_f64();
        workers.stop().await?;
        Ok(Speed { drained, naive, enqueued })
    }
}

/// Returns the single-row enqueues per second on one connection.
async fn single(stage: &BenchStage) -> Result<f64, Failure> {
    let client = stage.client().await?;
    let job = NewJob::new(KIND, Payload::encode(&())?).queue(QUEUE);
    let (began, mut sent) = (Instant::now(), 0.0);
    while began.elapsed() < SOME_TIME {
        enqueue(&client, &job).await?;
        sent += 1.0;
    }
    Ok(sent / began.elapsed().as_secs_f64())
}
