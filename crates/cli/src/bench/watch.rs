//! Reports of a long bench every ten seconds: the size of the table of jobs, and the response times of the views.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stage::BenchStage;
use crate::Failure;
use crate::figures::rounded;

const EVERY: Duration = Duration::from_secs(10);

/// The views that count jobs.
const QUERIES: [(&str, &str); 5] = [
    ("queue_stats", "select * from reveille.queue_stats"),
    ("running_jobs", "select * from reveille.running_jobs"),
    ("worker_status", "select * from reveille.worker_status"),
    ("throughput", "select * from reveille.throughput"),
    ("queue_totals", "select * from reveille.queue_totals"),
];

/// Prints a report on standard error every ten seconds, and passes the report to `seen`, until the future is dropped.
/// `started` returns the number of jobs that have started so far.
pub async fn watch(
    stage: &BenchStage,
    started: impl Fn() -> usize,
    mut seen: impl FnMut(Value),
) -> Result<(), Failure> {
    let client = stage.client().await?;
    let (began, mut before) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(EVERY).await;
        let now = started();
        let size = "select pg_total_relation_size('reveille.jobs'), pg_stat_get_dead_tuples('reveille.jobs'::regclass)";
        let row = client.query_one(size, &[]).await?;
        let mut look = json!({
            "seconds": rounded(began.elapsed().as_secs_f64()),
            "per_second": rounded((now - before) as f64 / EVERY.as_secs_f64()),
            "table_bytes": row.get::<_, i64>(0),
            "dead_rows": row.get::<_, i64>(1),
        });
        before = now;
        for (name, sql) in QUERIES {
            let sent = Instant::now();
            client.query_typed(sql, &[]).await?;
            look[format!("{name}_ms")] = rounded(sent.elapsed().as_secs_f64() * 1000.0);
        }
        // The metrics read most of these views in one statement.
        let sent = Instant::now();
        reveille::admin::metrics::text(&stage.database).await?;
        look["metrics_ms"] = rounded(sent.elapsed().as_secs_f64() * 1000.0);
        say!("{look}");
        seen(look);
    }
}
