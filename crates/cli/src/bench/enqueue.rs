//! `bench enqueue`: the cost of the bell for producers.

use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use deadpool_postgres::Client;
use futures::SinkExt;
use futures::future::try_join_all;
use reveille::enqueue::{copy_all, enqueue_all, to_json_all};
use reveille::job::Payload;
use reveille::{enqueue, job::NewJob};
use serde_json::Value;

use super::BenchFigures;
use super::stage::{BenchStage, KIND, QUEUE};
use super::workers::{NEVER, NoOpWorkers};
use crate::Failure;
use crate::connection::duration;
use crate::figures::rounded;

#[derive(Args)]
pub struct EnqueueBench {
    /// One job per transaction, a thousand in one statement, ten thousand by COPY, or ten thousand in one call of
    /// reveille.enqueue_json, whose baseline is as many jobs in one statement.
    #[arg(long, value_enum, default_value = "single")]
    mode: EnqueueMode,
    /// Connections that enqueue at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=48))]
    producers: u16,
    /// No worker, an idle worker that waits for the jobs, or a busy worker that has a backlog.
    #[arg(long, value_enum, default_value = "none")]
    workers: WorkerState,
    /// Duration of each of the four rounds.
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "DURATION")]
    round: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EnqueueMode {
    Single,
    All,
    Copy,
    Json,
}

impl EnqueueMode {
    /// The number of jobs that a producer enqueues at a time.
    fn batch(self) -> usize {
        match self {
            EnqueueMode::Single => 1,
            EnqueueMode::All => 1000,
            EnqueueMode::Copy | EnqueueMode::Json => 10_000,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorkerState {
    None,
    Idle,
    Busy,
}

/// The number of jobs that a busy worker has at the beginning.
const BACKLOG: usize = 100_000;
/// The poll interval of the baseline's worker, because no bell rings for that worker.
const LOOK: Duration = Duration::from_millis(5);

impl EnqueueBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let (mut with, mut without) = (0.0, 0.0);
        for _ in 0..2 {
            without += self.round(stage, true).await?;
            with += self.round(stage, false).await?;
        }
        let mut figures = BenchFigures::new();
        figures.insert("producers".into(), Value::from(self.producers));
        figures.insert("per_second".into(), rounded(with / 2.0));
        figures.insert("baseline_per_second".into(), rounded(without / 2.0));
        figures.insert("ratio".into(), rounded(with / without));
        Ok(figures)
    }

    /// Returns the jobs enqueued per second by this mode or by its baseline. The baseline of most modes has no trigger.
    async fn round(&self, stage: &BenchStage, is_baseline: bool) -> Result<f64, Failure> {
        let trigger = !is_baseline || self.mode == EnqueueMode::Json;
        stage.empty().await?;
        stage.trigger(trigger).await?;
        // Without the trigger no bell rings, so the worker must poll to do the same work.
        let poll_interval = if trigger { NEVER } else { LOOK };
        let workers = match self.workers {
            WorkerState::None => None,
            WorkerState::Idle => Some(NoOpWorkers::processes(stage, 1, 64, poll_interval).await?),
            WorkerState::Busy => {
                stage.fill(QUEUE, BACKLOG).await?;
                Some(NoOpWorkers::processes(stage, 1, 64, poll_interval).await?)
            }
        };
        let mut producers = Vec::new();
        for _ in 0..self.producers {
            producers.push(stage.client().await?);
        }
        let began = Instant::now();
        let sent =
            try_join_all(producers.iter().map(|client| self.produce(client, began + self.round, is_baseline))).await?;
        let per_second = sent.into_iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64();
        drop(producers);
        if let Some(workers) = workers {
            workers.stop().await?;
        }
        stage.trigger(true).await?;
        Ok(per_second)
    }

    async fn produce(&self, client: &Client, until: Instant, is_baseline: bool) -> Result<u64, Failure> {
        let job = NewJob::new(KIND, Payload::encode(&())?).queue(QUEUE);
        let batch = vec![job; self.mode.batch()];
        let rows: Arc<[u8]> = format!("{QUEUE}\t{KIND}\tnull\n").repeat(batch.len()).into_bytes().into();
        let mut sent = 0;
        while Instant::now() < until {
            match self.mode {
                EnqueueMode::Single => drop(enqueue(client, &batch[0]).await?),
                EnqueueMode::All => drop(enqueue_all(client, &batch).await?),
                EnqueueMode::Copy if !is_baseline => drop(copy_all(client, &batch).await?),
                EnqueueMode::Copy => raw_copy(client, Arc::clone(&rows)).await?,
                EnqueueMode::Json if !is_baseline => enqueue_json(client, &batch).await?,
                EnqueueMode::Json => drop(enqueue_all(client, &batch).await?),
            }
            sent += batch.len() as u64;
        }
        Ok(sent)
    }
}

/// Enqueues as a client does that Reveille does not know: by one statement that is kept prepared.
async fn enqueue_json(client: &Client, jobs: &[NewJob]) -> Result<(), Failure> {
    let statement =
        client.prepare_cached("select place, id, existed from reveille.enqueue_json($1::text::jsonb)").await?;
    client.query(&statement, &[&to_json_all(jobs)?]).await?;
    Ok(())
}

/// The fastest COPY: its rows are built beforehand, and have only the columns that need a value.
async fn raw_copy(client: &Client, rows: Arc<[u8]>) -> Result<(), Failure> {
    let mut sink = pin!(client.copy_in("copy reveille.jobs (queue, kind, payload) from stdin").await?);
    sink.send(Cursor::new(rows)).await?;
    sink.finish().await?;
    Ok(())
}
