//! Metrics in Prometheus' text format, for programs that serve HTTP. The command `reveille metrics` serves the same
//! metrics.
//!
//! ```no_run
//! # async fn example() -> reveille::Result<()> {
//! let database = reveille::Database::connect("postgres://localhost/shop").await?;
//! let page = reveille::admin::metrics::text(&database).await?; // Serve it with the type `metrics::CONTENT_TYPE`.
//! # drop(page);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::admin::{Record, as_bytes, records};
use crate::database::Database;
use crate::error::{Error, Result};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics, in the order of the text.
pub const METRICS: [Metric; 19] = [
    gauge("reveille_up", "Whether the database answers."),
    gauge("reveille_build_info", "Always 1; the label has the version of the exporter."),
    gauge("reveille_jobs", "Jobs by state: ready, delayed, running, parked, blocked."),
    gauge("reveille_jobs_estimated", "Whether ready or delayed is an estimate. Each is exact up to 10,000."),
    gauge("reveille_oldest_ready_seconds", "How long the oldest ready job has been due; 0 if none is."),
    gauge("reveille_longest_running_seconds", "How long the longest running job has run; 0 if none runs."),
    gauge("reveille_queue_paused", "Whether the queue is paused."),
    gauge("reveille_queue_workers", "Live workers of the queue."),
    gauge("reveille_dead_jobs", "Dead jobs by the reason that they are dead for."),
    counter("reveille_attempts_total", "Ended attempts by outcome: completed, failed."),
    counter("reveille_attempt_wait_seconds_total", "Time that ended attempts waited, from being due to being started."),
    counter("reveille_attempt_run_seconds_total", "Time that ended attempts ran."),
    counter("reveille_kind_attempts_total", "Ended attempts by kind and outcome, as workers add them every 10 s."),
    histogram("reveille_kind_wait_seconds", "Time that ended attempts waited, from being due to being started."),
    histogram("reveille_kind_run_seconds", "Time that ended attempts ran."),
    gauge("reveille_workers", "Worker processes by state: working, stopping, silent for 30 seconds."),
    gauge("reveille_worker_slots", "Slots of the working workers."),
    gauge("reveille_worker_slots_used", "Jobs that the working workers hold."),
    gauge("reveille_notification_queue_usage_ratio", "How full the server's notification buffer is, 0 to 1."),
];

/// A metric: the name, kind and meaning of its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// The name, by Prometheus' conventions.
    pub name: &'static str,
    /// The kind, which says whether the value can fall.
    pub kind: MetricKind,
    /// The meaning, in one sentence.
    pub help: &'static str,
}

/// The kinds of metrics. [`Display`](fmt::Display) has Prometheus' names: `gauge`, `counter` and `histogram`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// The value rises and falls.
    Gauge,
    /// The value only grows.
    Counter,
    /// The metric has the samples `_bucket`, `_count` and `_sum`, which only grow.
    Histogram,
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
            MetricKind::Histogram => "histogram",
        })
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, help }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, help }
}

type Labels = BTreeMap<String, String>;

/// One line of the text.
struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

/// Returns all metrics as one snapshot in Prometheus' text format.
///
/// This reads only the views, so the role `reveille_monitor` suffices.
///
/// # Errors
/// The server's error. After an error, serve [`down`] with status 503.
pub async fn text(database: &Database) -> Result<String> {
    let sql = as_bytes!("select to_jsonb(s) as record from (\n", include_str!("../../sql/metrics.sql"), "\n) as s");
    let rows = records(&database.read("read metrics", sql, &[]).await?)?;
    let mut samples = rows.iter().map(sample).collect::<Result<Vec<Sample>>>()?;
    samples.push(Sample { name: "reveille_up".into(), labels: Labels::new(), value: 1.0 });
    let version = Labels::from([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    samples.push(Sample { name: "reveille_build_info".into(), labels: version, value: 1.0 });
    Ok(page(&samples))
}

/// Returns the text to serve while the database does not answer: `reveille_up 0`, and the reason in a comment.
pub fn down(why: impl fmt::Display) -> String {
    let why: String = why.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# {why}\n{}", page(&[Sample { name: "reveille_up".into(), labels: Labels::new(), value: 0.0 }]))
}

fn sample(row: &Record) -> Result<Sample> {
    // JSON has no number for NaN and infinity: Postgres writes the strings "NaN" and "Infinity".
    let value = row.get("value").unwrap_or_default().trim_matches('"').parse();
    let value = value.map_err(|_| Error::unavailable("cannot read metrics: the server's answer has no number"))?;
    Ok(Sample { name: row.decode("name")?, labels: row.decode("labels")?, value })
}

/// Returns the text: for each metric its help and type, then its samples.
fn page(samples: &[Sample]) -> String {
    let mut page = String::new();
    for Metric { name, kind, help } in METRICS {
        let mut samples = samples.iter().filter(|sample| metric_of(&sample.name) == name).peekable();
        if samples.peek().is_none() {
            continue;
        }
        // Writing into a string cannot fail.
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for sample in samples {
            let _ = writeln!(page, "{}{} {}", sample.name, labels(&sample.labels), sample.value);
        }
    }
    page
}

/// Returns the name of the metric that a sample belongs to.
fn metric_of(sample: &str) -> &str {
    let suffix = ["_bucket", "_count", "_sum"].into_iter().find_map(|suffix| sample.strip_suffix(suffix));
    suffix.unwrap_or(sample)
}

/// Writes labels as `{queue="mail",state="ready"}`, or nothing if there are no labels.
fn labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", labels.join(","))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, queue: &str, value: f64) -> Sample {
        Sample { name: name.into(), labels: Labels::from([("queue".to_owned(), queue.to_owned())]), value }
    }

    #[test]
    fn samples_stand_below_the_head_of_their_metric() {
        let samples = [sample("reveille_queue_paused", "a", 1.0), sample("reveille_jobs", "b", 12345678.0)];
        let expected = "# HELP reveille_jobs Jobs by state: ready, delayed, running, parked, blocked.\n\
            # TYPE reveille_jobs gauge\n\
            reveille_jobs{queue=\"b\"} 12345678\n\
            # HELP reveille_queue_paused Whether the queue is paused.\n# TYPE reveille_queue_paused gauge\n\
            reveille_queue_paused{queue=\"a\"} 1\n";
        assert_eq!(page(&samples), expected);
    }

    #[test]
    fn a_label_with_quotes_and_newlines_is_escaped() {
        let page = page(&[sample("reveille_jobs", "a\\b\"c\nd", 0.25)]);
        assert!(page.ends_with("reveille_jobs{queue=\"a\\\\b\\\"c\\nd\"} 0.25\n"), "{page}");
    }

    #[test]
    fn the_reason_for_being_down_fits_on_one_line() {
        let page = down("no\nserver");
        assert!(page.starts_with("# no server\n") && page.ends_with("\nreveille_up 0\n"), "{page}");
    }
}
