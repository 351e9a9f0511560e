//! `bench backlog`: what a claim costs in a full table.

use std::time::{Duration, Instant};

use clap::Args;
use reveille::driver::{Driver, Postgres};
use reveille::driver::{Ending, Mark, Settlement, Start, WorkerInfo};
use serde_json::Value;

use super::stage::{KIND, QUEUE, Stage};
use super::{Figures, percentiles};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct Backlog {
    /// How many jobs are due.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    waiting: u32,
    /// How many are delayed, at mixed priorities.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    delayed: u32,
}

const WORKER: i64 = 1;
/// Jobs in a claim.
const BATCH: usize = 64;
const CLAIMS: usize = 300;

impl Backlog {
    pub async fn measure(&self, stage: &Stage) -> Result<Figures, Failure> {
        let driver = Postgres::new(stage.database.clone())?;
        let info = WorkerInfo::new(WORKER).host("bench").queues([QUEUE.into()]);
        driver.register(&info).await?;
        let few = claims(stage, &driver).await?;
        stage
            .run(&format!(
                "insert into reveille.jobs (queue, kind, payload, priority, available_at)
                 select '{QUEUE}', '{KIND}', 'null'::jsonb, n % 4, now() - make_interval(secs => {0} - n) from generate_series(1, {0}) as n
                 union all
                 select '{QUEUE}', '{KIND}', 'null', n % 4, now() + interval '1 day' + make_interval(secs => n) from generate_series(1, {1}) as n;",
                self.waiting, self.delayed
            ))
            .await?;
        stage.run("vacuum analyze reveille.jobs").await?;
        let many = claims(stage, &driver).await?;
        driver.leave(WORKER).await?;
        let mut figures = Figures::new();
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

/// The milliseconds that claims take, each of jobs that were just enqueued or have long been there, from where the one
/// before has got, as a busy worker's are.
async fn claims(stage: &Stage, driver: &Postgres) -> Result<Vec<f64>, Failure> {
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
        let ended = |reservation| Settlement::new(reservation, Ending::Completed(None));
        let settlements: Vec<Settlement> = claimed.jobs.iter().map(|job| ended(job.reservation)).collect();
        driver.settle(&settlements).await?;
    }
    Ok(took)
}
