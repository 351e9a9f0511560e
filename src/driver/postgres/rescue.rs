//! Taking back the jobs of dead workers, and releasing the strays of a live worker.
//!
//! A job with an odd row that the server refuses to change does not hold up the other jobs: the driver halves the set
//! of jobs until it finds the refused job, and makes it a dead job.

use tokio_postgres::types::Type;

use super::Postgres;
use super::session::{Params, Plan};
use crate::driver::{Ending, Failure, FailureReason, Peer, Rescue, Settled, Settlement};
use crate::error::{Error, Result};
use crate::job::Reservation;

/// Declares workers dead, and takes back the jobs that no live worker holds.
pub(super) async fn rescue(driver: &Postgres, worker: i64, dead: &[Peer]) -> Result<Rescue> {
    match once(driver, worker, dead, RescuedJobs::All).await {
        Err(error) if error.is_about_data() => one_by_one(driver, worker, dead).await,
        rescue => rescue,
    }
}

/// The jobs that one statement rescues.
enum RescuedJobs<'a> {
    All,
    These(&'a [i64]),
    /// Makes one job a dead job, with this error.
    Bury(i64, String),
}

async fn once(driver: &Postgres, worker: i64, dead: &[Peer], jobs: RescuedJobs<'_>) -> Result<Rescue> {
    let ids: Vec<i64> = dead.iter().map(|peer| peer.id).collect();
    let seen: Vec<_> = dead.iter().map(|peer| peer.last_seen_at).collect();
    let (jobs, error): (Option<Vec<i64>>, _) = match jobs {
        RescuedJobs::All => (None, None),
        RescuedJobs::These(jobs) => (Some(jobs.to_vec()), None),
        RescuedJobs::Bury(job, error) => (Some(vec![job]), Some(error)),
    };
    let params: &Params<'_> = &[
        (&ids, Type::INT8_ARRAY),
        (&seen, Type::TIMESTAMPTZ_ARRAY),
        (&worker, Type::INT8),
        (&jobs, Type::INT8_ARRAY),
        (&error, Type::TEXT),
    ];
    let mut rescue = Rescue::default();
    for row in driver.on_heartbeat_session("rescue jobs", Plan::Fresh, (&driver.statements.rescue, params)).await? {
        if row.get("dead") {
            rescue.dead.extend(row.get::<_, Option<i64>>("job"));
        }
        match (row.get("worker"), row.get("job")) {
            (_, Some(job)) => {
                rescue.jobs.push(job);
                rescue.kinds.push((row.get("queue"), row.get("kind")));
            }
            (Some(worker), None) => rescue.workers.push(worker),
            (None, None) => {}
        }
    }
    Ok(rescue)
}

/// Rescues jobs after the server has refused to change one of their rows. Declares the workers dead first. Then halves
/// the set of jobs until the refused row is found.
async fn one_by_one(driver: &Postgres, worker: i64, dead: &[Peer]) -> Result<Rescue> {
    let mut rescue = once(driver, worker, dead, RescuedJobs::These(&[])).await?;
    let orphans = (&*driver.statements.orphans, [].as_slice());
    let orphans = driver.on_heartbeat_session("find orphans", Plan::Fresh, orphans).await?;
    let mut left = vec![orphans.iter().map(|row| row.get("id")).collect::<Vec<i64>>()];
    while let Some(mut jobs) = left.pop() {
        match (once(driver, worker, &[], RescuedJobs::These(&jobs)).await, &jobs[..]) {
            (Ok(more), _) => {
                rescue.jobs.extend(more.jobs);
                rescue.dead.extend(more.dead);
                rescue.kinds.extend(more.kinds);
            }
            (Err(error), &[job]) if error.is_about_data() => {
                let reason = format!("the worker that ran it died, and the job could not be rescued: {error}");
                let buried = once(driver, worker, &[], RescuedJobs::Bury(job, reason)).await;
                let buried = log_burial(job, &error, buried)?;
                rescue.jobs.extend(&buried.jobs);
                rescue.dead.extend(buried.jobs);
                rescue.kinds.extend(buried.kinds);
            }
            (Err(error), _) if error.is_about_data() => {
                let half = jobs.split_off(jobs.len() / 2);
                left.extend([half, jobs]);
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(rescue)
}

/// Logs the fate of a job that the server refused to put back into its queue. `buried`: the answer to the try to make
/// it a dead job. Returns the default if the server refused that too.
fn log_burial<T: Default>(id: i64, error: &Error, buried: Result<T>) -> Result<T> {
    match buried {
        Ok(buried) => {
            tracing::error!(
                name: "job.not_put_back", target: "reveille::job", id, %error,
                "cannot put the job back into its queue; it is a dead job now"
            );
            Ok(buried)
        }
        Err(refusal) if refusal.is_about_data() => {
            tracing::error!(
                name: "job.refused", target: "reveille::job", id, error = %refusal,
                "the store refuses the job's values, so the job can neither go back into its queue nor become a dead \
                 job; repair its row"
            );
            Ok(T::default())
        }
        Err(error) => Err(error),
    }
}

/// Releases the strays of a worker: the jobs that it has reserved without its knowledge.
pub(super) async fn release_strays(driver: &Postgres, worker: i64, held: &[i64]) -> Result<Vec<i64>> {
    match release(driver, worker, held, None).await {
        Err(error) if error.is_about_data() => {}
        released => return released,
    }
    let params: &Params<'_> = &[(&worker, Type::INT8), (&held, Type::INT8_ARRAY)];
    let strays = driver.query("find strays", &driver.statements.strays, params).await?;
    let reservation = |row: &tokio_postgres::Row| {
        Reservation::new(row.get("id"), worker, row.get("attempts"), row.get("reserved_at"))
    };
    let mut left = vec![strays.iter().map(reservation).collect::<Vec<_>>()];
    let mut released = Vec::new();
    while let Some(mut jobs) = left.pop() {
        let ids: Vec<i64> = jobs.iter().map(|reservation| reservation.id).collect();
        match (release(driver, worker, held, Some(&ids)).await, &jobs[..]) {
            (Ok(more), _) => released.extend(more),
            (Err(error), &[job]) if error.is_about_data() => {
                released.extend(log_burial(job.id, &error, bury(driver, job, &error).await)?);
            }
            (Err(error), _) if error.is_about_data() => {
                let half = jobs.split_off(jobs.len() / 2);
                left.extend([half, jobs]);
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(released)
}

async fn release(driver: &Postgres, worker: i64, held: &[i64], only: Option<&[i64]>) -> Result<Vec<i64>> {
    let params: &Params<'_> = &[(&worker, Type::INT8), (&held, Type::INT8_ARRAY), (&only, Type::INT8_ARRAY)];
    let rows = driver.query("release strays", &driver.statements.release_strays, params).await?;
    Ok(rows.iter().map(|row| row.get("id")).collect())
}

async fn bury(driver: &Postgres, reservation: Reservation, error: &Error) -> Result<Vec<i64>> {
    let failure = Failure::new(FailureReason::Failed, format!("the job could not be released: {error}"));
    let settlement = Settlement::new(reservation, Ending::Dead(failure.clone()));
    let settled = super::settle::settle(driver, &[settlement]).await?;
    let buried = settled.into_iter().filter(|(_, settled)| *settled == Settled::Counted);
    let buried: Vec<i64> = buried.map(|(job, _)| job.id).collect();
    buried.iter().for_each(|&id| failure.log_death(id));
    Ok(buried)
}
