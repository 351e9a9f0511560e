//! `bench delayed`: the time from the due time of a delayed job to its start, without a poll.

use std::time::{Duration, Instant};

use clap::Args;
use reveille::{Job, State, Worker, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::stage::{BenchStage, QUEUE};
use super::workers::NEVER;
use super::{BenchFigures, percentiles};
use crate::Failure;

#[derive(Args)]
pub struct DelayedBench {
    /// Number of jobs. Each is due at a random time within a few seconds.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    jobs: u32,
}

/// The time at which the job is due, in microseconds since the bench began.
#[derive(Serialize, Deserialize)]
struct Due(u64);

impl Job for Due {
    const KIND: &'static str = "due";
    const QUEUE: &'static str = QUEUE;
}

type StartedDelayed = mpsc::UnboundedSender<(Due, Instant)>;

async fn start(job: Due, State(started): State<StartedDelayed>) {
    let _ = started.send((job, Instant::now()));
}

impl DelayedBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let (started, mut starts) = mpsc::unbounded_channel::<(Due, Instant)>();
        let worker = Worker::builder(stage.database.clone()).queue(QUEUE, 64).poll_interval(NEVER).state(started);
        let stop = CancellationToken::new();
        let working = tokio::spawn(worker.handle(start).build()?.run_until(stop.clone().cancelled_owned()));

        let (client, began) = (stage.client().await?, Instant::now());
        for _ in 0..self.jobs {
            let delay = Duration::from_micros(fastrand::u64(200_000..4_000_000));
            // By the server's clock the job is due slightly later, so the measured time is slightly too long.
            let due = began.elapsed() + delay;
            enqueue(&client, &Due(due.as_micros() as u64)).delay(delay).await?;
        }
        let mut late = Vec::new();
        for _ in 0..self.jobs {
            let start = tokio::time::timeout(Duration::from_secs(60), starts.recv()).await;
            let (Due(due), at) =
                start.ok().flatten().ok_or_else(|| Failure::Error("bench: a delayed job did not start".into()))?;
            late.push(((at - began).as_secs_f64() - due as f64 / 1e6) * 1000.0);
        }
        stop.cancel();
        working.await.map_err(|error| error.to_string())??;
        let mut figures = BenchFigures::new();
        figures.insert("jobs".into(), Value::from(self.jobs));
        percentiles(&mut figures, "", late);
        Ok(figures)
    }
}
