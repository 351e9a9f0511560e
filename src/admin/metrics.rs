//! Metrics in Prometheus' text format, for programs that serve HTTP already; `reveille metrics` serves them by itself.
//!
//! ```no_run
//! # async fn example() -> reveille::Result<()> {
//! let database = reveille::Database::connect("postgres://localhost/shop").await?;
//! let page = reveille::admin::metrics::text(&database).await?; // with the content type `reveille::admin::metrics::CONTENT_TYPE`
//! # drop(page);
//! # Ok(())
//! # }
//! ```

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::admin::{Record, as_bytes, records};
use crate::database::Database;
use crate::error::{Error, Result};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is exported, in this order.
pub const METRICS: [Metric; 16] = [
    gauge("reveille_up", "Whether the database answers."),
    gauge("reveille_build_info", "Always 1; the label says which version exports."),
    gauge("reveille_jobs", "Live jobs by state: ready, delayed, running."),
    gauge("reveille_jobs_estimated", "Whether ready or delayed is an estimate, as it is above 10,000 a queue."),
    gauge("reveille_oldest_ready_seconds", "How long the oldest ready job has been due; 0 if none is."),
    gauge("reveille_longest_running_seconds", "How long the longest running job has run; 0 if none runs."),
    gauge("reveille_queue_paused", "Whether the queue is paused."),
    gauge("reveille_queue_workers", "Live workers of the queue."),
    gauge("reveille_dead_jobs", "Dead jobs by why they died."),
    counter("reveille_attempts_total", "Ended attempts by outcome: completed, failed."),
    counter("reveille_attempt_wait_seconds_total", "Time that ended attempts waited, from being due to being started."),
    counter("reveille_attempt_run_seconds_total", "Time that ended attempts ran."),
    gauge("reveille_workers", "Worker processes by state: working, stopping, silent for 30 seconds."),
    gauge("reveille_worker_slots", "Slots of the working workers."),
    gauge("reveille_worker_slots_used", "Jobs that the working workers hold."),
    gauge("reveille_notification_queue_usage_ratio", "How full the server's queue of notifications is, 0 to 1."),
];

/// A metric: what its samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, by Prometheus' conventions.
    pub name: &'static str,
    /// `gauge`, or `counter`: it only grows.
    pub kind: &'static str,
    /// One sentence.
    pub help: &'static str,
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "gauge", help }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "counter", help }
}

/// One line of the text.
struct Sample {
    name: String,
    labels: Map<String, Value>,
    value: f64,
}

/// All metrics as Prometheus reads them, of one moment; asks the database, for the views alone, so the role
/// `reveille_monitor` will do.
///
/// # Errors
/// What the server says: serve these as [`down`] with status 503.
pub async fn text(database: &Database) -> Result<String> {
    let sql = as_bytes!("select to_jsonb(s) as record from (\n", include_str!("../../sql/metrics.sql"), "\n) as s");
    let rows = records(&database.read("read metrics", sql, &[]).await?)?;
    let mut samples = rows.iter().map(sample).collect::<Result<Vec<Sample>>>()?;
    samples.push(Sample { name: "reveille_up".into(), labels: Map::new(), value: 1.0 });
    let version = Map::from_iter([("version".to_owned(), Value::from(env!("CARGO_PKG_VERSION")))]);
    samples.push(Sample { name: "reveille_build_info".into(), labels: version, value: 1.0 });
    Ok(page(&samples))
}

/// The page for when the database does not answer: `reveille_up 0`, and why.
pub fn down(why: impl std::fmt::Display) -> String {
    let why: String = why.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# {why}\n{}", page(&[Sample { name: "reveille_up".into(), labels: Map::new(), value: 0.0 }]))
}

fn sample(row: &Record) -> Result<Sample> {
    // What is no finite number stands in JSON as a string: "NaN", "Infinity".
    let value = row.get("value").unwrap_or_default().trim_matches('"').parse();
    let value = value.map_err(|_| Error::unavailable("the server's answer is no metric"))?;
    Ok(Sample { name: row.decode("name")?, labels: row.decode("labels")?, value })
}

/// Samples under the heads of their metrics.
fn page(samples: &[Sample]) -> String {
    let mut page = String::new();
    for Metric { name, kind, help } in METRICS {
        let mut samples = samples.iter().filter(|sample| sample.name == name).peekable();
        if samples.peek().is_none() {
            continue;
        }
        // Writing into a string cannot fail.
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for sample in samples {
            let _ = writeln!(page, "{name}{} {}", labels(&sample.labels), sample.value);
        }
    }
    page
}

/// `{queue="mail",state="ready"}`; nothing if there are none.
fn labels(labels: &Map<String, Value>) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let label =
        |(name, value): (&String, &Value)| format!("{name}=\"{}\"", escaped(value.as_str().unwrap_or_default()));
    format!("{{{}}}", labels.iter().map(label).collect::<Vec<_>>().join(","))
}

/// A label's value, which may be anything but these three.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, queue: &str, value: f64) -> Sample {
        Sample { name: name.into(), labels: Map::from_iter([("queue".to_owned(), Value::from(queue))]), value }
    }

    #[test]
    fn samples_stand_under_the_head_of_their_metric() {
        let samples = [sample("reveille_queue_paused", "a", 1.0), sample("reveille_jobs", "b", 12345678.0)];
        let expected = "# HELP reveille_jobs Live jobs by state: ready, delayed, running.\n# TYPE reveille_jobs gauge\n\
            reveille_jobs{queue=\"b\"} 12345678\n\
            # HELP reveille_queue_paused Whether the queue is paused.\n# TYPE reveille_queue_paused gauge\n\
            reveille_queue_paused{queue=\"a\"} 1\n";
        assert_eq!(page(&samples), expected);
    }

    #[test]
    fn a_label_keeps_to_its_line_and_its_quotes() {
        let page = page(&[sample("reveille_jobs", "a\\b\"c\nd", 0.25)]);
        assert!(page.ends_with("reveille_jobs{queue=\"a\\\\b\\\"c\\nd\"} 0.25\n"), "{page}");
    }

    #[test]
    fn why_the_database_is_away_fits_a_comment() {
        let page = down("no\nserver");
        assert!(page.starts_with("# no server\n") && page.ends_with("\nreveille_up 0\n"), "{page}");
    }
}
