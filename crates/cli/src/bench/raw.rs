//! Baselines: the speed of bare statements on the same tables.

use std::time::{Duration, Instant};

use deadpool_postgres::Client;
use futures::future::try_join_all;
use tokio_postgres::Statement;

use super::stage::{BenchStage, QUEUE};
use crate::Failure;

/// The number of rows in a raw batch.
const BATCH: i64 = 200;

const CLAIM_BATCH: &str = "with due as materialized (
        select ctid as place from reveille.jobs
        where queue = $1 and priority = 2 and reserved_at is null and paused_by is null and available_at <= now()
        order by available_at, id limit $2 for update skip locked
    )
    update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = attempts + 1
    where ctid = any (array(select place from due)) returning id, kind, payload, attempts";

const CLAIM_ONE: &str = "update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = attempts + 1
    where id in (
        select id from reveille.jobs
        where queue = $1 and priority = 2 and reserved_at is null and paused_by is null and available_at <= now()
        order by available_at, id limit $2 for update skip locked
    ) returning id, kind, payload, attempts";

const INSERT: &str = "insert into reveille.jobs (queue, kind, payload)
    select $1, 'bench', to_jsonb(n) from generate_series(1, $2::bigint) as n";

const DELETE: &str = "delete from reveille.jobs where id = any ($1)";

/// The settings of a worker's sessions, for a fair comparison.
const SETTINGS: &str = "set jit = off; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
    set enable_bitmapscan = off; set enable_sort = off";

/// Returns the jobs per second of the same claims and deletes in a bare loop on four connections.
pub async fn floor(stage: &BenchStage, jobs: usize) -> Result<f64, Failure> {
    drain(stage, jobs, CLAIM_BATCH, BATCH, 4).await
}

/// Returns the jobs per second of a naive claim, one row at a time, on eight connections.
pub async fn naive(stage: &BenchStage, jobs: usize) -> Result<f64, Failure> {
    drain(stage, jobs, CLAIM_ONE, 1, 8).await
}

/// Returns the jobs per second of the loop of [`naive`], measured for `time`. Does not empty the table first.
pub async fn naive_for(stage: &BenchStage, time: Duration) -> Result<f64, Failure> {
    stage.fill(QUEUE, 100_000).await?;
    let clients = clients(stage, 8).await?;
    let began = Instant::now();
    let done = try_join_all(clients.iter().map(|client| async move {
        let (claim, delete) = (client.prepare(CLAIM_ONE).await?, client.prepare(DELETE).await?);
        let mut done = 0;
        while began.elapsed() < time {
            done += claim_and_delete(client, &claim, 1, &delete).await?;
        }
        Ok::<usize, Failure>(done)
    }));
    let done: usize = done.await?.into_iter().sum();
    let seconds = began.elapsed().as_secs_f64();
    for client in &clients {
        client.batch_execute("reset all").await?;
    }
    Ok(done as f64 / seconds)
}

/// Inserts, claims and deletes rows in each interval of the length `tick`. If an interval begins late, its rows follow
/// at once. `rows` has the number of rows for each interval. Only the inserts wait for the disk.
pub async fn ticks(stage: &BenchStage, tick: Duration, rows: impl Iterator<Item = u32>) -> Result<(), Failure> {
    let (producer, worker) = (client(stage).await?, client(stage).await?);
    worker.batch_execute("set synchronous_commit = off").await?;
    let (insert, claim, delete) =
        (producer.prepare(INSERT).await?, worker.prepare(CLAIM_BATCH).await?, worker.prepare(DELETE).await?);
    let began = Instant::now();
    for (n, rows) in (0..).zip(rows) {
        tokio::time::sleep_until((began + tick * n).into()).await;
        producer.execute(&insert, &[&QUEUE, &i64::from(rows)]).await?;
        let done = claim_and_delete(&worker, &claim, rows.into(), &delete).await?;
        if done != rows as usize {
            return Err(Failure::Error(format!("bench: bare statements did {done} of {rows} jobs")));
        }
    }
    for client in [producer, worker] {
        client.batch_execute("reset all; select pg_stat_force_next_flush()").await?;
    }
    Ok(())
}

async fn clients(stage: &BenchStage, count: usize) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(client(stage).await?);
    }
    Ok(clients)
}

async fn client(stage: &BenchStage) -> Result<Client, Failure> {
    let client = stage.client().await?;
    client.batch_execute(SETTINGS).await?;
    Ok(client)
}

async fn claim_and_delete(
    client: &Client,
    claim: &Statement,
    batch: i64,
    delete: &Statement,
) -> Result<usize, Failure> {
    let rows = client.query(claim, &[&QUEUE, &batch]).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let ids: Vec<i64> = rows.iter().map(|row| row.get("id")).collect();
    Ok(client.execute(delete, &[&ids]).await? as usize)
}

async fn drain(stage: &BenchStage, jobs: usize, claim: &str, batch: i64, connections: usize) -> Result<f64, Failure> {
    stage.empty().await?;
    stage.fill(QUEUE, jobs).await?;
    let clients = clients(stage, connections).await?;
    let began = Instant::now();
    let done = try_join_all(clients.iter().map(|client| async move {
        let (claim, delete) = (client.prepare(claim).await?, client.prepare(DELETE).await?);
        let mut done = 0;
        loop {
            match claim_and_delete(client, &claim, batch, &delete).await? {
                0 => return Ok::<usize, Failure>(done),
                some => done += some,
            }
        }
    }));
    let done: usize = done.await?.into_iter().sum();
    if done != jobs {
        return Err(Failure::Error(format!("bench: the raw loop did {done} of {jobs} jobs")));
    }
    for client in &clients {
        client.batch_execute("reset all").await?;
    }
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}
