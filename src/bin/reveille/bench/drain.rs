//! `bench drain`: how fast a full queue is worked off.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::stage::{QUEUE, Stage, Work};
use super::workers::{NEVER, Workers};
use super::{Figures, raw};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct Drain {
    /// How many no-op jobs.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    jobs: u32,
    /// How many jobs a worker runs at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// How many worker processes; 1: this one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    processes: u16,
    /// Whether finished jobs are kept.
    #[arg(long, value_enum, default_value = "on")]
    history: Switch,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// How long a drain may stand still before it is given up.
const STUCK: Duration = Duration::from_secs(60);

impl Drain {
    pub async fn measure(&self, stage: &Stage) -> Result<Figures, Failure> {
        let jobs = self.jobs as usize;
        let floor = raw::floor(stage, jobs).await?;
        let naive = raw::naive(stage, (jobs / 20).clamp(1, 10_000)).await?;
        stage.empty().await?;
        if self.history == Switch::Off {
            let sql = "insert into reveille.queues (name, retention) values ('bench', '0') on conflict do nothing";
            stage.run(sql).await?;
        }
        stage.fill(QUEUE, jobs).await?;

        let client = stage.client().await?;
        let before = Work::so_far(&client).await?;
        let began = Instant::now();
        let slots = usize::from(self.slots);
        let workers = match self.processes {
            1 => Workers::here(&stage.database, slots, NEVER)?,
            processes => Workers::processes(stage, processes.into(), slots, NEVER).await?,
        };
        let looks = until_done(&client, self.jobs).await?;
        let per_second = f64::from(self.jobs) / began.elapsed().as_secs_f64();
        workers.stop().await?;
        let after = Work::so_far(&client).await?;

        let mut figures = Figures::new();
        figures.insert("jobs".into(), Value::from(self.jobs));
        figures.insert("slots".into(), Value::from(self.slots));
        figures.insert("processes".into(), Value::from(self.processes));
        figures.insert("per_second".into(), rounded(per_second));
        figures.insert("floor_per_second".into(), rounded(floor));
        figures.insert("baseline_per_second".into(), rounded(floor));
        figures.insert("naive_per_second".into(), rounded(naive));
        figures.insert("ratio".into(), rounded(per_second / floor));
        figures.insert("times_naive".into(), rounded(per_second / naive));
        let per_job = |sum: f64| rounded(sum / f64::from(self.jobs));
        figures.insert("commits_per_job".into(), per_job(after.commits_since(&before) - looks));
        figures.insert("wal_bytes_per_job".into(), per_job(after.wal_bytes_since(&before)));
        figures.insert("wal_images_per_job".into(), per_job(after.wal_images_since(&before)));
        Ok(figures)
    }
}

/// Waits until so many jobs are settled; returns how often it looked, which are commits too.
pub async fn until_done(client: &deadpool_postgres::Client, jobs: u32) -> Result<f64, Failure> {
    let sql = client.prepare("select coalesce(sum(completed), 0)::bigint from reveille.counters").await?;
    let (mut looks, mut done, mut moved) = (1.0, 0, Instant::now());
    while done < i64::from(jobs) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now: i64 = client.query_one(&sql, &[]).await?.get(0);
        looks += 1.0;
        if now > done {
            (done, moved) = (now, Instant::now());
        } else if moved.elapsed() > STUCK {
            return Err(Failure::Error(format!("bench: only {done} of {jobs} jobs were worked")));
        }
    }
    Ok(looks)
}
