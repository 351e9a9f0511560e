//! The trait `Driver` on Postgres: each method runs its statement.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::types::Type;

#[cfg(feature = "schedules")]
use super::schedules;
use super::session::{Params, Plan};
use super::{ANSWER_WITHIN, Postgres, claim, listen, rescue, settle, steps};
use crate::database::enqueue_on::EnqueueOn;
use crate::database::{Database, migrate};
use crate::driver::{
    Beat, ClaimRequest, Claimed, Driver, Hints, IntoDriver, OnSignal, OpenTransaction, Pausing, Peer, Recorded, Report,
    Rescue, Settled, Settlement, Step, WorkerInfo,
};
#[cfg(feature = "schedules")]
use crate::driver::{DueSchedules, Firing};
use crate::error::{Error, Result};
use crate::job::{Enqueued, Input, Labels, LinkedJobs, NewJob, Payload, Reservation};
#[cfg(feature = "schedules")]
use crate::schedule::Schedule;

fn boxed<'a, T>(future: impl Future<Output = Result<T>> + Send + 'a) -> BoxFuture<'a, Result<T>> {
    future.boxed()
}

impl Driver for Postgres {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        boxed(async {
            let client = self.sessions.client().await?;
            migrate::check(&client, self.database.schema()).await
        })
    }

    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        boxed(async {
            let schema = self.database.schema().name();
            let client = self.sessions.client().await?;
            client.insert(schema, jobs).await
        })
    }

    fn enqueue_linked<'a>(&'a self, jobs: &'a LinkedJobs) -> BoxFuture<'a, Result<Enqueued>> {
        self.database.insert_linked(self.database.schema().name(), jobs)
    }

    fn inputs<'a>(&'a self, job: i64, labels: Labels<'a>) -> BoxFuture<'a, Result<Vec<Input>>> {
        boxed(self.read_inputs(job, labels))
    }

    fn workflow_of(&self, job: i64) -> BoxFuture<'_, Result<Option<(i64, Payload)>>> {
        boxed(self.find_workflow_of(job))
    }

    fn count_blocked<'a>(&'a self, queues: &'a [String]) -> BoxFuture<'a, Result<u64>> {
        boxed(self.blocked_of(queues))
    }

    fn register<'a>(&'a self, worker: &'a WorkerInfo) -> BoxFuture<'a, Result<()>> {
        boxed(async {
            let pid = i32::try_from(worker.pid).unwrap_or_default();
            let slots = i32::try_from(worker.slots).unwrap_or(i32::MAX);
            let queue_slots = worker.queue_slots.iter().map(|slots| i32::try_from(*slots).unwrap_or(i32::MAX));
            let queue_slots: Vec<i32> = queue_slots.collect();
            let version = env!("CARGO_PKG_VERSION");
            // A session of a pooler does not end with the worker. At another address, the worker may be unable to
            // listen, and then no session of a listener would take over.
            let vouches = worker.listens && !self.database.is_pooled() && !self.database.listens_elsewhere();
            let params: &Params<'_> = &[
                (&worker.id, Type::INT8),
                (&worker.host, Type::TEXT),
                (&pid, Type::INT4),
                (&version, Type::TEXT),
                (&worker.queues, Type::TEXT_ARRAY),
                (&slots, Type::INT4),
                (&worker.kinds, Type::TEXT_ARRAY),
                (&vouches, Type::BOOL),
                (&queue_slots, Type::INT4_ARRAY),
            ];
            self.query("register the worker", &self.statements.register, params).await.map(drop)
        })
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> BoxFuture<'a, Result<Claimed>> {
        boxed(claim::claim(self, request))
    }

    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<Settled>>> {
        boxed(async {
            let settled = settle::settle(self, settlements).await?;
            self.settled.fetch_add(settlements.len(), Ordering::Relaxed);
            let of = |settlement: &Settlement| settled.get(&settlement.reservation).cloned().unwrap_or(Settled::Lost);
            Ok(settlements.iter().map(of).collect())
        })
    }

    fn beat<'a>(&'a self, worker: i64, report: &'a Report) -> BoxFuture<'a, Result<Beat>> {
        boxed(async move {
            let stuck: Vec<i64> = report.stuck.iter().map(|stuck| stuck.id).collect();
            let asked_ago: Vec<f64> = report.stuck.iter().map(|stuck| stuck.asked_ago.as_secs_f64()).collect();
            let params: &Params<'_> = &[
                (&worker, Type::INT8),
                (&report.stopping, Type::BOOL),
                (&stuck, Type::INT8_ARRAY),
                (&asked_ago, Type::FLOAT8_ARRAY),
                (&report.held, Type::INT8_ARRAY),
            ];
            let rows = self.on_heartbeat_session("beat", Plan::Kept, (&self.statements.beat, params)).await?;
            let row = rows
                .first()
                .ok_or_else(|| Error::unavailable("cannot send a heartbeat: the server returned no row"))?;
            let ids: Vec<i64> = row.get("peers");
            let seen: Vec<SystemTime> = row.get("seen");
            let peers = ids.into_iter().zip(seen).map(|(id, last_seen_at)| Peer { id, last_seen_at }).collect();
            let sharing = usize::try_from(row.get::<_, i64>("sharing")).unwrap_or_default();
            let slots =
                row.get::<_, Vec<i32>>("slots").into_iter().map(|slots| usize::try_from(slots).unwrap_or_default());
            let slots = row.get::<_, Vec<String>>("queues").into_iter().zip(slots);
            // A number that did not fit into the column says nothing.
            let slots = slots.filter(|(_, slots)| *slots != i32::MAX as usize).collect();
            Ok(Beat {
                alive: row.get("alive"),
                stop: row.get("stop"),
                peers,
                gone: row.get("gone"),
                sharing,
                paused: row.get("paused"),
                slots,
                cancel: row.get("cancel"),
                unarmed: row.get("unarmed"),
                linked_ends: row.get("linked_ends"),
            })
        })
    }

    fn rescue<'a>(&'a self, worker: i64, dead: &'a [Peer]) -> BoxFuture<'a, Result<Rescue>> {
        boxed(rescue::rescue(self, worker, dead))
    }

    fn release_strays<'a>(&'a self, worker: i64, held: &'a [i64]) -> BoxFuture<'a, Result<Vec<i64>>> {
        boxed(rescue::release_strays(self, worker, held))
    }

    fn leave(&self, worker: i64) -> BoxFuture<'_, Result<()>> {
        boxed(async move {
            self.query("remove the worker", &self.statements.leave, &[(&worker, Type::INT8)]).await?;
            self.note_nobody_sleeps().await
        })
    }

    fn progress<'a>(&'a self, reservation: &'a Reservation, progress: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        boxed(async move {
            let Reservation { id, worker, attempt, reserved_at, .. } = reservation;
            let params: &Params<'_> = &[
                (id, Type::INT8),
                (worker, Type::INT8),
                (attempt, Type::INT4),
                (reserved_at, Type::TIMESTAMPTZ),
                (progress, Type::JSONB),
            ];
            let rows = self.query("write the progress", &self.statements.progress, params).await?;
            match rows.first().map(|row| row.get("kept")) {
                Some(false) => {
                    Err(Error::unavailable("cannot write the progress: another session has locked the job's row"))
                }
                kept => Ok(kept.is_some()),
            }
        })
    }

    fn steps(&self, job: i64) -> BoxFuture<'_, Result<Vec<(String, Step)>>> {
        boxed(steps::steps(self, job))
    }

    fn record_step<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        value: &'a Payload,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        boxed(steps::record_step(self, reservation, name, value))
    }

    fn record_wait<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        pausing: Pausing,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        boxed(steps::record_wait(self, reservation, name, pausing))
    }

    fn run_child<'a>(
        &'a self,
        reservation: &'a Reservation,
        name: &'a str,
        job: &'a NewJob,
    ) -> BoxFuture<'a, Result<Option<Recorded>>> {
        boxed(steps::run_child(self, reservation, name, job))
    }

    fn emit<'a>(&'a self, event: &'a str, payload: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        boxed(async {
            let client = self.sessions.client().await?;
            client.emit(self.database.schema().name(), event, payload).await
        })
    }

    fn listen(&self, worker: i64, on_signal: OnSignal) -> BoxFuture<'_, Result<BoxFuture<'static, Error>>> {
        boxed(listen::listen(self, worker, on_signal))
    }

    fn arm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<Vec<OpenTransaction>>> {
        boxed(async move {
            let params: &Params<'_> = &[(&worker, Type::INT8), (&queue, Type::TEXT)];
            let (before, arm) = (&self.statements.before_arming, (&*self.statements.arm, params));
            self.sessions.query_set(ANSWER_WITHIN, "arm the bell", before, arm).await?;
            self.open_transactions().await
        })
    }

    fn still_open<'a>(&'a self, before: &'a [OpenTransaction]) -> BoxFuture<'a, Result<Vec<OpenTransaction>>> {
        boxed(async move {
            let now = self.open_transactions().await?;
            Ok(before.iter().filter(|transaction| now.contains(transaction)).cloned().collect())
        })
    }

    fn disarm<'a>(&'a self, worker: i64, queue: &'a str) -> BoxFuture<'a, Result<()>> {
        boxed(async move {
            let params: &Params<'_> = &[(&worker, Type::INT8), (&queue, Type::TEXT)];
            self.query("disarm the bell", &self.statements.disarm, params).await?;
            self.note_nobody_sleeps().await
        })
    }

    fn confirm<'a>(&'a self, worker: i64, hints: &'a Hints) -> BoxFuture<'a, Result<Hints>> {
        boxed(listen::confirm(self, worker, hints))
    }

    fn prune(&self) -> BoxFuture<'_, Result<()>> {
        boxed(self.do_upkeep())
    }

    fn postgres(&self) -> Option<&Postgres> {
        Some(self)
    }

    #[cfg(feature = "schedules")]
    fn declare<'a>(&'a self, worker: i64, schedules: &'a [Schedule]) -> BoxFuture<'a, Result<()>> {
        boxed(schedules::declare(self, worker, schedules))
    }

    #[cfg(feature = "schedules")]
    fn knows_zone<'a>(&'a self, time_zone: &'a str) -> BoxFuture<'a, Result<bool>> {
        boxed(schedules::knows_zone(self, time_zone))
    }

    #[cfg(feature = "schedules")]
    fn due_schedules(&self, limit: usize) -> BoxFuture<'_, Result<DueSchedules>> {
        boxed(schedules::due(self, limit))
    }

    #[cfg(feature = "schedules")]
    fn fire<'a>(&'a self, firings: &'a [Firing]) -> BoxFuture<'a, Result<usize>> {
        boxed(schedules::fire(self, firings))
    }

    #[cfg(feature = "schedules")]
    fn fire_jobs<'a>(&'a self, firing: &'a Firing, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<bool>> {
        boxed(schedules::fire_jobs(self, firing, jobs))
    }
}

impl IntoDriver for Postgres {
    fn into_driver(self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(self))
    }
}

impl IntoDriver for Database {
    fn into_driver(self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Postgres::new(self)?))
    }
}
