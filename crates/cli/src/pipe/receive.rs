//! What the worker does with the messages of a child.

use std::sync::Arc;

use reveille::Database;
use reveille::enqueue::Enqueuer;
use serde_json::{Value, json};

use super::Pipe;
use super::child_state::{Known, Stage};
use super::message::{self, ChildMessage};
use super::run::RunEnd;
use crate::Failure;
use crate::enqueue_file::Texts;

/// The most requests of a child that may wait for their answer.
const MOST_REQUESTS: usize = 32;
/// The largest payload of a job that a child enqueues, in bytes: the default of producers.
const LARGEST_PAYLOAD: usize = 1 << 20;
/// The most jobs of one request.
const MOST_JOBS: usize = 10_000;

/// Acts on a message. This waits for nothing, since a child may write while it takes nothing.
///
/// # Errors
/// The error says how the message breaks the protocol.
pub fn receive(pipe: &Pipe, number: u64, message: ChildMessage) -> Result<(), String> {
    let stage = pipe.fleet.with(number, |child| child.stage);
    match message {
        ChildMessage::Ready { kinds } => {
            let first = pipe.fleet.with(number, |child| {
                let is_first = !child.has_been_ready;
                if is_first {
                    (child.has_been_ready, child.kinds) = (true, kinds);
                    if child.stage == Stage::Starting {
                        child.stage = Stage::Ready;
                    }
                    child.wakes.life.notify_one();
                }
                is_first
            });
            if first == Some(false) {
                return Err("it said twice that it is ready".into());
            }
            pipe.fleet.changed();
            pipe.fleet.was_ready.send_replace(true);
            tracing::info!(name: "pipe.child_ready", target: "reveille::pipe", child = number, "a child is ready");
            Ok(())
        }
        _ if stage == Some(Stage::Starting) => Err("it wrote a message before `ready`".into()),
        ChildMessage::Ended { run, answer } => {
            if is_open(pipe, number, run)? {
                pipe.fleet.end(number, run, RunEnd::Answered(answer));
            }
            Ok(())
        }
        ChildMessage::Progress { run, value } => {
            if is_open(pipe, number, run)? {
                pipe.fleet.with(number, |child| {
                    if let Some(run) = child.runs.get(&run) {
                        run.events.progress(value);
                    }
                });
            }
            Ok(())
        }
        ChildMessage::Enqueue { request, run, jobs } => {
            let parent = match run {
                // A run that has ended is the parent of no further jobs.
                Some(run) if is_open(pipe, number, run)? => {
                    pipe.fleet.with(number, |child| child.runs.get(&run).map(|run| run.job)).flatten()
                }
                _ => None,
            };
            take_request(pipe, number, request, parent, jobs)
        }
    }
}

/// Returns true if a message about this run counts. A late message is logged once for each child.
fn is_open(pipe: &Pipe, number: u64, run: u64) -> Result<bool, String> {
    let known = pipe.fleet.with(number, |child| {
        let known = child.known(run);
        (known == Known::Ended && !std::mem::replace(&mut child.has_warned, true), known)
    });
    match known {
        None | Some((_, Known::Open)) => Ok(known.is_some()),
        Some((_, Known::NeverGiven)) => Err(format!("it wrote about the run {run}, which it was never given")),
        Some((true, Known::Ended)) => {
            tracing::warn!(
                name: "pipe.late_message", target: "reveille::pipe", child = number, run,
                "ignored a message about a run that has ended, and will ignore further ones of this child"
            );
            Ok(false)
        }
        Some((false, Known::Ended)) => Ok(false),
    }
}

/// Begins to answer a request, in a task of its own.
fn take_request(pipe: &Pipe, number: u64, request: u64, parent: Option<i64>, jobs: Vec<String>) -> Result<(), String> {
    let requests = pipe.fleet.with(number, |child| {
        child.requests += 1;
        child.requests
    });
    if requests.unwrap_or_default() > MOST_REQUESTS {
        return Err(format!("more than {MOST_REQUESTS} of its requests wait for an answer"));
    }
    let (fleet, database, enqueuer) = (Arc::clone(&pipe.fleet), pipe.options.database.clone(), pipe.enqueuer());
    tokio::spawn(async move {
        let enqueued = enqueue(&database, &enqueuer, parent, jobs).await.map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::NotFound | Failure::OutputClosed => "the jobs could not be enqueued".into(),
        });
        fleet.with(number, |child| {
            child.requests -= 1;
            child.send(message::answer(request, &enqueued));
        });
    });
    Ok(())
}

async fn enqueue(
    database: &Database,
    enqueuer: &Enqueuer,
    parent: Option<i64>,
    jobs: Vec<String>,
) -> Result<Value, Failure> {
    if jobs.len() > MOST_JOBS {
        return Err(Failure::Error(format!("a request enqueues at most {MOST_JOBS} jobs")));
    }
    let jobs = (1..).zip(jobs.iter().map(|job| job.trim().to_owned())).collect();
    let mut jobs = Texts::new(database, "job").jobs(jobs, LARGEST_PAYLOAD).await?;
    for job in &mut jobs {
        job.parent_id = job.parent_id.or(parent);
    }
    let stored = enqueuer.enqueue_all(database, &jobs).await?;
    Ok(stored.iter().map(|job| json!({"id": job.id, "existed": job.existed})).collect())
}
