//! `bench unruly`: the lateness of jobs whose transactions stay open, come in bursts or roll savepoints back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use deadpool_postgres::{Client, Transaction};
use futures::StreamExt;
use futures::future::try_join_all;
use reveille::driver::{Signal, signals};
use reveille::{Job, State, Worker, driver::Postgres, enqueue, enqueue::enqueue_all};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::drain::until_asleep;
use super::stage::{BenchStage, QUEUE};
use super::workers::NEVER;
use super::{BenchFigures, percentiles};
use crate::Failure;
use crate::figures::rounded;

#[derive(Args)]
pub struct UnrulyBench {
    /// Seconds to measure.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Number of connections that enqueue.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=40))]
    producers: u16,
    /// Hold a snapshot throughout, so that dead rows pile up.
    #[arg(long)]
    snapshot: bool,
}

/// The longest time that a transaction stays open, and also the longest pause of a producer.
const LONGEST: Duration = Duration::from_secs(2);
/// The pause between two control notifications.
const CONTROL_EVERY: Duration = Duration::from_millis(20);
/// The longest time to wait for the last jobs.
const LOST: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Number(u64);

impl Job for Number {
    const KIND: &'static str = "number";
    const QUEUE: &'static str = QUEUE;
}

type StartedNumbers = mpsc::UnboundedSender<(u64, Instant)>;

async fn start(Number(number): Number, State(started): State<StartedNumbers>) {
    let _ = started.send((number, Instant::now()));
}

impl UnrulyBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let holder = stage.client().await?;
        if self.snapshot {
            holder.batch_execute("begin isolation level repeatable read; select count(*) from reveille.jobs").await?;
        }
        let (started, mut starts) = mpsc::unbounded_channel();
        let worker = Worker::builder(stage.database.clone()).queue(QUEUE, 64).poll_interval(NEVER).state(started);
        let stop = CancellationToken::new();
        let working = tokio::spawn(worker.handle(start).build()?.run_until(stop.clone().cancelled_owned()));
        let client = stage.client().await?;
        until_asleep(&client, 1).await?;

        let until = Instant::now() + Duration::from_secs(self.seconds.into());
        let controlling = tokio::spawn(control(stage.database.clone(), stop.clone()));
        let committed = try_join_all((0..self.producers).map(|n| produce(stage, n.into(), until))).await?;
        let mut committed: HashMap<u64, Instant> = committed.into_iter().flatten().collect();
        let (jobs, mut waits, mut unexpected) = (committed.len(), Vec::new(), 0);
        while !committed.is_empty() {
            let Ok(Some((number, at))) = tokio::time::timeout(LOST, starts.recv()).await else { break };
            match committed.remove(&number) {
                Some(commit) => waits.push((commit, at)),
                None => unexpected += 1,
            }
        }
        stop.cancel();
        working.await.map_err(|error| error.to_string())??;
        let controls = controlling.await.map_err(|error| error.to_string())??;

        let mut figures = BenchFigures::new();
        figures.insert("jobs".into(), Value::from(jobs));
        figures.insert("lost".into(), Value::from(committed.len()));
        figures.insert("unexpected".into(), Value::from(unexpected));
        let excess = waits.iter().map(|wait| milliseconds(wait) - slowest(&controls, wait)).fold(0.0, f64::max);
        percentiles(&mut figures, "", waits.iter().map(milliseconds).collect());
        percentiles(&mut figures, "control_", controls.iter().map(milliseconds).collect());
        figures.insert("max_beyond_control_ms".into(), rounded(excess));
        Ok(figures)
    }
}

/// The times at which a job was committed and started, or a notification was sent and received.
type Wait = (Instant, Instant);

/// Returns the duration of the wait; 0 if a job started before its producer knew of the commit.
fn milliseconds((from, until): &Wait) -> f64 {
    until.saturating_duration_since(*from).as_secs_f64() * 1000.0
}

/// Returns the longest duration of the control notifications that were under way at the same time.
fn slowest(controls: &[Wait], (from, until): &Wait) -> f64 {
    let during = controls.iter().filter(|(sent, received)| sent <= until && received >= from);
    during.map(milliseconds).fold(0.0, f64::max)
}

/// Sends plain notifications from one connection to another until stopped. Returns for each the times at which it was
/// sent and received.
async fn control(database: reveille::Database, stop: CancellationToken) -> Result<Vec<Wait>, Failure> {
    let client = database.client().await?;
    let mut received = signals(&Postgres::new(database)?, 0).await?;
    let mut waits = Vec::new();
    while !stop.is_cancelled() {
        let sent = Instant::now();
        client.execute("select pg_notify('reveille.bell', 'control')", &[]).await?;
        while let Some(signal) = received.next().await {
            if signal? == Signal::Bell("control".into()) {
                break;
            }
        }
        waits.push((sent, Instant::now()));
        tokio::time::sleep(CONTROL_EVERY).await;
    }
    Ok(waits)
}

/// Commits jobs in different ways, with pauses in between. Returns the time at which this producer knew of each commit.
async fn produce(stage: &BenchStage, n: u64, until: Instant) -> Result<Vec<(u64, Instant)>, Failure> {
    let mut client = stage.client().await?;
    let mut producer = Producer { last: n << 40, committed: Vec::new() };
    while Instant::now() < until {
        match fastrand::u8(0..10) {
            0..5 => producer.transaction(&mut client, up_to(LONGEST)).await?,
            5..8 => {
                for _ in 0..fastrand::u32(1..300) {
                    producer.transaction(&mut client, Duration::ZERO).await?;
                }
            }
            _ => {
                let number = producer.number();
                enqueue(&client, &Number(number)).await?;
                producer.committed.push((number, Instant::now()));
            }
        }
        tokio::time::sleep(up_to(LONGEST)).await;
    }
    Ok(producer.committed)
}

/// Returns a random time of at most `longest`. Short times are more frequent.
fn up_to(longest: Duration) -> Duration {
    longest.mul_f64(fastrand::f64().powi(3))
}

struct Producer {
    /// The number of the last job, unique among all producers.
    last: u64,
    committed: Vec<(u64, Instant)>,
}

impl Producer {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Runs one transaction at a random isolation level, and keeps the transaction open for the time `open`. The
    /// transaction may enqueue at its beginning, in a savepoint that may be rolled back, and at its end. One
    /// transaction in ten is rolled back.
    async fn transaction(&mut self, client: &mut Client, open: Duration) -> Result<(), Failure> {
        use tokio_postgres::IsolationLevel::{ReadCommitted, RepeatableRead, Serializable};
        let level = [ReadCommitted, ReadCommitted, RepeatableRead, Serializable][fastrand::usize(0..4)];
        let mut tx = client.build_transaction().isolation_level(level).start().await?;
        let mut numbers = Vec::new();
        if fastrand::bool() {
            numbers.extend(self.jobs(&tx).await?);
        }
        if fastrand::bool() {
            let savepoint = tx.transaction().await?;
            let inner = self.jobs(&savepoint).await?;
            tokio::time::sleep(open / 2).await;
            if fastrand::bool() {
                savepoint.rollback().await?;
            } else {
                savepoint.commit().await?;
                numbers.extend(inner);
            }
        } else {
            tokio::time::sleep(open / 2).await;
        }
        tokio::time::sleep(open / 2).await;
        if numbers.is_empty() || fastrand::bool() {
            numbers.extend(self.jobs(&tx).await?);
        }
        if fastrand::u8(0..10) == 0 {
            return Ok(tx.rollback().await?);
        }
        tx.commit().await?;
        self.committed.extend(numbers.into_iter().map(|number| (number, Instant::now())));
        Ok(())
    }

    async fn jobs(&mut self, tx: &Transaction<'_>) -> Result<Vec<u64>, Failure> {
        let numbers: Vec<u64> = (0..fastrand::u8(1..4)).map(|_| self.number()).collect();
        enqueue_all(tx, &numbers.iter().copied().map(Number).collect::<Vec<_>>()).await?;
        Ok(numbers)
    }
}
