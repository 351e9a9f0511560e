//! A newsletter: a worker with its options, middleware that counts attempts, a pause by an administrator, and tests
//! without a database.
//!
//! Run it: `cargo run --example newsletter`, at `DATABASE_URL` or on a throw-away server. Its tests are run by
//! `cargo test --example newsletter`. It prints:
//!
//! ```text
//! waiting mails: 3
//! issue 7 -> ada@example.org
//! issue 7 -> grace@example.org
//! sent mails: 2, dead mails: 1
//! completing attempts: 3, others: 1
//! ```
//!
//! The guide's pages: `docs/features/testing.md`, `docs/features/middleware.md`

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reveille::driver::IntoDriver;
use reveille::enqueue::Enqueuer;
use reveille::handler::{AttemptEnd, EndKind, Middleware};
use reveille::job::{Completed, NewJob};
use reveille::worker::WorkerBuilder;
use reveille::{Database, Job, Outcome, State, Worker};
use serde::{Deserialize, Serialize};

/// Sends an issue to all its readers.
#[derive(Serialize, Deserialize)]
struct SendIssue {
    issue: u32,
    readers: Vec<String>,
}

impl Job for SendIssue {
    const KIND: &'static str = "send_issue";
    const QUEUE: &'static str = "newsletter";
}

/// Sends an issue to one reader.
#[derive(Debug, Serialize, Deserialize)]
struct SendMail {
    issue: u32,
    reader: String,
}

impl Job for SendMail {
    const KIND: &'static str = "send_mail";
    const QUEUE: &'static str = "mail";
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));
}

/// Counts the ends of attempts, and writes down where each job was enqueued.
#[derive(Default)]
struct Counts {
    completed: AtomicU64,
    others: AtomicU64,
}

impl Middleware for Counts {
    fn enqueue(&self, job: &mut NewJob) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(job.set_metadata_member("enqueued_by", env!("CARGO_PKG_NAME"))?)
    }

    fn ended(&self, end: &AttemptEnd<'_>) {
        let count = if end.kind == EndKind::Completed { &self.completed } else { &self.others };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The jobs that a handler enqueues by its worker's enqueuer are the children of its job.
async fn send_issue(
    job: SendIssue,
    State(database): State<Database>,
    enqueuer: Enqueuer,
) -> reveille::Result<Completed<usize>> {
    let mails: Vec<SendMail> = job.readers.into_iter().map(|reader| SendMail { issue: job.issue, reader }).collect();
    Ok(Completed(enqueuer.enqueue_all(&database, &mails).await?.len()))
}

/// An address without an `@` never becomes a good one, so the job is dead at once.
async fn send_mail(job: SendMail) -> Outcome {
    if !job.reader.contains('@') {
        return Outcome::Dead(format!("{:?} is not an address", job.reader));
    }
    println!("issue {} -> {}", job.issue, job.reader);
    Outcome::Complete
}

fn worker(on: impl IntoDriver, counts: &Arc<Counts>) -> WorkerBuilder {
    Worker::builder(on)
        .queue("newsletter", 1)
        .queue("mail", 16)
        .poll_interval(Duration::from_secs(2))
        .grace(Duration::from_secs(10))
        .middleware(Arc::clone(counts))
        .handle(send_mail)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = common::database().await?;
    let counts = Arc::new(Counts::default());
    let worker = worker(database.clone(), &counts).state(database.clone()).handle(send_issue).build()?;

    // While the queue is paused, mails wait.
    database.admin().pause("mail").await?;
    let readers = ["ada@example.org", "grace@example.org", "nobody"].map(str::to_owned).to_vec();
    let issue = worker.enqueuer().enqueue(&database, &SendIssue { issue: 7, readers }).unique_by_payload().await?;
    worker.run_until_drained().await?;
    if let Some(sent) = issue.finished(&database).await? {
        println!("waiting mails: {}", sent.decode::<usize>()?);
    }
    database.admin().resume("mail").await?;
    let run = worker.run_until_drained().await?;
    println!("sent mails: {}, dead mails: {}", run.completed, run.dead);
    let (completed, others) = (counts.completed.load(Ordering::Relaxed), counts.others.load(Ordering::Relaxed));
    println!("completing attempts: {completed}, others: {others}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use reveille::driver::{Ending, Memory};
    use reveille::job::JobState;
    use reveille::{enqueue, testing};

    use super::*;

    fn mail(reader: &str) -> SendMail {
        SendMail { issue: 7, reader: reader.into() }
    }

    #[tokio::test]
    async fn a_mail_to_no_address_is_dead_at_once() {
        let worker = worker(Memory::new(), &Arc::default()).build().unwrap();
        assert!(matches!(worker.attempt(&mail("nobody")).await.unwrap(), Ending::Dead(_)));
        assert_eq!(worker.attempt(&mail("ada@example.org")).await.unwrap(), Ending::Completed(None));
    }

    #[tokio::test]
    async fn a_delayed_mail_is_sent_and_counted() {
        let (memory, counts) = (Memory::new(), Arc::default());
        let worker = worker(memory.clone(), &counts).build().unwrap();
        let hour = Duration::from_secs(3600);
        let id = worker.enqueuer().enqueue(&memory, &mail("ada@example.org")).delay(hour).await.unwrap().id;
        enqueue(&memory, &mail("grace@example.org")).await.unwrap();

        let enqueued = testing::enqueued(&memory).await.unwrap();
        enqueued.assert_has(&mail("grace@example.org"));
        let metadata = enqueued.all()[0].job.metadata.as_ref().unwrap();
        assert_eq!(metadata.member::<String>("enqueued_by").unwrap().as_deref(), Some("reveille"));
        assert_eq!(memory.job(id).unwrap().state, JobState::Delayed);

        assert_eq!(worker.run_until_empty(&memory).await.unwrap().completed, 2);
        assert_eq!(memory.job(id).unwrap().state, JobState::Completed);
        assert_eq!(counts.completed.load(Ordering::Relaxed), 2);
    }
}
