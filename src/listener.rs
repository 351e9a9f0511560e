//! The listener: hears the signals of the store and passes them on, and comes back whenever it is cut off.

use std::sync::Arc;

use futures::StreamExt;

use crate::backoff::Backoff;
use crate::driver::{Driver, Signal};
use crate::error::Error;
use crate::held::Held;
use crate::wake::Bells;

/// Listens until the task is dropped.
pub(crate) async fn run(driver: Arc<dyn Driver>, bells: Arc<Bells>, held: Arc<Held>) {
    let mut backoff = Backoff::new("listen for new jobs");
    loop {
        let error = match driver.listen().await {
            Ok(mut signals) => {
                backoff.worked();
                bells.hear();
                loop {
                    match signals.next().await {
                        Some(Ok(Signal::Bell(queue))) => bells.ring(&queue),
                        Some(Ok(Signal::Cancel(id))) => held.cancel(id),
                        Some(Err(error)) => break error,
                        None => break Error::unavailable("listen: the store sends no more signals"),
                    }
                }
            }
            Err(error) => error,
        };
        bells.go_deaf();
        tokio::time::sleep(backoff.failed(&error)).await;
    }
}
