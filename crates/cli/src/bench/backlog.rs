//! `bench backlog`: the duration of a claim in a full table.

use std::time::Instant;

use clap::Args;
use reveille::driver::{ClaimRequest, Driver, Ending, Postgres, Settlement, WorkerInfo};
use reveille::job::ReservedJob;
use serde_json::Value;

use super::stage::{BenchStage, KIND, QUEUE};
use super::{BenchFigures, percentiles};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct BacklogBench {
    /// The number of due jobs.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    waiting: u32,
    /// The number of delayed jobs, at mixed priorities.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    delayed: u32,
}

const WORKER: i64 = 1;
/// The number of jobs in a claim.
const BATCH: usize = 64;
const CLAIMS: usize = 300;

impl BacklogBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let driver = Postgres::new(stage.database.clone())?;
        let info = WorkerInfo::new(WORKER).host("bench").queues([QUEUE]);
        driver.register(&info).await?;
        let few = claims(stage, &driver).await?;
        stage
            .run(&format!(
                "insert into reveille.jobs (queue, kind, payload, priority, available_at)
                 select '{QUEUE}', '{KIND}', 'null'::jsonb, n % 4, now() - make_interval(secs => {0} - n)
                 from generate_series(1, {0}) as n
                 union all
                 select '{QUEUE}', '{KIND}', 'null', n % 4, now() + interval '1 day' + make_interval(secs => n)
                 from generate_series(1, {1}) as n;",
                self.waiting, self.delayed
            ))
            .await?;
        stage.run("vacuum analyze reveille.jobs").await?;
        let many = claims(stage, &driver).await?;
        driver.leave(WORKER).await?;
        let mut figures = BenchFigures::new();
        figures.insert("waiting".into(), Value::from(self.waiting));
        figures.insert("delayed".into(), Value::from(self.delayed));
        percentiles(&mut figures, "", many);
        percentiles(&mut figures, "empty_", few);
        let figure = |name: &str| figures.get(name).and_then(Value::as_f64).unwrap_or_default();
        let ratio = figure("p50_ms") / figure("empty_p50_ms");
        figures.insert("ratio".into(), rounded(ratio));
        Ok(figures)
    }
}

/// Returns the milliseconds that each claim takes. Before each claim, this enqueues as many jobs as the claim takes. In
/// a full table, the claim takes older jobs instead. A claim starts at the place that the previous claim has reached,
/// as the claims of a busy worker do.
async fn claims(stage: &BenchStage, driver: &Postgres) -> Result<Vec<f64>, Failure> {
    let (mut took, mut last): (_, [Option<ReservedJob>; 4]) = (Vec::new(), Default::default());
    for _ in 0..CLAIMS {
        stage.fill_quietly(QUEUE, BATCH).await?;
        let request = ClaimRequest::new(WORKER, QUEUE, BATCH);
        let request = last.iter().flatten().fold(request, |request, job| request.behind(job));
        let began = Instant::now();
        let claimed = driver.claim(&request).await?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        let completed = |job: &ReservedJob| Settlement::new(job.reservation, Ending::Completed(None));
        driver.settle(&claimed.jobs.iter().map(completed).collect::<Vec<_>>()).await?;
        for job in claimed.jobs {
            let level = job.priority as usize;
            last[level] = Some(job);
        }
    }
    Ok(took)
}
