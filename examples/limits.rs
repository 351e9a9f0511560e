//! Limits: how many jobs of a key run at once, and how many jobs start in a second, in all workers together.
//!
//! Run it: `cargo run --example limits`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! max_running_per_key = 2, with 2 workers of 8 slots:
//! ada: 6 jobs, at most 2 at once
//! grace: 6 jobs, at most 2 at once
//! rate_limit = 20: the last of 10 jobs has started … ms after the first
//! ```
//!
//! The guide's page: `docs/features/limits.md`

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reveille::admin::QueueSettings;
use reveille::enqueue::enqueue_all;
use reveille::job::NewJob;
use reveille::{Context, Job, State, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

#[derive(Serialize, Deserialize)]
struct Render;

impl Job for Render {
    const KIND: &'static str = "render";
    const QUEUE: &'static str = "limits";
}

#[derive(Default)]
struct Running {
    starts: Vec<Instant>,
    now: u32,
    peak: u32,
}

/// The running jobs of each key.
#[derive(Clone, Default)]
struct Gauge(Arc<Mutex<BTreeMap<String, Running>>>);

impl Gauge {
    fn change<T>(&self, key: &str, change: impl FnOnce(&mut Running) -> T) -> T {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.to_owned()).or_default())
    }
}

async fn render(_: Render, State(gauge): State<Gauge>, context: Context) {
    let key = context.job().key.clone().unwrap_or_default();
    gauge.change(&key, |running| {
        running.starts.push(Instant::now());
        running.now += 1;
        running.peak = running.peak.max(running.now);
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    gauge.change(&key, |running| running.now -= 1);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let admin = database.admin();
    admin.set_queue("limits", QueueSettings::new().max_running_per_key(2).rate_limit(None)).await?;
    let gauge = Gauge::default();
    let (stop, stopped) = watch::channel(());
    let mut workers = Vec::new();
    for _ in 0..2 {
        let worker =
            Worker::builder(database.clone()).queue("limits", 8).state(gauge.clone()).handle(render).build()?;
        let mut stopped = stopped.clone();
        workers.push(tokio::spawn(worker.run_until(async move { stopped.changed().await })));
    }

    println!("max_running_per_key = 2, with 2 workers of 8 slots:");
    let render = NewJob::of(&Render)?;
    let jobs = [vec![render.clone().key("ada"); 6], vec![render.clone().key("grace"); 6]].concat();
    enqueue_all(&database, &jobs).await?;
    admin.wait_until_drained("limits", |_| ()).await?;
    for key in ["ada", "grace"] {
        gauge.change(key, |running| println!("{key}: {} jobs, at most {} at once", running.starts.len(), running.peak));
    }

    admin.set_queue("limits", QueueSettings::new().max_running_per_key(None).rate_limit(20)).await?;
    enqueue_all(&database, &vec![render; 10]).await?;
    admin.wait_until_drained("limits", |_| ()).await?;
    // These jobs have no key.
    let starts = gauge.change("", |running| std::mem::take(&mut running.starts));
    if let [first, .., last] = *starts {
        let after = (last - first).as_millis();
        println!("rate_limit = 20: the last of {} jobs has started {after} ms after the first", starts.len());
    }

    drop(stop);
    for worker in workers {
        worker.await??;
    }
    Ok(())
}
