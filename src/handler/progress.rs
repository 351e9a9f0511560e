//! A handler's progress. The first report is written at once, and further reports at most twice a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::handler::output::{Output, Outputs};
use crate::job::ReservedJob;
use crate::job::payload::Payload;

/// The shortest time between two writes.
const EVERY: Duration = Duration::from_millis(500);
/// The largest report, in bytes.
const LARGEST: usize = 8 * 1024;

/// The progress of one attempt.
pub(crate) struct Progress {
    driver: Arc<dyn Driver>,
    job: Arc<ReservedJob>,
    outputs: Arc<dyn Outputs>,
    /// This lock is held while a report is written, so that reports are written in their order.
    writing: tokio::sync::Mutex<()>,
    reports: Mutex<Reports>,
}

#[derive(Default)]
struct Reports {
    /// The latest report, which a task will write at `next`.
    latest: Option<Payload>,
    /// The time from which the next report may be written.
    next: Option<Instant>,
    /// True if later reports are dropped.
    closed: bool,
    /// True once a write has found that this worker no longer holds the job.
    lost: bool,
}

impl Progress {
    pub(crate) fn new(driver: Arc<dyn Driver>, job: Arc<ReservedJob>, outputs: Arc<dyn Outputs>) -> Progress {
        Progress { driver, job, outputs, writing: tokio::sync::Mutex::default(), reports: Mutex::default() }
    }

    pub(crate) async fn report(self: &Arc<Self>, progress: Payload) -> Result<()> {
        let size = progress.as_bytes().len();
        if size > LARGEST {
            let message = format!("progress of {size} bytes is larger than the limit of {LARGEST}; report less");
            return Err(Error::invalid(message));
        }
        let next = {
            let mut reports = self.reports();
            if reports.lost {
                return Err(self.lost());
            }
            if reports.closed {
                return Ok(());
            }
            let is_waiting = reports.latest.replace(progress).is_some();
            match reports.next.filter(|next| *next > Instant::now()) {
                Some(_) if is_waiting => return Ok(()),
                next => next,
            }
        };
        match next {
            Some(next) => {
                let progress = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep_until(next).await;
                    if let Err(error) = progress.write().await {
                        progress.dropped(&error);
                    }
                });
                Ok(())
            }
            None => self.write().await,
        }
    }

    /// Writes the latest report, and drops all later ones.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.write().await {
            self.dropped(&error);
        }
        self.reports().closed = true;
    }

    fn dropped(&self, error: &Error) {
        let id = self.job.reservation.id;
        tracing::warn!(
            name: "job.progress_dropped", target: "reveille::job", id, %error,
            "a report of progress was dropped; the job goes on"
        );
    }

    async fn write(&self) -> Result<()> {
        let _turn = self.writing.lock().await;
        let latest = {
            let mut reports = self.reports();
            reports.next = Some(Instant::now() + EVERY);
            reports.latest.take().filter(|_| !reports.closed)
        };
        let Some(latest) = latest else { return Ok(()) };
        let Output::Progress(latest) = self.outputs.pass(&self.job, Output::Progress(latest))? else { return Ok(()) };
        match self.driver.progress(&self.job.reservation, &latest).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.reports().lost = true;
                Err(self.lost())
            }
            // A report that cannot be written now does not fail the attempt: the next report may be written.
            Err(error) if error.is_unavailable() => {
                self.dropped(&error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn lost(&self) -> Error {
        Error::lost(format!("this worker no longer holds job {}; stop working on the job", self.job.reservation.id))
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
