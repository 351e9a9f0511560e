//! Emits the events for which durable jobs wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reveille::Database;
use reveille::enqueue::emit;
use tokio::task::JoinSet;

use super::event_of;
use crate::torture::{journal, lock};

/// The pause after an emit that has failed.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The times at which the commits of events were seen, by the jobs that wait for the events.
pub type Emitted = HashMap<u64, Duration>;

/// The events of one producer.
pub struct Emitter {
    database: Database,
    emitted: Arc<Mutex<Emitted>>,
    under_way: JoinSet<()>,
}

impl Emitter {
    pub fn new(database: Database) -> Emitter {
        Emitter { database, emitted: Arc::default(), under_way: JoinSet::new() }
    }

    /// Notes that the events of these jobs were emitted.
    pub fn note(&self, jobs: Vec<u64>) {
        let now = journal::now();
        lock(&self.emitted).extend(jobs.into_iter().map(|job| (job, now)));
    }

    /// Emits the event of a job after a random time, in two of three calls. Tries until this succeeds. One in four
    /// events is emitted once more, with another payload.
    pub fn emit_later(&mut self, job: u64) {
        if fastrand::u8(0..3) == 0 {
            return;
        }
        let (database, emitted) = (self.database.clone(), Arc::clone(&self.emitted));
        self.under_way.spawn(async move {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..4000))).await;
            while emit(&database, event_of(job), &fastrand::u32(..)).await.is_err() {
                tokio::time::sleep(TRY_AGAIN).await;
            }
            lock(&emitted).insert(job, journal::now());
            if fastrand::u8(0..4) == 0 {
                // The first event of a name wins, so it does not matter if this fails.
                let _ = emit(&database, event_of(job), &"again").await;
            }
        });
    }

    /// Waits until all events are emitted.
    pub async fn end(mut self) -> Emitted {
        while self.under_way.join_next().await.is_some() {}
        std::mem::take(&mut lock(&self.emitted))
    }
}
