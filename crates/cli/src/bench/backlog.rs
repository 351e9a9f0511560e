//! `bench backlog`: the duration of a claim in a full table.

use std::time::{Instant, SystemTime};

use clap::Args;
use deadpool_postgres::Client;
use reveille::driver::{Driver, Postgres};
use reveille::driver::{Ending, Settlement, WorkerInfo};
use reveille::job::Reservation;
use serde_json::Value;
use tokio_postgres::types::Timestamp;

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

/// The statement of each claim. A claim starts at the place that the previous claim has reached, as the claims of a
/// busy worker do.
const CLAIM: &str = include_str!("../../../../sql/claim.sql");
/// A worker's sessions plan each statement once, by these settings, and their commits do not wait for the disk.
const SETTINGS: &str = "set synchronous_commit = off; set plan_cache_mode = force_generic_plan; set jit = off;
    set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off";

/// Returns the milliseconds that each claim takes. Before each claim, this enqueues as many jobs as the claim takes. In
/// a full table, the claim takes older jobs instead.
async fn claims(stage: &BenchStage, driver: &Postgres) -> Result<Vec<f64>, Failure> {
    // Takes the connection out of the pool, because the pool's other users must keep their settings.
    let client = Client::take(stage.client().await?);
    client.batch_execute(SETTINGS).await?;
    let claim = client.prepare(CLAIM).await?;
    let (mut took, mut marks) = (Vec::new(), [(None, 0); 4]);
    for _ in 0..CLAIMS {
        stage.fill_quietly(QUEUE, BATCH).await?;
        let since = |(at, _): (Option<SystemTime>, i64)| at.map_or(Timestamp::NegInfinity, Timestamp::Value);
        let (times, ids) = (marks.map(since).to_vec(), marks.map(|(_, id)| id).to_vec());
        let began = Instant::now();
        let rows = client.query(&claim, &[&QUEUE, &(BATCH as i64), &WORKER, &times, &ids]).await?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        let mut settlements = Vec::new();
        for row in &rows {
            let (id, available_at): (i64, SystemTime) = (row.get("id"), row.get("available_at"));
            let mark = &mut marks[row.get::<_, i16>("priority") as usize];
            *mark = (*mark).max((Some(available_at), id));
            let reservation = Reservation::new(id, WORKER, row.get("attempts"), row.get("reserved_at"));
            settlements.push(Settlement::new(reservation, Ending::Completed(None)));
        }
        driver.settle(&settlements).await?;
    }
    Ok(took)
}
