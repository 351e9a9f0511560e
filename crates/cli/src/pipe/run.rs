//! One run: a job that a child was given once, from the side of the job's handler.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use reveille::handler::StopReason;
use reveille::job::Payload;
use reveille::{Context, Outcome};
use tokio::sync::Notify;

use super::fleet::Fleet;
use super::message::Answer;

/// The way in which a run ended.
#[derive(Debug)]
pub enum RunEnd {
    Answered(Answer),
    /// The child has died. The text is the error of all its runs.
    Lost(Arc<str>),
    /// The run goes back without a failure: the child never got it, or was killed because of another run.
    Released,
}

/// What the child's reader tells the handler of a run.
#[derive(Default)]
pub struct RunEvents {
    news: Mutex<News>,
    notify: Notify,
}

#[derive(Default)]
struct News {
    end: Option<RunEnd>,
    /// The latest progress that is not reported yet.
    progress: Option<Payload>,
}

impl RunEvents {
    pub fn end(&self, end: RunEnd) {
        self.lock().end = Some(end);
        self.notify.notify_one();
    }

    pub fn progress(&self, progress: Payload) {
        self.lock().progress = Some(progress);
        self.notify.notify_one();
    }

    fn take(&self) -> News {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that was given to a child. Dropping this before the end of the run abandons the run.
pub struct GivenRun {
    pub fleet: Arc<Fleet>,
    pub child: u64,
    pub run: u64,
    pub events: Arc<RunEvents>,
    pub context: Context,
    pub has_ended: bool,
}

impl GivenRun {
    /// Waits for the end of the run, and passes the job's progress and the request to stop on.
    pub async fn outcome(mut self) -> Outcome {
        let (events, context) = (Arc::clone(&self.events), self.context.clone());
        let cancellation = context.cancellation();
        let (mut is_told, mut end) = (false, None);
        let mut reporting: Option<BoxFuture<'_, ()>> = None;
        loop {
            tokio::select! {
                () = events.notify.notified() => {}
                () = cancellation.cancelled(), if !is_told => {
                    is_told = true;
                    let reason = cancellation.reason().unwrap_or(StopReason::Cancelled);
                    self.fleet.cancel(self.child, self.run, reason);
                }
                () = run_if_some(&mut reporting) => reporting = None,
            }
            // While one report is being written, the next one waits in the news, and later ones replace it.
            if reporting.is_none() || end.is_none() {
                let mut news = events.take();
                end = end.or(news.end.take());
                match news.progress.take() {
                    Some(progress) if reporting.is_none() => reporting = Some(report(&context, progress).boxed()),
                    Some(progress) => events.keep(progress),
                    None => {}
                }
            }
            if reporting.is_none()
                && let Some(end) = end.take()
            {
                self.has_ended = true;
                return self.ended(end);
            }
        }
    }

    fn ended(&self, end: RunEnd) -> Outcome {
        match end {
            RunEnd::Answered(Answer { outcome, transaction }) => {
                if let Some(transaction) = transaction {
                    self.context.note_completion(transaction);
                }
                outcome
            }
            RunEnd::Lost(error) => Outcome::Lost(error.to_string()),
            RunEnd::Released => Outcome::Release,
        }
    }
}

impl RunEvents {
    /// Puts progress back that cannot be reported yet, unless newer progress has come.
    fn keep(&self, progress: Payload) {
        self.lock().progress.get_or_insert(progress);
    }
}

impl Drop for GivenRun {
    fn drop(&mut self) {
        if !self.has_ended {
            let reason = self.context.cancellation().reason();
            self.fleet.abandon(self.child, self.run, reason);
        }
    }
}

async fn run_if_some(future: &mut Option<BoxFuture<'_, ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Reports progress. An error does not end the run: if the worker has lost the job, the run is cancelled anyway.
async fn report(context: &Context, progress: Payload) {
    if let Err(error) = context.progress(&progress).await {
        tracing::warn!(
            name: "job.progress_dropped", target: "reveille::job", id = context.id(), %error,
            "dropped the progress that a child reported"
        );
    }
}
