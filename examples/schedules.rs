//! Schedules: jobs that recur by a cron text in a time zone, or at a fixed interval. A worker needs the feature
//! `schedules`.
//!
//! Run it: `cargo run --example schedules`, at `DATABASE_URL` or on a throw-away server. It prints:
//!
//! ```text
//! the next night in Berlin comes after 24 hours
//! the next night in Berlin comes after 23 hours
//! the next night in Berlin comes after 24 hours
//! fired by example-pulse
//! fired by example-pulse
//! fired by hand: example-nightly
//! removed example-nightly: 0 3 * * * in Europe/Berlin
//! removed example-pulse: every 00:00:00.2 in UTC
//! ```
//!
//! The guide's page: `docs/features/schedules.md`

mod common;

use std::time::{Duration, SystemTime};

use reveille::schedule::{CatchUp, Schedule};
use reveille::{Context, Job, State, Worker};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Report {
    pages: u32,
}

impl Job for Report {
    const KIND: &'static str = "report";
    const QUEUE: &'static str = "schedules";
}

/// The metadata of a schedule's job has the schedule's name, and the tick as a time.
async fn report(_: Report, State(fired): State<mpsc::Sender<String>>, context: Context) -> reveille::Result<()> {
    let schedule: Option<String> = context.member("schedule")?;
    // The receiver may be gone. The job is completed all the same.
    let _ = fired.send(schedule.unwrap_or_default()).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let nightly = Schedule::cron("example-nightly", "0 3 * * *", &Report { pages: 100 })?
        .time_zone("Europe/Berlin")
        .catch_up(CatchUp::One);
    // From noon of 26 March 2026. In the night of 29 March, clocks go forward.
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_774_526_400);
    let ticks: Vec<SystemTime> = nightly.ticks_after(noon)?.take(4).collect();
    for (earlier, later) in ticks.iter().zip(&ticks[1..]) {
        println!("the next night in Berlin comes after {} hours", later.duration_since(*earlier)?.as_secs() / 3600);
    }

    let (fired, mut firings) = mpsc::channel::<String>(100);
    let pulse = Schedule::every("example-pulse", Duration::from_millis(200), &Report { pages: 1 })?;
    let worker = Worker::builder(database.clone()).queue("schedules", 4).state(fired).handle(report);
    let worker = worker.schedule(nightly).schedule(pulse).build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let working = tokio::spawn(worker.run_until(stopped));
    for _ in 0..2 {
        println!("fired by {}", firings.recv().await.ok_or("the worker runs")?);
    }

    let admin = database.admin();
    admin.pause_schedule("example-pulse").await?;
    admin.trigger_schedule("example-nightly").await?;
    while let Some(schedule) = firings.recv().await {
        if schedule == "example-nightly" {
            println!("fired by hand: {schedule}");
            break;
        }
    }
    drop(stop);
    working.await??;

    // A schedule goes on until it is removed, even if no worker declares it any more.
    for schedule in admin.schedules().await? {
        if schedule.name.starts_with("example-") && admin.remove_schedule(&schedule.name).await? {
            println!("removed {}: {} in {}", schedule.name, schedule.timing, schedule.time_zone);
        }
    }
    Ok(())
}
