//! A lively mix of jobs, for a look at the dashboard: kinds that are quick, slow, limited, failing or recurring.

use std::time::Duration;

use reveille::admin::QueueSettings;
use reveille::enqueue::enqueue_all;
use reveille::job::{NewJob, Payload, Priority, RetryPolicy};
use reveille::schedule::Schedule;
use reveille::{Context, Database, Outcome as JobOutcome, Worker};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::flows;
use crate::{Failure, Outcome};

/// A kind of job of the mix.
struct Kind {
    name: &'static str,
    queue: &'static str,
    /// How many jobs are enqueued a minute.
    a_minute: u32,
    /// The shortest and the longest run in milliseconds.
    runs: (u64, u64),
    /// How many of 1,000 attempts fail, and with what error.
    fails: (u32, &'static str),
}

const KINDS: [Kind; 9] = [
    Kind {
        name: "send_welcome",
        queue: "mail",
        a_minute: 400,
        runs: (5, 60),
        fails: (4, "451 4.7.1 greylisted, please try again later"),
    },
    Kind {
        name: "send_newsletter",
        queue: "mail",
        a_minute: 90,
        runs: (20, 200),
        fails: (15, "the template lacks the variable `first_name`"),
    },
    Kind {
        name: "thumbnail",
        queue: "media",
        a_minute: 500,
        runs: (10, 120),
        fails: (3, "cannot decode the image: unexpected end of file"),
    },
    Kind {
        name: "transcode",
        queue: "media",
        a_minute: 12,
        runs: (4_000, 25_000),
        fails: (30, "ffmpeg ended with status 1"),
    },
    Kind {
        name: "charge_card",
        queue: "billing",
        a_minute: 60,
        runs: (150, 900),
        fails: (60, "the card was declined: insufficient funds"),
    },
    Kind {
        name: "call_webhook",
        queue: "webhooks",
        a_minute: 120,
        runs: (30, 1_500),
        fails: (150, "https://partner.example answered 503 Service Unavailable"),
    },
    Kind {
        name: "sync_inventory",
        queue: "default",
        a_minute: 40,
        runs: (200, 1_200),
        fails: (10, "the lock of the warehouse timed out"),
    },
    // Jobs of workflows.
    Kind { name: "extract_rows", queue: "default", a_minute: 0, runs: (2_000, 7_000), fails: (0, "") },
    Kind { name: "join_rows", queue: "default", a_minute: 0, runs: (4_000, 9_000), fails: (0, "") },
];

/// How often the producer enqueues.
const EVERY: Duration = Duration::from_millis(500);

/// Enqueues and works the mix until `stop`.
pub async fn run(database: &Database, stop: CancellationToken) -> Outcome {
    set_up(database).await?;
    flows::set_up(database).await?;
    let policy = RetryPolicy::exponential(Duration::from_secs(2), Duration::from_secs(60));
    let worker = |queues: &[(&str, usize)]| {
        let builder = Worker::builder(database.clone()).handle_any(work, policy.clone());
        queues.iter().fold(builder, |builder, (queue, slots)| builder.queue(*queue, *slots)).build()
    };
    let workers = [
        worker(&[("default", 10), ("mail", 8), ("webhooks", 6)])?,
        worker(&[("mail", 4), ("media", 8), ("billing", 4), ("reports", 2)])?,
    ];
    let produce = async {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            enqueue_all(database, &some_jobs()?).await?;
        }
        Ok::<_, reveille::Error>(())
    };
    let [one, other] = workers.map(|worker| worker.run_until(stop.clone().cancelled_owned()));
    futures::try_join!(produce, flows::produce(database, &stop), one, other)?;
    Ok(())
}

/// Sets limits, adds schedules and leaves some jobs for later.
async fn set_up(database: &Database) -> Result<(), Failure> {
    let admin = database.admin();
    admin.set_queue("billing", QueueSettings::new().max_running_per_key(1)).await?;
    admin.set_queue("media", QueueSettings::new().max_running(8)).await?;
    let report = |name| {
        let job = NewJob::new("build_report", Payload::encode(&json!({ "report": name }))?);
        Ok::<_, reveille::Error>(job.queue("reports"))
    };
    let in_zone = "Europe/Berlin";
    admin.add_schedule(&Schedule::cron("nightly report", "0 3 * * *", &report("sales")?)?.time_zone(in_zone)).await?;
    admin
        .add_schedule(&Schedule::cron("weekly invoice", "30 6 * * mon", &report("invoices")?)?.time_zone(in_zone))
        .await?;
    admin.add_schedule(&Schedule::every("refresh search", Duration::from_secs(60), &report("search")?)?).await?;
    let reminder = |n: u64| {
        let job =
            NewJob::new("send_reminder", Payload::encode(&json!({ "user_id": n }))?).queue("mail").tag("reminder");
        Ok(job.delay(Duration::from_secs(60 * n)))
    };
    enqueue_all(database, &(1..=180).map(reminder).collect::<reveille::Result<Vec<_>>>()?).await?;
    Ok(())
}

/// Returns the jobs of one round: of each kind about as many as come in the time of a round.
fn some_jobs() -> reveille::Result<Vec<NewJob>> {
    let mut jobs = Vec::new();
    for kind in &KINDS {
        let expected = f64::from(kind.a_minute) * EVERY.as_secs_f64() / 60.0;
        let number = expected as u32 + u32::from(fastrand::f64() < expected.fract());
        for _ in 0..number {
            let user = fastrand::u32(1..5_000);
            let mut job = NewJob::new(kind.name, payload_of(kind.name, user)?).queue(kind.queue).max_attempts(4);
            if kind.name == "charge_card" {
                job = job.key(format!("customer-{}", user % 40)).priority(Priority::High);
            }
            if kind.name == "send_newsletter" {
                job = job.tag("campaign-12").priority(Priority::Low);
            }
            jobs.push(job);
        }
    }
    Ok(jobs)
}

fn payload_of(kind: &str, user: u32) -> reveille::Result<Payload> {
    Payload::encode(&match kind {
        "thumbnail" => json!({ "image": format!("uploads/{user}.jpg"), "width": 320, "height": 240 }),
        "transcode" => json!({ "video": format!("uploads/{user}.mov"), "codec": "av1", "seconds": user % 900 }),
        "charge_card" => json!({ "customer": user % 40, "cents": 500 + user, "currency": "EUR" }),
        "call_webhook" => {
            json!({ "url": format!("https://partner.example/hooks/{}", user % 12), "event": "order.paid" })
        }
        "sync_inventory" => json!({ "warehouse": user % 6, "items": user % 300 }),
        _ => json!({ "user_id": user, "locale": if user.is_multiple_of(3) { "de" } else { "en" } }),
    })
}

/// Works any job of the mix: takes some time, and sometimes fails.
async fn work(context: Context) -> JobOutcome {
    match context.job().kind.as_str() {
        flows::DOOMED => return JobOutcome::Dead("line 317: the price is no number".into()),
        flows::CHECKOUT => {
            return match flows::check_out(&context).await {
                Ok(()) => JobOutcome::Complete,
                Err(error) => JobOutcome::Fail(error.to_string()),
            };
        }
        _ => {}
    }
    let kind = KINDS.iter().find(|kind| kind.name == context.job().kind);
    let (shortest, longest) = kind.map_or((100, 2_000), |kind| kind.runs);
    let runs = Duration::from_millis(fastrand::u64(shortest..=longest));
    let steps = if runs > Duration::from_secs(3) { 10 } else { 1 };
    for step in 1..=steps {
        tokio::time::sleep(runs / steps).await;
        if steps > 1 {
            let _ = context.progress(&json!({ "percent": step * 100 / steps })).await;
        }
    }
    match kind {
        Some(kind) if fastrand::u32(0..1_000) < kind.fails.0 => match kind.name {
            "charge_card" if fastrand::bool() => JobOutcome::Dead("the card has expired".into()),
            _ => JobOutcome::Fail(kind.fails.1.into()),
        },
        _ => JobOutcome::Complete,
    }
}
