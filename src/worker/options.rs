//! The settings of a worker.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use crate::error::{Error, Result};
use crate::job::check_timeout;
use crate::worker::slot_count::SlotLimits;

/// The settings of a worker, as [`WorkerBuilder`](crate::worker::WorkerBuilder) names them.
pub(crate) struct Options {
    pub(crate) poll_interval: Duration,
    pub(crate) listen: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) end_grace: Shared<BoxFuture<'static, ()>>,
    pub(crate) heartbeat: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) slot_limits: SlotLimits,
}

const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(1);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(86_400);
const SHORTEST_POLL: Duration = Duration::from_millis(1);

impl Options {
    /// Refuses settings under which no worker can run. All other durations are valid; `Duration::MAX` means never.
    pub(crate) fn check(&self) -> Result<()> {
        if !(SHORTEST_HEARTBEAT..=LONGEST_HEARTBEAT).contains(&self.heartbeat) {
            return Err(Error::invalid(format!(
                "the heartbeat interval must be between 1 ms and a day, not {:?}",
                self.heartbeat
            )));
        }
        if self.poll_interval < SHORTEST_POLL {
            return Err(Error::invalid(format!("poll_interval must be 1 ms or longer, not {:?}", self.poll_interval)));
        }
        match self.timeout {
            Some(timeout) => check_timeout(timeout),
            None => Ok(()),
        }
    }

    /// The time without a heartbeat after which another worker is declared dead: the time that was set, but at least
    /// three heartbeats.
    pub(crate) fn dead_after(&self) -> Duration {
        self.dead_after.max(self.heartbeat * 3)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            poll_interval: Duration::from_secs(5),
            listen: true,
            timeout: None,
            grace: Duration::from_secs(30),
            end_grace: std::future::pending().boxed().shared(),
            heartbeat: Duration::from_secs(1),
            dead_after: Duration::from_secs(30),
            slot_limits: SlotLimits::default(),
        }
    }
}
