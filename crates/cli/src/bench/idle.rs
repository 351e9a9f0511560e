//! `bench idle`: the cost of workers without jobs.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::BenchFigures;
use super::cpu::Cpu;
use super::stage::{BenchStage, ServerWork};
use super::workers::NoOpWorkers;
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct IdleBench {
    /// Seconds to measure.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Number of worker processes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
}

/// The time for workers to fall asleep, and for their idle sessions to report their earlier work. A session reports
/// after 10 s (`PGSTAT_IDLE_INTERVAL` in the server's source).
const SETTLE: Duration = Duration::from_secs(12);
/// The default poll interval.
const POLL: Duration = Duration::from_secs(5);

impl IdleBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let workers = NoOpWorkers::processes(stage, self.workers.into(), 64, POLL).await?;
        let pids = workers.pids();
        tokio::time::sleep(SETTLE).await;
        let client = stage.client().await?;
        let (before, cpu) = (ServerWork::so_far(&client).await?, Cpu::so_far(&pids, stage));
        tokio::time::sleep(Duration::from_secs(self.seconds.into())).await;
        let now = Cpu::so_far(&pids, stage);
        // The sessions have as much unreported work now as at the first reading, so the difference is exact.
        let after = ServerWork::so_far(&client).await?;
        workers.stop().await?;
        let seconds = f64::from(self.seconds);
        let statements = after.commits_since(&before) - 1.0;
        let mut figures = BenchFigures::new();
        figures.insert("workers".into(), Value::from(self.workers));
        figures.insert("seconds".into(), Value::from(self.seconds));
        figures.insert("statements_per_second".into(), rounded(statements / seconds / f64::from(self.workers)));
        let workers_cpu = (now.processes - cpu.processes) / f64::from(self.workers);
        figures.insert("worker_cpu_seconds".into(), rounded(workers_cpu));
        figures.insert("worker_cpu_percent".into(), rounded(workers_cpu / seconds * 100.0));
        if let (Some(before), Some(now)) = (cpu.server, now.server) {
            figures.insert("server_cpu_seconds".into(), rounded(now - before));
            figures.insert("server_cpu_percent".into(), rounded((now - before) / seconds * 100.0));
        }
        Ok(figures)
    }
}
