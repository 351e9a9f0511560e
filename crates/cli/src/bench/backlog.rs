//! `bench backlog`: the time of a claim in a full table.

use std::time::{Duration, Instant};

use clap::Args;
use reveille::driver::{Driver, Postgres};
use reveille::driver::{Ending, Mark, Settlement, Start, WorkerInfo};
use serde_json::Value;

use super::stage::{BenchStage, KIND, QUEUE};
use super::{BenchFigures, percentiles};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct BacklogBench {
    /// How many jobs are due.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    waiting: u32,
    /// How many jobs are delayed, at mixed priorities.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    delayed: u32,
}

const WORKER: i64 = 1;
/// Jobs in a claim.
const BATCH: usize = 64;
const CLAIMS: usize = 300;

impl BacklogBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let driver = Postgres::new(stage.database.clone())?;
        let info = WorkerInfo { id: WORKER, host: "bench".into(), pid: 1, queues: vec![QUEUE.into()], slots: 1 };
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

/// The milliseconds that each of [`CLAIMS`] claims takes. Each claim starts where the one before has ended, as the
/// claims of a busy worker do. It finds jobs that were just enqueued, or jobs of the backlog.
async fn claims(stage: &BenchStage, driver: &Postgres) -> Result<Vec<f64>, Failure> {
    let (mut took, mut start) = (Vec::new(), Start::default());
    for _ in 0..CLAIMS {
        stage.fill_quietly(QUEUE, BATCH).await?;
        let began = Instant::now();
        let claimed = driver.claim(WORKER, QUEUE, BATCH, start).await?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        if let Some(last) = claimed.jobs.last() {
            let place = Mark { available_at: last.available_at, id: last.reservation.id };
            start.marks[last.priority as usize] = Some(place);
        }
        let ended = |reservation| Settlement {
            reservation,
            ending: Ending::Completed(None),
            waited: Duration::ZERO,
            ran: Duration::ZERO,
        };
        let settlements: Vec<Settlement> = claimed.jobs.iter().map(|job| ended(job.reservation)).collect();
        driver.settle(&settlements).await?;
    }
    Ok(took)
}
