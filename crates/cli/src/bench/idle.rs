//! `bench idle`: what workers cost that have nothing to do.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::Figures;
use super::cpu::Cpu;
use super::stage::{Stage, Work};
use super::workers::Workers;
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct Idle {
    /// How long to look on.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How many worker processes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
}

/// How long workers have to come to rest, and their idle sessions to report what they did before: ten seconds, see
/// `PGSTAT_IDLE_INTERVAL` in the server's source.
const SETTLE: Duration = Duration::from_secs(12);
/// The default fallback poll.
const POLL: Duration = Duration::from_secs(5);

impl Idle {
    pub async fn measure(&self, stage: &Stage) -> Result<Figures, Failure> {
        let workers = Workers::processes(stage, self.workers.into(), 64, POLL).await?;
        let pids = workers.pids();
        tokio::time::sleep(SETTLE).await;
        let client = stage.client().await?;
        let (before, cpu) = (Work::so_far(&client).await?, Cpu::so_far(&pids, stage));
        tokio::time::sleep(Duration::from_secs(self.seconds.into())).await;
        let now = Cpu::so_far(&pids, stage);
        // What sessions have not reported yet is as much as it was before.
        let after = Work::so_far(&client).await?;
        workers.stop().await?;
        let seconds = f64::from(self.seconds);
        let statements = after.commits_since(&before) - 1.0;
        let mut figures = Figures::new();
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
