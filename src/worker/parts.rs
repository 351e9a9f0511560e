//! The parts of a worker, each a task of its own. A part that panics, or ends before the worker does, ends the worker:
//! one that went on without it would hold jobs that nobody works, or claim none, and look well from outside.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::job::outcome::panicked;

/// Watches over the parts of one worker.
#[derive(Clone, Default)]
pub(crate) struct Parts(Arc<Watched>);

#[derive(Default)]
struct Watched {
    /// The shutdown has begun, in which parts end.
    ending: CancellationToken,
    is_broken: CancellationToken,
    /// The first part that broke down, and why.
    first: OnceLock<String>,
}

impl Parts {
    /// Runs a part. `name` is what it is called in an error: "the listener".
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

    /// This part has ended, or panicked.
    pub(crate) fn ended(&self, name: &str, ended: std::thread::Result<()>) {
        match ended {
            Ok(()) if self.0.ending.is_cancelled() => {}
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
                "a part of the worker broke down; the worker gives back what it holds and ends"
            );
        });
        let _ = self.0.first.set(format!("the worker ended because {name} broke down: {why}"));
        self.0.is_broken.cancel();
    }

    /// From here on parts may end.
    pub(crate) fn may_end(&self) {
        self.0.ending.cancel();
    }

    /// Waits until a part breaks down.
    pub(crate) async fn broken(&self) {
        self.0.is_broken.cancelled().await;
    }

    /// The first part that broke down, if one has.
    pub(crate) fn error(&self) -> Option<Error> {
        self.0.first.get().map(Error::broken)
    }
}

/// Logs something. What collects the log may panic, and whoever logs goes on.
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
    async fn a_part_that_ends_or_panics_names_itself_and_the_first_one_counts() {
        let parts = Parts::default();
        let error = error_of(&parts, async { panic!("no more") }).await.unwrap();
        assert_eq!(error, "the worker ended because the listener broke down: panicked: no more");
        parts.broken().await;
        assert_eq!(error_of(&parts, async {}).await.unwrap(), error);
        let error = error_of(&Parts::default(), async {}).await.unwrap();
        assert!(error.ends_with("the listener broke down: it ended by itself"), "{error}");
    }

    #[tokio::test]
    async fn in_a_shutdown_parts_may_end_but_not_panic() {
        let parts = Parts::default();
        parts.may_end();
        assert_eq!(error_of(&parts, async {}).await, None);
        assert!(error_of(&parts, async { panic!("no more") }).await.is_some());
    }
}
