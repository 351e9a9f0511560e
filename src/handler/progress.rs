//! What a handler says of its progress: written at once, or, if it says more than that, twice a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::job::Reservation;
use crate::job::payload::Payload;

/// How often it is written at most.
const EVERY: Duration = Duration::from_millis(500);
/// How large it may be, in bytes.
const LARGEST: usize = 8 * 1024;

/// The progress of one attempt.
pub(crate) struct Progress {
    driver: Arc<dyn Driver>,
    reservation: Reservation,
    /// So that what was said first is written first.
    writing: tokio::sync::Mutex<()>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    /// What is still to be written; a task sees to it.
    latest: Option<Payload>,
    /// No sooner than this.
    next: Option<Instant>,
    /// It is too late to say anything.
    closed: bool,
    /// The job was seen to be no longer this worker's.
    lost: bool,
}

impl Progress {
    pub(crate) fn new(driver: Arc<dyn Driver>, reservation: Reservation) -> Progress {
        Progress { driver, reservation, writing: tokio::sync::Mutex::default(), said: Mutex::default() }
    }

    pub(crate) async fn say(self: &Arc<Self>, progress: Payload) -> Result<()> {
        let size = progress.as_bytes().len();
        if size > LARGEST {
            return Err(Error::invalid(format!("progress of {size} bytes is larger than the limit of {LARGEST}")));
        }
        let next = {
            let mut said = self.said();
            if said.lost {
                return Err(self.lost());
            }
            if said.closed {
                return Ok(());
            }
            let is_waiting = said.latest.replace(progress).is_some();
            match said.next.filter(|next| *next > Instant::now()) {
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

    /// Writes what is still to be written, and nothing more from here on.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.write().await {
            self.dropped(&error);
        }
        self.said().closed = true;
    }

    fn dropped(&self, error: &Error) {
        let id = self.reservation.id;
        tracing::warn!(name: "job.progress_dropped", target: "reveille::job", id, %error, "the progress was not written");
    }

    async fn write(&self) -> Result<()> {
        let _turn = self.writing.lock().await;
        let latest = {
            let mut said = self.said();
            said.next = Some(Instant::now() + EVERY);
            said.latest.take().filter(|_| !said.closed)
        };
        let Some(latest) = latest else { return Ok(()) };
        match self.driver.progress(&self.reservation, &latest).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.said().lost = true;
                Err(self.lost())
            }
            // No reason to do the work again: the next one may reach it.
            Err(error) if error.is_unavailable() => {
                self.dropped(&error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn lost(&self) -> Error {
        Error::lost(format!("job {} is no longer this worker's", self.reservation.id))
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
