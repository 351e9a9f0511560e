//! Reports each failed attempt to Sentry.
//!
//! The guide's page `jobs/reports` explains this code, and quotes it.

use std::borrow::Cow;

use reveille::driver::FailureReason;
use reveille::handler::{AttemptEnd, EndKind, Middleware};
use reveille::{Database, Job};
use sentry::Level;
use sentry::protocol::{Event, Exception};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Reports each failed attempt to Sentry: errors, timeouts, panics, and attempts whose worker died.
pub struct Reports {
    lost: UnboundedSender<Lost>,
}

/// A lost attempt, as the worker that rescues the job knows it.
struct Lost {
    id: i64,
    error: String,
    is_dead: bool,
}

/// The job of a failed attempt.
struct Failed<'a> {
    id: i64,
    kind: &'a str,
    queue: &'a str,
    attempt: u32,
}

impl Middleware for Reports {
    fn ended(&self, end: &AttemptEnd<'_>) {
        // Only the end of a failed attempt has an error.
        let Some(error) = end.error else { return };
        let Some(job) = end.job else {
            let _ = self.lost.send(Lost { id: end.id, error: error.to_owned(), is_dead: end.is_dead });
            return;
        };
        let attempt = job.reservation.attempt.unsigned_abs();
        report(&Failed { id: end.id, kind: &job.kind, queue: &job.queue, attempt }, end.kind, error, end.is_dead);
    }
}

impl Reports {
    /// Makes the middleware, and starts the task that reports lost attempts. Call this in the program's runtime.
    pub fn new(database: Database) -> Reports {
        let (lost, mut losses) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(loss) = losses.recv().await {
                report_lost(&database, &loss).await;
            }
        });
        Reports { lost }
    }
}

/// Reads the lost job, of which the rescuing worker knows only the id, and reports its attempt.
async fn report_lost(database: &Database, Lost { id, error, is_dead }: &Lost) {
    let job = database.admin().job(*id).await.ok().flatten();
    let mut failed = Failed { id: *id, kind: "unknown", queue: "unknown", attempt: 0 };
    if let Some(job) = &job {
        (failed.kind, failed.queue) = (&job.kind, &job.queue);
        // The job may have run again by now, so its number of attempts is no help.
        let lost = job.errors().into_iter().rev().find(|failure| failure.reason == Some(FailureReason::Lost));
        failed.attempt = lost.and_then(|failure| failure.attempt).unwrap_or_default();
    }
    report(&failed, EndKind::Lost, error, *is_dead);
}

fn report(job: &Failed<'_>, end: EndKind, error: &str, is_dead: bool) {
    let (kind, end) = (job.kind.to_owned(), end.name());
    let tags = [
        ("job.id", job.id.to_string()),
        ("job.kind", kind.clone()),
        ("job.queue", job.queue.to_owned()),
        ("job.attempt", job.attempt.to_string()),
        ("job.end", end.to_owned()),
        ("job.dead", is_dead.to_string()),
    ];
    let exception = Exception { ty: format!("{kind} {end}"), value: Some(error.to_owned()), ..Exception::default() };
    sentry::capture_event(Event {
        level: if is_dead { Level::Error } else { Level::Warning },
        exception: vec![exception].into(),
        // One issue in Sentry for each kind of job and kind of end, whatever ids and names the errors contain.
        fingerprint: Cow::Owned(vec![Cow::Owned(kind), Cow::Borrowed(end)]),
        tags: tags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..Event::default()
    });
}

/// Copies a file into the shop's tables.
#[derive(Serialize, Deserialize)]
pub struct Import {
    /// The file's name.
    pub file: String,
}

impl Job for Import {
    const KIND: &'static str = "import";
    const QUEUE: &'static str = "imports";
}
