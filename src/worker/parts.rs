//! The parts of a worker; each part is a separate task.
//!
//! The worker ends if one of its parts panics, or ends before the shutdown. Without that part, the worker could look
//! healthy from outside and yet run no jobs.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::job::outcome::panicked;

/// Starts the parts of one worker and notices when a part breaks down.
#[derive(Clone, Default)]
pub(crate) struct Parts(Arc<PartsState>);

#[derive(Default)]
struct PartsState {
    /// Cancelled when the shutdown begins. From then on, a part may end.
    shutdown: CancellationToken,
    broken: CancellationToken,
    /// The error of the first part that broke down.
    error: OnceLock<String>,
}

impl Parts {
    /// Starts a part. `name` appears in the error if the part breaks down, as in "the listener broke down".
    pub(crate) fn spawn(
        &self,
        name: impl Into<String>,
        part: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (parts, name) = (self.clone(), name.into());
        tokio::spawn(async move {
            let ended = AssertUnwindSafe(part).catch_unwind().await;
            parts.ended(&name, ended);
        })
    }

    /// Notes that a part has ended, or panicked.
    pub(crate) fn ended(&self, name: &str, ended: std::thread::Result<()>) {
        match ended {
            Ok(()) if self.0.shutdown.is_cancelled() => {}
            Ok(()) => self.broke(name, "it ended by itself"),
            Err(panic) => self.broke_by_panic(name, &*panic),
        }
    }

    pub(crate) fn broke_by_panic(&self, name: &str, panic: &(dyn Any + Send)) {
        self.broke(name, &panicked(panic));
    }

    fn broke(&self, name: &str, why: &str) {
        quietly(|| {
            tracing::error!(
                name: "worker.broken", target: "reveille::worker", part = name, error = why,
                "a part of the worker broke down; the worker releases its jobs and ends"
            );
        });
        let _ = self.0.error.set(format!("the worker ended because {name} broke down: {why}"));
        self.0.broken.cancel();
    }

    /// Notes that the shutdown begins. From then on, a part may end.
    pub(crate) fn begin_shutdown(&self) {
        self.0.shutdown.cancel();
    }

    /// Waits until a part breaks down.
    pub(crate) async fn broken(&self) {
        self.0.broken.cancelled().await;
    }

    /// Returns the error of the first part that broke down; `None` if no part has.
    pub(crate) fn error(&self) -> Option<Error> {
        self.0.error.get().map(Error::broken)
    }
}

/// Calls `log` and catches a panic of the `tracing` subscriber: a log that fails must not make anything else fail.
pub(crate) fn quietly(log: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(log));
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn error_of(parts: &Parts, part: impl Future<Output = ()> + Send + 'static) -> Option<String> {
        parts.spawn("the listener", part).await.unwrap();
        parts.error().map(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_error_names_the_first_part_that_ended_or_panicked() {
        let parts = Parts::default();
        let error = error_of(&parts, async { panic!("no more") }).await.unwrap();
        assert_eq!(error, "the worker ended because the listener broke down: panicked: no more");
        parts.broken().await;
        assert_eq!(error_of(&parts, async {}).await.unwrap(), error);
        let error = error_of(&Parts::default(), async {}).await.unwrap();
        assert!(error.ends_with("the listener broke down: it ended by itself"), "{error}");
    }

    #[tokio::test]
    async fn parts_may_end_in_a_shutdown_but_not_panic() {
        let parts = Parts::default();
        parts.begin_shutdown();
        assert_eq!(error_of(&parts, async {}).await, None);
        assert!(error_of(&parts, async { panic!("no more") }).await.is_some());
    }
}
