//! Metrics in Prometheus' format, and the dashboard and the page that name these metrics.

use std::collections::HashSet;

use reveille::admin::metrics::{METRICS, text};
use reveille::{Database, enqueue};

use crate::harness::{database, note, reporting_worker, start};
use crate::prometheus::{Samples, parse};

async fn samples(database: &Database) -> Samples {
    parse(&text(database).await.unwrap())
}

#[tokio::test]
async fn metrics_say_what_is_in_the_tables() {
    let database = database().await;
    let queue = "o'clock \"\\n\" \\\n🐘";
    let rows = "insert into reveille.jobs (kind, queue) select 'k', $1 from generate_series(1, 3)";
    database.client().await.execute(rows, &[&queue]).await.unwrap();
    let rows = "insert into reveille.workers (id, host, pid, version, queues, slots, last_seen_at, stopping) values
            (1, 'h', 1, '0', '{a,b}', 4, now(), false), (2, 'h', 2, '0', '{a}', 8, now(), true),
            (3, 'h', 3, '0', '{a}', 16, now() - '1 hour'::interval, false),
            (4, 'reveille listen', 4, '0', '{}', 0, now(), false);
        insert into reveille.jobs (kind, queue, available_at)
        values ('k', 'a', now() + '1 hour'), ('k', 'a', now() - '1 minute'::interval);
        insert into reveille.jobs (kind, queue, reserved_at, reserved_by, attempts)
        values ('k', 'a', now() - '1 hour'::interval, 1, 1);
        insert into reveille.queues (name, paused_at) values ('b', now());
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at, created_at, reason)
        select 100 + n, 'a', 'k' || n, '{}', 2, 1, 1, 1, now(), now(), case when n < 3 then 'lost' else 'failed' end
        from generate_series(1, 5) as n";
    database.run(rows).await;
    let samples = samples(&database).await;
    for (name, labels, value) in [
        ("reveille_up", &[][..], 1.0),
        ("reveille_jobs", &[("queue", queue), ("state", "ready")], 3.0),
        ("reveille_jobs", &[("queue", "a"), ("state", "ready")], 1.0),
        ("reveille_jobs", &[("queue", "a"), ("state", "delayed")], 1.0),
        ("reveille_jobs", &[("queue", "a"), ("state", "running")], 1.0),
        ("reveille_jobs_estimated", &[("queue", "a")], 0.0),
        ("reveille_queue_paused", &[("queue", "b")], 1.0),
        ("reveille_queue_paused", &[("queue", "a")], 0.0),
        ("reveille_queue_workers", &[("queue", "a")], 1.0),
        ("reveille_queue_workers", &[("queue", queue)], 0.0),
        ("reveille_dead_jobs", &[("queue", "a"), ("reason", "lost")], 2.0),
        ("reveille_dead_jobs", &[("queue", "a"), ("reason", "failed")], 3.0),
        ("reveille_workers", &[("state", "working")], 1.0),
        ("reveille_workers", &[("state", "stopping")], 1.0),
        ("reveille_workers", &[("state", "silent")], 1.0),
        ("reveille_worker_slots", &[], 4.0),
        ("reveille_worker_slots_used", &[], 1.0),
        ("reveille_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
    ] {
        assert_eq!(samples.of(name, labels), Some(value), "{name} {labels:?}");
    }
    let about = |name, expected| {
        let value = samples.of(name, &[("queue", "a")]).unwrap();
        assert!((expected..expected + 120.0).contains(&value), "{name} {value}");
    };
    about("reveille_oldest_ready_seconds", 60.0);
    about("reveille_longest_running_seconds", 3600.0);
    assert_eq!(samples.of("reveille_oldest_ready_seconds", &[("queue", "b")]), Some(0.0));
    assert!((0.0..0.5).contains(&samples.of("reveille_notification_queue_usage_ratio", &[]).unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_and_upkeep_changes_no_total() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    for _ in 0..5 {
        enqueue(&database.database, &note("x")).await.unwrap();
        reports.next().await;
    }
    database.run("insert into reveille.jobs (kind, payload, max_attempts) values ('note', '[1, 2]', 1)").await;
    database.until("select completed = 5 and failed = 1 from reveille.queue_totals").await;
    worker.stop().await;
    let before = samples(&database).await;
    let attempts = |outcome| before.of("reveille_attempts_total", &[("queue", "default"), ("outcome", outcome)]);
    assert_eq!((attempts("completed"), attempts("failed")), (Some(5.0), Some(1.0)));
    assert!(before.of("reveille_attempt_wait_seconds_total", &[("queue", "default")]).unwrap() > 0.0);
    // Moves the counters back by half an hour, and does the upkeep.
    database.run("update reveille.counters set started_at = started_at - '30 minutes'::interval").await;
    database.database.admin().prune().await.unwrap();
    let after = samples(&database).await;
    for ((name, labels), value) in before.0.iter().filter(|((name, _), _)| name.ends_with("_total")) {
        assert_eq!(after.0.get(&(name.clone(), labels.clone())), Some(value), "{name}");
    }
}

#[tokio::test]
async fn every_described_metric_is_exported() {
    let database = database().await;
    let rows = "insert into reveille.counters (queue, started_at, worker, completed) values ('q', now(), 1, 1);
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at, created_at, reason)
        values (1, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), 'lost');
        insert into reveille.kind_counters
        values ('q', 'k', '-infinity', 1, 0, 0, 0, array_fill(0, array[18]), array_fill(0, array[18]))";
    database.run(rows).await;
    let samples = samples(&database).await;
    let exported: HashSet<&str> = samples.0.keys().map(|(name, _)| metric_of(name)).collect();
    let described: HashSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(exported, described);
}

/// Returns the metric that a sample belongs to.
fn metric_of(sample: &str) -> &str {
    ["_bucket", "_count", "_sum"].iter().find_map(|suffix| sample.strip_suffix(suffix)).unwrap_or(sample)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buckets_of_a_histogram_count_the_shorter_times_too() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    for _ in 0..5 {
        enqueue(&database.database, &note("x")).await.unwrap();
        reports.next().await;
    }
    database.until("select count(*) = 5 from reveille.finished_jobs").await;
    worker.stop().await;
    let samples = samples(&database).await;
    let kind = [("queue", "default"), ("kind", "note")];
    assert_eq!(samples.of("reveille_kind_attempts_total", &[kind[0], kind[1], ("outcome", "completed")]), Some(5.0));
    for name in ["reveille_kind_wait_seconds", "reveille_kind_run_seconds"] {
        let bucket = |le| samples.of(&format!("{name}_bucket"), &[kind[0], kind[1], ("le", le)]).unwrap();
        assert_eq!(samples.of(&format!("{name}_count"), &kind), Some(5.0));
        assert!(samples.of(&format!("{name}_sum"), &kind).unwrap() > 0.0);
        assert_eq!((bucket("1800"), bucket("+Inf")), (5.0, 5.0));
        assert!(bucket("0.001") <= bucket("0.0025") && bucket("0.0025") <= bucket("1"));
    }
}

#[test]
fn the_dashboard_asks_only_for_exported_metrics() {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/running/grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&file).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let names = |text: &str| -> HashSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("reveille_")).map(str::to_owned).collect()
    };
    let is_known = |name: &String| METRICS.iter().any(|metric| metric.name == metric_of(name));
    let unknown = |text: &str| names(text).into_iter().find(|name| !is_known(name));
    for asked in &asked {
        assert!(!names(asked).is_empty() && unknown(asked).is_none(), "{asked}");
    }
    assert!(asked.len() > 10);
    assert!(panels.iter().all(|panel| panel["type"] == "row" || panel["datasource"]["uid"] == "${datasource}"));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["name"] == "datasource" && variable["type"] == "datasource"));
}

#[test]
fn the_page_names_each_metric_and_no_other() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/running/metrics.md")).unwrap();
    for metric in METRICS {
        assert!(page.contains(&format!("`{}", metric.name)), "{}", metric.name);
    }
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let roles = ["reveille_monitor", "reveille_admin"];
    for word in words.filter(|word| word.starts_with("reveille_") && !roles.contains(word)) {
        assert!(METRICS.iter().any(|metric| metric.name == metric_of(word)), "{word}");
    }
}
