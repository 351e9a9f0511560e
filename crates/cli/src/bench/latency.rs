//! `bench latency`: the time from an enqueue to the start of the job.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures::StreamExt;
use reveille::driver::{Signal, signals};
use reveille::{Job, State, Worker, driver::Postgres, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::stage::{BenchStage, QUEUE};
use super::workers::NEVER;
use super::{BenchFigures, percentiles};
use crate::Failure;
use crate::figures::{percentile, rounded};

#[derive(Args)]
pub struct LatencyBench {
    /// Number of jobs, one after another.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    jobs: u32,
    /// Let the worker wait for the disk at each claim or not; the baseline always waits.
    #[arg(long, value_enum, default_value = "async")]
    claims: Claims,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Claims {
    Durable,
    Async,
}

#[derive(Serialize, Deserialize)]
struct Stamp;

impl Job for Stamp {
    const KIND: &'static str = "stamp";
    const QUEUE: &'static str = QUEUE;
}

/// The longest time to wait for one job.
const LOST: Duration = Duration::from_secs(30);

async fn stamp(_: Stamp, State(started): State<mpsc::UnboundedSender<Instant>>) {
    let _ = started.send(Instant::now());
}

impl LatencyBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        // The two measurements take turns, so that other load of the machine affects both.
        let (mut waits, mut floor) = (Vec::new(), Vec::new());
        let rounds = self.jobs.div_ceil(250);
        for round in 0..rounds {
            let jobs = self.jobs / rounds + u32::from(round < self.jobs % rounds);
            floor.extend(bare(stage, jobs).await?);
            waits.extend(jobs_to_start(stage, self.claims, jobs).await?);
        }
        floor.sort_by(f64::total_cmp);
        let mut figures = BenchFigures::new();
        figures.insert("jobs".into(), Value::from(self.jobs));
        percentiles(&mut figures, "", waits);
        percentiles(&mut figures, "floor_", floor.clone());
        let p50 = figures.get("p50_ms").and_then(Value::as_f64).unwrap_or_default();
        figures.insert("ratio".into(), rounded(p50 / percentile(&floor, 50)));
        Ok(figures)
    }
}

/// Leaves the queue idle until the worker is asleep again.
async fn gap() {
    tokio::time::sleep(Duration::from_micros(fastrand::u64(5_000..20_000))).await;
}

async fn jobs_to_start(stage: &BenchStage, claims: Claims, jobs: u32) -> Result<Vec<f64>, Failure> {
    stage.empty().await?;
    let (started, mut starts) = mpsc::unbounded_channel::<Instant>();
    let driver = Postgres::new(stage.database.clone())?.durable(claims == Claims::Durable)?;
    let worker = Worker::builder(driver).queue(QUEUE, 8).poll_interval(NEVER).state(started).handle(stamp);
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.build()?.run_until(stop.clone().cancelled_owned()));
    let client = stage.client().await?;
    let mut waits = Vec::new();
    // The first 5 jobs only open connections and make plans. Their times do not count.
    for n in 0..jobs + 5 {
        gap().await;
        let sent = Instant::now();
        enqueue(&client, &Stamp).await?;
        let start = tokio::time::timeout(LOST, starts.recv()).await;
        let start = start.ok().flatten().ok_or_else(|| Failure::Error("bench: a job did not start".into()))?;
        if n >= 5 {
            waits.push(start.saturating_duration_since(sent).as_secs_f64() * 1000.0);
        }
    }
    stop.cancel();
    working.await.map_err(|error| error.to_string())??;
    Ok(waits)
}

const INSERT: &str =
    "with inserted as (insert into reveille.jobs (queue, kind, payload) values ($1, 'stamp', 'null') returning id)
    select pg_notify('reveille.bell', $1) from inserted";
const CLAIM: &str = "with due as materialized (
        select ctid as place from reveille.jobs
        where queue = $1 and priority = 2 and reserved_at is null and paused_by is null and available_at <= now()
        order by available_at, id limit 1 for update skip locked
    )
    update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = attempts + 1
    where ctid = any (array(select place from due)) returning id, kind, payload, attempts";

/// Returns the milliseconds from a bare INSERT with NOTIFY to the end of a claim whose commit waits for the disk. The
/// producer, the listener and the claim each have a connection.
async fn bare(stage: &BenchStage, jobs: u32) -> Result<Vec<f64>, Failure> {
    stage.empty().await?;
    stage.trigger(false).await?;
    let mut bells = signals(&Postgres::new(stage.database.clone())?, 0).await?;
    let (producer, consumer) = (stage.client().await?, stage.client().await?);
    let (insert, claim) = (producer.prepare(INSERT).await?, consumer.prepare(CLAIM).await?);
    let sent = Arc::new(Mutex::new(Instant::now()));
    let (claimed, mut claims) = mpsc::unbounded_channel();
    let began = Arc::clone(&sent);
    let consuming = tokio::spawn(async move {
        while let Some(Ok(Signal::Bell(_))) = bells.next().await {
            let rows = consumer.query(&claim, &[&QUEUE]).await?;
            let waited = began.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            if rows.len() != 1 || claimed.send(waited).is_err() {
                break;
            }
            let id: i64 = rows.first().map(|row| row.get("id")).unwrap_or_default();
            consumer.execute("delete from reveille.jobs where id = $1", &[&id]).await?;
        }
        Ok::<(), tokio_postgres::Error>(())
    });
    let mut waits = Vec::new();
    for n in 0..jobs + 5 {
        gap().await;
        *sent.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        producer.query(&insert, &[&QUEUE]).await?;
        let waited = tokio::time::timeout(LOST, claims.recv()).await;
        let waited = waited.ok().flatten().ok_or_else(|| Failure::Error("bench: a NOTIFY did not arrive".into()))?;
        if n >= 5 {
            waits.push(waited.as_secs_f64() * 1000.0);
        }
    }
    consuming.abort();
    stage.trigger(true).await?;
    Ok(waits)
}
