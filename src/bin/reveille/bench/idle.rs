//! `bench idle`: what workers cost that have nothing to do.

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::Figures;
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
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// How long workers have to come to rest, and their idle sessions to report what they did before: ten seconds, see
/// `PGSTAT_IDLE_INTERVAL` in the server's source.
const SETTLE: Duration = Duration::from_secs(12);
/// The default fallback poll.
const POLL: Duration = Duration::from_secs(5);
/// Ticks of the clock that the kernel counts processor time by.
const TICKS_PER_SECOND: f64 = 100.0;

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
        let workers_cpu = (now.workers - cpu.workers) / f64::from(self.workers);
        figures.insert("worker_cpu_seconds".into(), rounded(workers_cpu));
        figures.insert("worker_cpu_percent".into(), rounded(workers_cpu / seconds * 100.0));
        if let (Some(before), Some(now)) = (cpu.server, now.server) {
            figures.insert("server_cpu_seconds".into(), rounded(now - before));
            figures.insert("server_cpu_percent".into(), rounded((now - before) / seconds * 100.0));
        }
        Ok(figures)
    }
}

/// Processor time used so far, in seconds.
pub struct Cpu {
    workers: f64,
    /// Of all its processes; known only of a server of our own.
    pub server: Option<f64>,
}

impl Cpu {
    pub fn so_far(pids: &[u32], stage: &Stage) -> Cpu {
        let workers = pids.iter().filter_map(|pid| used(&Path::new("/proc").join(pid.to_string()), false)).sum();
        Cpu { workers, server: stage.postmaster().map(server) }
    }
}

/// The postmaster's and its children's, with what ended children used.
fn server(postmaster: u32) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let children = processes.filter(|path| parent(path) == Some(postmaster)).filter_map(|path| used(&path, false));
    children.sum::<f64>() + used(&Path::new("/proc").join(postmaster.to_string()), true).unwrap_or_default()
}

/// The fields of `/proc/…/stat` from the state on, which is the third; see proc(5).
fn stat(process: &Path) -> Option<Vec<String>> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn parent(process: &Path) -> Option<u32> {
    stat(process)?.get(1)?.parse().ok()
}

fn used(process: &Path, with_ended_children: bool) -> Option<f64> {
    let fields = stat(process)?;
    let ticks = |place: usize| fields.get(place).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    let own = ticks(11) + ticks(12);
    Some((own + if with_ended_children { ticks(13) + ticks(14) } else { 0.0 }) / TICKS_PER_SECOND)
}
