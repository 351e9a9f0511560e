//! Putting back what dead workers held, and what a worker holds without knowing. A row that cannot be put back keeps no
//! other one: the jobs are halved until it is found, and it is buried.

use tokio_postgres::types::Type;

use super::Postgres;
use super::session::{Params, Plan};
use crate::driver::{Ending, Failure, Peer, Reason, Rescue, Settled, Settlement};
use crate::error::{Error, Result};
use crate::job::Reservation;

/// Declares workers dead, and puts back what no live worker holds.
pub(super) async fn rescue(driver: &Postgres, worker: i64, dead: &[Peer]) -> Result<Rescue> {
    match once(driver, worker, dead, Which::All).await {
        Err(error) if error.is_about_data() => one_by_one(driver, worker, dead).await,
        rescue => rescue,
    }
}

/// Which jobs of dead workers.
enum Which<'a> {
    All,
    These(&'a [i64]),
    /// This one is buried, with this error.
    Bury(i64, String),
}

async fn once(driver: &Postgres, worker: i64, dead: &[Peer], which: Which<'_>) -> Result<Rescue> {
    let ids: Vec<i64> = dead.iter().map(|peer| peer.id).collect();
    let seen: Vec<_> = dead.iter().map(|peer| peer.last_seen_at).collect();
    let (jobs, error): (Option<Vec<i64>>, _) = match which {
        Which::All => (None, None),
        Which::These(jobs) => (Some(jobs.to_vec()), None),
        Which::Bury(job, error) => (Some(vec![job]), Some(error)),
    };
    let params: &Params<'_> = &[
        (&ids, Type::INT8_ARRAY),
        (&seen, Type::TIMESTAMPTZ_ARRAY),
        (&worker, Type::INT8),
        (&jobs, Type::INT8_ARRAY),
        (&error, Type::TEXT),
    ];
    let mut rescue = Rescue::default();
    for row in driver.on_heart("rescue jobs", Plan::Fresh, (&driver.statements.rescue, params)).await? {
        if row.get("dead") {
            rescue.dead.extend(row.get::<_, Option<i64>>("job"));
        }
        match (row.get("worker"), row.get("job")) {
            (_, Some(job)) => rescue.jobs.push(job),
            (Some(worker), None) => rescue.workers.push(worker),
            (None, None) => {}
        }
    }
    Ok(rescue)
}

/// Of these jobs some row is refused: declares the workers dead first, then finds it.
async fn one_by_one(driver: &Postgres, worker: i64, dead: &[Peer]) -> Result<Rescue> {
    let mut rescue = once(driver, worker, dead, Which::These(&[])).await?;
    let orphans = driver.on_heart("look for orphans", Plan::Fresh, (&driver.statements.orphans, &[])).await?;
    let mut left = vec![orphans.iter().map(|row| row.get("id")).collect::<Vec<i64>>()];
    while let Some(mut jobs) = left.pop() {
        match (once(driver, worker, &[], Which::These(&jobs)).await, &jobs[..]) {
            (Ok(more), _) => {
                rescue.jobs.extend(more.jobs);
                rescue.dead.extend(more.dead);
            }
            (Err(error), &[job]) if error.is_about_data() => {
                let reason = format!("the worker that ran it died, and it could not be put back: {error}");
                let buried = once(driver, worker, &[], Which::Bury(job, reason)).await;
                let buried = told(job, &error, buried.map(|more| more.jobs))?;
                rescue.jobs.extend(&buried);
                rescue.dead.extend(buried);
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

/// Says what became of a job that could not be put back; returns it if it was buried.
fn told(id: i64, error: &Error, buried: Result<Vec<i64>>) -> Result<Vec<i64>> {
    match buried {
        Ok(buried) => {
            tracing::error!(
                name: "job.not_put_back", target: "reveille::job", id, %error,
                "the job could not be put back; it is a dead letter now"
            );
            Ok(buried)
        }
        Err(refusal) if refusal.is_about_data() => {
            tracing::error!(
                name: "job.refused", target: "reveille::job", id, error = %refusal,
                "the job can neither be put back nor buried; it stays reserved until its row is mended"
            );
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Puts back what a worker holds and does not know of.
pub(super) async fn release_strays(driver: &Postgres, worker: i64, held: &[i64]) -> Result<Vec<i64>> {
    match release(driver, worker, held, None).await {
        Err(error) if error.is_about_data() => {}
        released => return released,
    }
    let params: &Params<'_> = &[(&worker, Type::INT8), (&held, Type::INT8_ARRAY)];
    let strays = driver.query("look for strays", &driver.statements.strays, params).await?;
    let reservation = |row: &tokio_postgres::Row| Reservation {
        id: row.get("id"),
        worker,
        attempt: row.get("attempts"),
        reserved_at: row.get("reserved_at"),
        hint: 0,
    };
    let mut left = vec![strays.iter().map(reservation).collect::<Vec<_>>()];
    let mut released = Vec::new();
    while let Some(mut jobs) = left.pop() {
        let ids: Vec<i64> = jobs.iter().map(|reservation| reservation.id).collect();
        match (release(driver, worker, held, Some(&ids)).await, &jobs[..]) {
            (Ok(more), _) => released.extend(more),
            (Err(error), &[job]) if error.is_about_data() => {
                released.extend(told(job.id, &error, bury(driver, job, &error).await)?);
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
    let failure = Failure { reason: Reason::Failed, error: format!("it could not be put back: {error}") };
    let ending = Ending::Dead(failure);
    let (waited, ran) = Default::default();
    let settlement = Settlement { reservation, ending, waited, ran };
    let settled = super::settle::settle(driver, &[settlement]).await?;
    Ok(settled.into_iter().filter(|(_, settled)| *settled == Settled::Counted).map(|(job, _)| job.id).collect())
}
