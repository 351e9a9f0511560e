//! `bench pipe`: the speed of workers whose handlers are other processes.

use std::time::Instant;

use clap::Args;
use serde_json::Value;

use super::drain::{until_asleep, until_done};
use super::stage::{BenchStage, QUEUE};
use super::workers::{NEVER, NoOpWorkers};
use super::{BenchFigures, cpu};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct PipeBench {
    /// Number of jobs for the children, and for the handlers in the worker's process. Each does nothing.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    jobs: u32,
    /// Number of jobs for the program that is started for each job; 0: none are measured.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    exec_jobs: u32,
    /// Slots of the worker.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// Number of children.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    children: u16,
    /// The command of the children, for jobs of the kind `bench`. Default: a child of this command.
    #[arg(long, value_name = "COMMAND")]
    pipe: Option<String>,
    /// The command that is started for each job.
    #[arg(long, default_value = "true", value_name = "COMMAND")]
    exec: String,
}

impl PipeBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let own = std::env::current_exe()?;
        let own = format!("exec '{}' pipe-child", own.display().to_string().replace('\'', "'\\''"));
        let command = self.pipe.clone().unwrap_or(own);
        let arguments = ["--pipe", &command, "--children", &self.children.to_string()].map(str::to_owned);
        let (piped, memory) = self.speed(stage, self.jobs, &arguments).await?;
        let (inside, _) = self.speed(stage, self.jobs, &[]).await?;
        let mut figures = BenchFigures::new();
        figures.insert("jobs".into(), Value::from(self.jobs));
        figures.insert("slots".into(), Value::from(self.slots));
        figures.insert("children".into(), Value::from(self.children));
        figures.insert("per_second".into(), rounded(piped));
        figures.insert("handlers_per_second".into(), rounded(inside));
        figures.insert("ratio".into(), rounded(piped / inside));
        figures.insert("worker_memory_mib".into(), rounded(memory));
        if self.exec_jobs > 0 {
            let arguments = ["--exec".to_owned(), self.exec.clone()];
            let (executed, _) = self.speed(stage, self.exec_jobs, &arguments).await?;
            figures.insert("exec_jobs".into(), Value::from(self.exec_jobs));
            figures.insert("exec_per_second".into(), rounded(executed));
            figures.insert("baseline_per_second".into(), rounded(executed));
            figures.insert("times_exec".into(), rounded(piped / executed));
        }
        Ok(figures)
    }

    /// Returns the jobs worked per second by a worker process with these arguments, and its peak memory in MiB.
    async fn speed(&self, stage: &BenchStage, jobs: u32, arguments: &[String]) -> Result<(f64, f64), Failure> {
        stage.empty().await?;
        stage.fill(QUEUE, jobs as usize).await?;
        let client = stage.client().await?;
        // Pauses the queue, so that the worker sleeps with warm connections before the first job may start.
        client.execute("select reveille.pause($1)", &[&QUEUE]).await?;
        let workers = NoOpWorkers::processes_with(stage, 1, self.slots.into(), NEVER, arguments).await?;
        until_asleep(&client, 1).await?;
        let began = Instant::now();
        client.execute("select reveille.resume($1)", &[&QUEUE]).await?;
        until_done(&client, jobs).await?;
        let per_second = f64::from(jobs) / began.elapsed().as_secs_f64();
        let memory = workers.pids().into_iter().filter_map(cpu::peak_mib).fold(0.0, f64::max);
        workers.stop().await?;
        Ok((per_second, memory))
    }
}
