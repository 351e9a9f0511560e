//! Keeps the worker's runtime going while a handler blocks a thread.
//!
//! In Tokio's runtime, one idle thread waits for sockets and timers, and the other idle threads wait to be woken. The
//! first also runs tasks. While it runs a handler that blocks, no other thread waits for sockets in its place, so the
//! claimers, the listener and all other handlers stand still (<https://github.com/tokio-rs/tokio/issues/4730>). A task
//! that is spawned from outside of the runtime wakes another thread. That thread then waits for sockets.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::worker::attempt::reservations::HeldJobs;

/// The longest time for which a handler that blocks its thread can stop the other tasks of the runtime.
const WAKE_EVERY: Duration = Duration::from_millis(100);

/// Wakes a thread of the worker's runtime every 100 ms while this worker holds jobs. Runs in the heartbeat's thread.
pub(super) async fn keep_going(runtime: Handle, held_jobs: &HeldJobs) {
    if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
        // There is no other thread that could go on.
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(WAKE_EVERY).await;
        if !held_jobs.is_empty() {
            runtime.spawn(std::future::ready(()));
        }
    }
}
