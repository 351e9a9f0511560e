//! `bench views`: the response times of the views on full tables.

use std::time::Instant;

use clap::Args;
use serde_json::Value;

use super::BenchFigures;
use super::stage::BenchStage;
use crate::Failure;
use crate::figures::{percentile, rounded};

#[derive(Args)]
pub struct ViewsBench {
    /// Waiting jobs. A tenth of them are delayed.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    waiting: u32,
    /// Waiting jobs that have failed before.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    failing: u32,
    /// Running jobs.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    running: u32,
    /// Dead jobs, each with twenty errors.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    dead: u32,
    /// Finished jobs in the history.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    finished: u32,
    /// Queues over which all jobs spread.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    queues: u32,
    /// Days of counters of each queue.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=7))]
    days: u8,
    /// Do not vacuum, as if vacuum could not keep up.
    #[arg(long)]
    unvacuumed: bool,
}

/// The number of times that each query runs.
const ROUNDS: usize = 20;

/// The queries: the name of the figure, and the statement. The first two queries read no table: they show the load of
/// the machine.
const QUERIES: [(&str, &str); 12] = [
    ("select_1", "select 1"),
    ("million_counted", "select count(*) from generate_series(1, 1000000)"),
    ("queue_stats", "select * from reveille.queue_stats"),
    ("queue_stats_of_one", "select * from reveille.queue_stats where queue = 'queue 0'"),
    ("running_jobs", "select * from reveille.running_jobs"),
    ("failing_jobs", "select * from reveille.failing_jobs"),
    ("dead_jobs_overview", "select * from reveille.dead_jobs_overview"),
    ("worker_status", "select * from reveille.worker_status"),
    ("throughput", "select * from reveille.throughput"),
    ("throughput_of_an_hour", "select * from reveille.throughput where minute > now() - interval '1 hour'"),
    ("queue_limits", "select * from reveille.queue_limits"),
    ("queue_totals", "select * from reveille.queue_totals"),
];

impl ViewsBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        self.fill(stage).await?;
        let mut figures = BenchFigures::new();
        for (name, count) in [
            ("waiting", self.waiting),
            ("failing", self.failing),
            ("running", self.running),
            ("dead", self.dead),
            ("finished", self.finished),
            ("queues", self.queues),
            ("days", self.days.into()),
        ] {
            figures.insert(name.into(), Value::from(count));
        }
        figures.insert("vacuumed".into(), Value::from(if self.unvacuumed { "no" } else { "yes" }));
        let client = stage.client().await?;
        for (name, sql) in QUERIES {
            let (mut took, mut rows) = (Vec::new(), 0);
            for _ in 0..ROUNDS {
                let began = Instant::now();
                rows = client.query_typed(sql, &[]).await?.len();
                took.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            took.sort_by(f64::total_cmp);
            figures.insert(format!("{name}_p50_ms"), rounded(percentile(&took, 50)));
            figures.insert(format!("{name}_max_ms"), rounded(percentile(&took, 100)));
            figures.insert(format!("{name}_rows"), Value::from(rows));
        }
        Ok(figures)
    }

    async fn fill(&self, stage: &BenchStage) -> Result<(), Failure> {
        let ViewsBench { waiting, failing, running, dead, finished, queues, days, unvacuumed } = self;
        let error = "jsonb_build_object('at', now(), 'worker', 1, 'attempt', 1, 'reason', 'failed',
            'error', 'connection refused')";
        let errors = format!("(select jsonb_agg({error}) from generate_series(1, 20))");
        stage.trigger(false).await?;
        stage
            .run(&format!(
                "insert into reveille.workers (id, host, pid, version, queues, slots)
                 select n, 'host ' || n, n, '0',
                    array(select 'queue ' || q from generate_series(0, least({queues}, 20) - 1) as q), 16
                 from generate_series(1, 10) as n;
                 insert into reveille.jobs (queue, kind, priority, available_at, attempts, failures, errors)
                 select 'queue ' || n % {queues}, 'kind ' || n % 20, n % 4,
                    now() + make_interval(secs => n / 1000.0)
                        + case when n % 10 = 0 then '1 day' else '-1 day' end::interval,
                    (n <= {failing})::int, (n <= {failing})::int, case when n <= {failing} then {errors} end
                 from generate_series(1, {waiting}) as n;
                 insert into reveille.jobs (queue, kind, attempts, reserved_at, reserved_by)
                 select 'queue ' || n % {queues}, 'kind ' || n % 20, 1, now(), 1 + n % 10
                 from generate_series(1, {running}) as n;"
            ))
            .await?;
        stage.trigger(true).await?;
        stage
            .run(&format!(
                "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
                    available_at, created_at, reason, errors, finished_at)
                 select -n, 'queue ' || n % {queues}, 'kind ' || n % 20, '{{}}', 2, 20, 20, 20, now(), now(),
                    (array['failed', 'permanent', 'timed_out', 'lost', 'undecodable'])[1 + n % 5], {errors},
                    now() - make_interval(secs => n)
                 from generate_series(1, {dead}) as n;
                 insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures,
                    max_attempts, available_at, created_at, outcome, worker, wait_seconds, run_seconds)
                 select extract(epoch from now())::bigint / 86400 % 32, -n, 'queue ' || n % {queues},
                    'kind ' || n % 20, '{{}}', 2, 1, 0, 20, now(), now(), 'completed', 1, 0.001, 0.01
                 from generate_series(1, {finished}) as n;
                 insert into reveille.counters (queue, started_at, worker, completed, failed, wait_seconds, run_seconds)
                 select 'queue ' || q, date_trunc('minute', now()) - m * interval '1 minute', 0, 100, 1, 1, 1
                 from generate_series(0, {queues} - 1) as q, generate_series(6, {days} * 1440) as m
                 union all
                 select 'queue ' || q, date_bin('10 seconds', now(), 'epoch') - s * interval '10 seconds', 1 + q % 10,
                    16, 1, 1, 1
                 from generate_series(0, {queues} - 1) as q, generate_series(0, 35) as s;"
            ))
            .await?;
        stage.run(if *unvacuumed { "analyze" } else { "vacuum analyze" }).await
    }
}
