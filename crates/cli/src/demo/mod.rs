//! `demo`: enqueues a realistic mix of jobs, works them, and sums up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use reveille::admin::View;
use reveille::dev::Server;
use reveille::{
    Attempt, Database, Job, Outcome as JobOutcome, State, Worker, enqueue,
    enqueue::enqueue_all,
    job::{Priority, RetryPolicy},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::dashboard::DashboardCommand;
use crate::figures::{percentile, rounded};
use crate::progress::Progress;
use crate::work::stop_signal;
use crate::{Failure, Outcome, output};

mod flows;
mod lively;

/// The longest wait for the demo's jobs. It is long enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct DemoCommand {
    /// Print only one JSON object at the end.
    #[arg(long)]
    json: bool,
    /// Keep the throw-away server running, and print its address.
    #[arg(long)]
    keep: bool,
    /// Keep a lively mix of jobs running, and serve the dashboard. Ctrl-C ends it.
    #[arg(long, conflicts_with_all = ["json", "keep"])]
    dashboard: bool,
    /// Open the dashboard in a browser.
    #[arg(long, requires = "dashboard")]
    open: bool,
}

/// A quick job. The demo measures its latency.
#[derive(Serialize, Deserialize)]
struct Thumbnail {
    image: u64,
    /// The time of the enqueue, in microseconds since the demo began; `None` if the job's latency does not count.
    sent_at: Option<u64>,
}
impl Job for Thumbnail {
    const KIND: &'static str = "thumbnail";
    const QUEUE: &'static str = "demo";
}

/// A slow job of low priority.
#[derive(Serialize, Deserialize)]
struct Report {
    month: u32,
}
impl Job for Report {
    const KIND: &'static str = "report";
    const QUEUE: &'static str = "demo";
    const PRIORITY: Priority = Priority::Low;
}

/// A job that fails twice and then succeeds.
#[derive(Serialize, Deserialize)]
struct Webhook {
    url: String,
}
impl Job for Webhook {
    const KIND: &'static str = "webhook";
    const QUEUE: &'static str = "demo-outside";
    fn retry_policy() -> RetryPolicy {
        RetryPolicy::exponential(Duration::from_millis(200), Duration::from_secs(1))
    }
}

/// A job that cannot succeed and becomes a dead job.
#[derive(Serialize, Deserialize)]
struct Charge {
    card: String,
}
impl Job for Charge {
    const KIND: &'static str = "charge_card";
    const QUEUE: &'static str = "demo-outside";
    const PRIORITY: Priority = Priority::Urgent;
    const MAX_ATTEMPTS: u32 = 3;
    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::from_millis(300))
    }
}

/// A job that is enqueued in the transaction that creates the job's user.
#[derive(Serialize, Deserialize)]
struct Welcome {
    user_id: i64,
}
impl Job for Welcome {
    const KIND: &'static str = "welcome";
    const QUEUE: &'static str = "demo-outside";
    const PRIORITY: Priority = Priority::High;
}

/// The state that the demo's handlers share.
struct DemoState {
    began: Instant,
    /// The measured latencies in milliseconds.
    waits: Mutex<Vec<f64>>,
}

async fn thumbnail(job: Thumbnail, State(demo): State<Arc<DemoState>>) {
    if let Some(sent_at) = job.sent_at {
        let waited = demo.began.elapsed() - Duration::from_micros(sent_at);
        demo.waits.lock().unwrap_or_else(PoisonError::into_inner).push(waited.as_secs_f64() * 1000.0);
    }
}

async fn report(_: Report) {
    tokio::time::sleep(Duration::from_millis(400)).await;
}

async fn webhook(job: Webhook, attempt: Attempt) -> Result<(), String> {
    if attempt.failures < 2 {
        return Err(format!("{} answered 503 Service Unavailable", job.url));
    }
    Ok(())
}

async fn charge(job: Charge) -> JobOutcome {
    if job.card == "expired" {
        JobOutcome::Dead("the card has expired".into())
    } else {
        JobOutcome::Fail("the card was declined".into())
    }
}

async fn welcome(_: Welcome) {}

impl DemoCommand {
    pub async fn run(self, connection: &Connection) -> Outcome {
        let server = match connection.url_argument() {
            Some(_) => None,
            None => Some(Server::start()?),
        };
        let database = match &server {
            Some(server) => connection.open_throw_away(server.url("postgres")).await?,
            None => connection.open().await?,
        };
        database.migrate().await?;
        if self.dashboard {
            return self.show(database).await;
        }

        let summary = self.play(&database).await?;
        if self.json {
            output::line(summary.as_json())?;
        } else {
            summary.print(&database, server.is_some(), self.keep).await?;
        }
        match server {
            Some(server) if self.keep => {
                let kept = server.keep()?;
                say!("the server goes on: {}", kept.url);
                say!("stop it with: {}", kept.stop_command);
            }
            server => drop(server),
        }
        if summary.enqueued == summary.counts.finished + summary.counts.dead { Ok(()) } else { Err(Failure::NotFound) }
    }

    /// Serves the dashboard over a lively mix of jobs.
    async fn show(self, database: Database) -> Outcome {
        let stop = CancellationToken::new();
        let dashboard = DashboardCommand::of_demo(self.open).await;
        let served = dashboard.start(database.clone(), stop.clone()).await?;
        say!("a lively mix of jobs is running; Ctrl-C ends it");
        let mut working = std::pin::pin!(lively::run(&database, stop.clone()));
        let ended = tokio::select! {
            ended = working.as_mut() => ended,
            () = stop_signal() => {
                stop.cancel();
                working.await
            }
        };
        stop.cancel();
        served.await.map_err(|error| error.to_string())?;
        ended
    }

    async fn play(&self, database: &Database) -> Result<Summary, Failure> {
        let demo = Arc::new(DemoState { began: Instant::now(), waits: Mutex::default() });
        let worker = Worker::builder(database.clone())
            .state(Arc::clone(&demo))
            .queue("demo", 8)
            .queue("demo-outside", 4)
            .handle(thumbnail)
            .handle(report)
            .handle(webhook)
            .handle(charge)
            .handle(welcome)
            .build()?;
        let stop = CancellationToken::new();
        let working = tokio::spawn(worker.run_until(stop.clone().cancelled_owned()));

        let progress = Progress::start("demo", self.json);
        let ids = enqueue_mix(database, demo.began).await?;
        let began = demo.began;
        let enqueued = ids.len() as u64;
        let mut counts = Counts::default();
        while began.elapsed() < DEADLINE {
            counts = Counts::of(database, &ids).await?;
            progress.note(counts.of_all(enqueued));
            if counts.finished + counts.dead == enqueued || working.is_finished() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let seconds = began.elapsed().as_secs_f64();
        drop(progress);
        if !self.json {
            say!("{}", counts.of_all(enqueued));
        }
        stop.cancel();
        working.await.map_err(|error| error.to_string())??;
        let mut waits = std::mem::take(&mut *demo.waits.lock().unwrap_or_else(PoisonError::into_inner));
        waits.sort_by(f64::total_cmp);
        Ok(Summary { enqueued, counts, waits, seconds })
    }
}

/// Enqueues the mix of jobs in all possible ways. Returns the jobs' ids.
async fn enqueue_mix(database: &Database, began: Instant) -> Result<Vec<i64>, Failure> {
    let mut ids = Vec::new();
    let mut client = database.client().await?;

    // First way: in the transaction that writes the user. If the transaction is rolled back, the job never runs.
    for (user_id, stays) in [(1, true), (2, true), (3, false)] {
        let tx = client.transaction().await?;
        tx.batch_execute("create temporary table users (id bigint) on commit drop").await?;
        tx.query_typed("insert into users values ($1)", &[(&user_id, Type::INT8)]).await?;
        let job = enqueue(&tx, &Welcome { user_id }).await?;
        if stays {
            tx.commit().await?;
            ids.push(job.id);
        } else {
            tx.rollback().await?;
        }
    }

    // Second way: in bulk. All of the jobs are enqueued or none.
    let images: Vec<Thumbnail> = (0..200).map(|image| Thumbnail { image, sent_at: None }).collect();
    ids.extend(enqueue_all(database, &images).await?.iter().map(|job| job.id));
    let reports: Vec<Report> = (1..=6).map(|month| Report { month }).collect();
    ids.extend(enqueue_all(database, &reports).await?.iter().map(|job| job.id));

    // Third way: by plain SQL, as any program can. The payload of the last job does not fit its kind.
    let plain = "insert into reveille.jobs (queue, kind, payload)
        select 'demo-outside', 'webhook', jsonb_build_object('url', 'https://example.com/' || n)
        from generate_series(1, 8) as n
        union all select 'demo', 'report', '{\"month\": \"May\"}'
        returning id";
    let plain = plain.replace("reveille.", &format!("{}.", database.schema_name()));
    ids.extend(client.query_typed(&plain, &[]).await?.iter().map(|row| row.get::<_, i64>("id")));

    for card in ["stolen", "expired"] {
        ids.push(enqueue(database, &Charge { card: card.into() }).await?.id);
    }
    ids.push(enqueue(database, &Report { month: 12 }).delay(Duration::from_secs(2)).await?.id);

    // Fourth way: one by one, like web requests, once the bulk is done. The latencies of these jobs are measured.
    let bulk = "select exists (select from reveille.jobs where kind = 'thumbnail')";
    let bulk = bulk.replace("reveille.", &format!("{}.", database.schema_name()));
    while client.query_typed_one(&bulk, &[]).await?.get(0) && began.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for image in 0..200 {
        let sent_at = Some(began.elapsed().as_micros() as u64);
        ids.push(enqueue(database, &Thumbnail { image, sent_at }).queue("demo").await?.id);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(ids)
}

/// The numbers of the demo's jobs that have ended, by state.
#[derive(Clone, Copy, Default)]
struct Counts {
    finished: u64,
    dead: u64,
    /// The number of failed attempts of the jobs that have ended.
    failures: u64,
}

impl Counts {
    fn of_all(self, enqueued: u64) -> String {
        let Counts { finished, dead, failures } = self;
        format!("{finished} of {enqueued} finished, {failures} attempts failed, {dead} dead")
    }

    async fn of(database: &Database, ids: &[i64]) -> Result<Counts, Failure> {
        let sql = "select
                count(*) filter (where finished), count(*) filter (where not finished),
                coalesce(sum(failures), 0)::bigint
            from (select true as finished, failures from reveille.finished_jobs where id = any ($1)
                union all select false, failures from reveille.dead_jobs where id = any ($1)) as ended";
        let sql = sql.replace("reveille.", &format!("{}.", database.schema_name()));
        // The statement is unnamed, since the demo may run through a pooler.
        let row = database.client().await?.query_typed_one(&sql, &[(&ids, Type::INT8_ARRAY)]).await?;
        let [finished, dead, failures] = [0, 1, 2].map(|column| row.get::<_, i64>(column) as u64);
        Ok(Counts { finished, dead, failures })
    }
}

struct Summary {
    enqueued: u64,
    counts: Counts,
    /// The latencies in milliseconds, sorted.
    waits: Vec<f64>,
    seconds: f64,
}

impl Summary {
    fn as_json(&self) -> serde_json::Value {
        json!({
            "enqueued": self.enqueued, "finished": self.counts.finished, "dead": self.counts.dead,
            "failures": self.counts.failures,
            "p50_ms": rounded(percentile(&self.waits, 50)), "p95_ms": rounded(percentile(&self.waits, 95)),
            "p99_ms": rounded(percentile(&self.waits, 99)), "seconds": rounded(self.seconds),
        })
    }

    async fn print(&self, database: &Database, throw_away: bool, kept: bool) -> Outcome {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| percentile(&self.waits, percent));
        let server = if throw_away { "a throw-away Postgres" } else { "your Postgres" };
        output::lines(format!(
            "\n{} jobs on {server}: from transactions, in bulk, by plain SQL, one by one\n\
             \n    {:>5} finished\
             \n    {:>5} dead\
             \n    {:>5} failed attempts; jobs that can succeed were retried until they did\n\
             \n    started after   p50 {p50:.1} ms   p95 {p95:.1} ms   p99 {p99:.1} ms   from the call to enqueue\n\
             \nDead jobs:",
            self.enqueued, self.counts.finished, self.counts.dead, self.counts.failures,
        ))?;
        for group in database.admin().view(View::DeadJobsOverview).await? {
            let field = |name| output::cell(group.get(name));
            output::line(format!("    {:<12} {:<12} {}", field("kind"), field("reason"), field("last_error")))?;
        }
        output::lines(
            "\nTo see more, use `reveille status`, `jobs`, `dead` and `workers`, or psql:\
             \n    select * from reveille.queue_stats;\
             \n    select * from reveille.dead_jobs_overview;\
             \n    select id, kind, attempts, wait_seconds, run_seconds from reveille.finished_jobs\
             \n        order by id desc limit 10;\
             \n    select * from reveille.enqueue(kind => 'thumbnail', payload => '{\"image\": 7}', queue => 'demo');",
        )?;
        if throw_away && !kept {
            output::line("The throw-away server has stopped; to keep it, add `--keep`.")?;
        }
        Ok(())
    }
}
