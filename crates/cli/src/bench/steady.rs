//! `bench steady`: enqueues at a fixed rate, even if the worker cannot keep up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use futures::future::try_join_all;
use reveille::{Job, State, Worker, enqueue::enqueue_all};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::cpu::Cpu;
use super::drain::{Switch, until_asleep, until_done};
use super::raw;
use super::stage::{BenchStage, QUEUE, ServerWork};
use super::watch::watch;
use super::workers::NEVER;
use super::{BenchFigures, percentiles};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct SteadyBench {
    /// Jobs enqueued per second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    rate: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Slots of the worker.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// Keep finished jobs or not.
    #[arg(long, value_enum, default_value = "off")]
    history: Switch,
}

/// The number of connections that enqueue in turn.
const PRODUCERS: u32 = 2;
/// The time between two enqueues.
const TICK: Duration = Duration::from_millis(10);
/// The duration of a job.
const WORK: Duration = Duration::from_millis(1);

/// The time at which the job was to be enqueued, in microseconds since the bench began.
#[derive(Serialize, Deserialize)]
struct Tick(u64);

impl Job for Tick {
    const KIND: &'static str = "tick";
    const QUEUE: &'static str = QUEUE;
}

/// The starts of all jobs: the time at which each job was to be enqueued, and the milliseconds from then to its start.
#[derive(Clone)]
struct Starts {
    began: Instant,
    starts: Arc<Mutex<Vec<(u64, f64)>>>,
}

async fn tick(Tick(scheduled): Tick, State(starts): State<Starts>) {
    let late = starts.began.elapsed().as_secs_f64() * 1000.0 - scheduled as f64 / 1000.0;
    starts.starts.lock().unwrap_or_else(PoisonError::into_inner).push((scheduled, late));
    tokio::time::sleep(WORK).await;
}

impl SteadyBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        if self.history == Switch::Off {
            stage.keep_no_history().await?;
        }
        let client = stage.client().await?;
        let floor = self.floor(stage).await?;
        let starts = Starts { began: Instant::now(), starts: Arc::default() };
        let worker = Worker::builder(stage.database.clone()).queue(QUEUE, self.slots.into()).poll_interval(NEVER);
        let stop = CancellationToken::new();
        let working = worker.state(starts.clone()).handle(tick).build()?.run_until(stop.clone().cancelled_owned());
        let working = tokio::spawn(working);
        until_asleep(&client, 1).await?;

        let (before, cpu) = (ServerWork::so_far(&client).await?, Cpu::so_far(&[std::process::id()], stage));
        let sent_from = starts.began.elapsed();
        let mut looks = Vec::new();
        let started = || starts.starts.lock().unwrap_or_else(PoisonError::into_inner).len();
        let sent = tokio::select! {
            sent = try_join_all((0..PRODUCERS).map(|n| self.produce(stage, starts.began, sent_from, n))) => sent?,
            ended = watch(stage, started, |look| looks.push(look)) => return ended.map(|()| BenchFigures::new()),
        };
        let jobs: u32 = sent.into_iter().sum();
        until_done(&client, jobs).await?;
        let seconds = (starts.began.elapsed() - sent_from).as_secs_f64();
        let now = Cpu::so_far(&[std::process::id()], stage);
        stop.cancel();
        working.await.map_err(|error| error.to_string())??;
        let after = ServerWork::so_far(&client).await?;

        let mut figures = BenchFigures::new();
        figures.insert("rate".into(), Value::from(self.rate));
        figures.insert("seconds".into(), rounded(seconds));
        figures.insert("jobs".into(), Value::from(jobs));
        figures.insert("per_second".into(), rounded(f64::from(jobs) / seconds));
        let starts = std::mem::take(&mut *starts.starts.lock().unwrap_or_else(PoisonError::into_inner));
        latencies(&mut figures, starts);
        let per_job = |sum: f64| rounded(sum / f64::from(jobs));
        figures.insert("client_cpu_us_per_job".into(), per_job((now.processes - cpu.processes) * 1e6));
        if let (Some(before), Some(now)) = (cpu.server, now.server) {
            figures.insert("server_cpu_us_per_job".into(), per_job((now - before) * 1e6));
        }
        if let Some(floor) = floor {
            figures.insert("floor_server_cpu_us_per_job".into(), rounded(floor));
        }
        figures.insert("commits_per_job".into(), per_job(after.commits_since(&before)));
        figures.insert("wal_bytes_per_job".into(), per_job(after.wal_bytes_since(&before)));
        figures.insert("wal_images_per_job".into(), per_job(after.wal_images_since(&before)));
        let sql = "select n_dead_tup, pg_total_relation_size(relid) from pg_stat_user_tables
            where relid = 'reveille.jobs'::regclass";
        let row = client.query_one(sql, &[]).await?;
        figures.insert("dead_rows".into(), Value::from(row.get::<_, i64>(0)));
        figures.insert("table_bytes".into(), Value::from(row.get::<_, i64>(1)));
        figures.insert("each_10_s".into(), Value::from(looks));
        Ok(figures)
    }

    /// Returns the server's processor time per job in microseconds if bare statements do the jobs at the same rate.
    /// Measures for a quarter of the bench's time.
    async fn floor(&self, stage: &BenchStage) -> Result<Option<f64>, Failure> {
        let ticks = self.ticks().div_ceil(4);
        let before = Cpu::so_far(&[], stage);
        raw::ticks(stage, TICK, (0..ticks).map(|tick| self.due(tick))).await?;
        let now = Cpu::so_far(&[], stage);
        stage.empty().await?;
        let jobs: u32 = (0..ticks).map(|tick| self.due(tick)).sum();
        Ok(before.server.zip(now.server).map(|(before, now)| (now - before) * 1e6 / f64::from(jobs)))
    }

    fn ticks(&self) -> u32 {
        self.seconds * (1000 / TICK.as_millis() as u32)
    }

    /// Returns the number of jobs to enqueue in the interval `tick`: the jobs to send by its end, less the jobs of
    /// earlier intervals.
    fn due(&self, tick: u32) -> u32 {
        let by = |ticks: u32| u64::from(self.rate) * u64::from(ticks) * TICK.as_millis() as u64 / 1000;
        (by(tick + 1) - by(tick)) as u32
    }

    /// Enqueues the jobs of each interval of this producer. If an interval begins late, its jobs follow at once.
    /// Returns the number of jobs.
    async fn produce(&self, stage: &BenchStage, began: Instant, from: Duration, n: u32) -> Result<u32, Failure> {
        let client = stage.client().await?;
        let mut sent = 0;
        for tick in (0..self.ticks()).filter(|tick| tick % PRODUCERS == n) {
            let scheduled = from + TICK * tick;
            tokio::time::sleep_until((began + scheduled).into()).await;
            let batch: Vec<Tick> = (0..self.due(tick)).map(|_| Tick(scheduled.as_micros() as u64)).collect();
            sent += enqueue_all(&client, &batch).await?.len() as u32;
        }
        Ok(sent)
    }
}

/// Adds the percentiles of all jobs, and the 99th percentile of the first and the last quarter. The two differ if the
/// latency grows during the run.
fn latencies(figures: &mut BenchFigures, mut starts: Vec<(u64, f64)>) {
    starts.sort_by_key(|(scheduled, _)| *scheduled);
    let quarter = starts.len().div_ceil(4);
    let p99 = |part: &[(u64, f64)]| {
        let mut late: Vec<f64> = part.iter().map(|(_, late)| *late).collect();
        late.sort_by(f64::total_cmp);
        rounded(crate::figures::percentile(&late, 99))
    };
    figures.insert("first_quarter_p99_ms".into(), p99(&starts[..quarter]));
    figures.insert("last_quarter_p99_ms".into(), p99(&starts[starts.len() - quarter..]));
    percentiles(figures, "", starts.into_iter().map(|(_, late)| late).collect());
}
