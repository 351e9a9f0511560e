//! `bench drain`: the speed at which workers empty a full queue.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::stage::{BenchStage, QUEUE, ServerWork};
use super::workers::{NEVER, NoOpWorkers};
use super::{BenchFigures, cpu, raw};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct DrainBench {
    /// Number of jobs. Each does nothing.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    jobs: u32,
    /// Slots of each worker.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// Worker processes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    processes: u16,
    /// Keep finished jobs or not.
    #[arg(long, value_enum, default_value = "on")]
    history: Switch,
    /// Number of keys that the jobs have in turn; 0: the jobs have no key.
    #[arg(long, default_value_t = 0)]
    keys: u32,
    /// Limits of the queue, as for `reveille queue set`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// The longest time without progress: after this time, the bench fails.
const STUCK: Duration = Duration::from_secs(60);

impl DrainBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let jobs = self.jobs as usize;
        let floor = raw::floor(stage, jobs).await?;
        let naive = raw::naive(stage, (jobs / 20).clamp(1, 10_000)).await?;
        stage.empty().await?;
        if self.history == Switch::Off {
            stage.keep_no_history().await?;
        }
        stage.database.admin().set_queue(QUEUE, crate::queue::parse(&self.settings)?).await?;
        stage.fill_with_keys(QUEUE, jobs, self.keys as usize).await?;

        let client = stage.client().await?;
        // Pauses the queue, so that all workers sleep with open and warm connections before the first job may start.
        client.execute("select reveille.pause($1)", &[&QUEUE]).await?;
        let workers = NoOpWorkers::processes(stage, self.processes.into(), self.slots.into(), NEVER).await?;
        until_asleep(&client, self.processes).await?;
        let before = ServerWork::so_far(&client).await?;
        let began = Instant::now();
        client.execute("select reveille.resume($1)", &[&QUEUE]).await?;
        let looks = until_done(&client, self.jobs).await?;
        let per_second = f64::from(self.jobs) / began.elapsed().as_secs_f64();
        let memory = workers.pids().into_iter().filter_map(cpu::peak_mib).fold(0.0, f64::max);
        workers.stop().await?;
        let after = ServerWork::so_far(&client).await?;

        let mut figures = BenchFigures::new();
        figures.insert("jobs".into(), Value::from(self.jobs));
        figures.insert("slots".into(), Value::from(self.slots));
        figures.insert("processes".into(), Value::from(self.processes));
        figures.insert("per_second".into(), rounded(per_second));
        figures.insert("floor_per_second".into(), rounded(floor));
        figures.insert("baseline_per_second".into(), rounded(floor));
        figures.insert("naive_per_second".into(), rounded(naive));
        figures.insert("ratio".into(), rounded(per_second / floor));
        figures.insert("times_naive".into(), rounded(per_second / naive));
        figures.insert("worker_memory_mib".into(), rounded(memory));
        let per_job = |sum: f64| rounded(sum / f64::from(self.jobs));
        let commits = per_job(after.commits_since(&before) - looks);
        // Each statement of a worker is one transaction, so the commits count the statements.
        figures.insert("statements_per_job".into(), commits.clone());
        figures.insert("commits_per_job".into(), commits);
        figures.insert("wal_bytes_per_job".into(), per_job(after.wal_bytes_since(&before)));
        figures.insert("wal_images_per_job".into(), per_job(after.wal_images_since(&before)));
        Ok(figures)
    }
}

/// Waits until `workers` workers sleep and their sessions have been idle for 100 ms.
pub async fn until_asleep(client: &deadpool_postgres::Client, workers: u16) -> Result<(), Failure> {
    let asleep = "select (select count(*) from reveille.sleepers) >= $1 and not exists (
            select from pg_stat_activity
            where datname = current_database() and application_name = 'reveille worker'
                and greatest(backend_start, state_change) > clock_timestamp() - interval '100 milliseconds'
        )";
    let sql = client.prepare(asleep).await?;
    let began = Instant::now();
    while !client.query_one(&sql, &[&i64::from(workers)]).await?.get::<_, bool>(0) {
        if began.elapsed() > STUCK {
            return Err(Failure::Error("bench: the workers did not fall asleep within a minute".into()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Waits until `jobs` jobs are settled. Returns the number of this function's queries, because they are commits too.
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
