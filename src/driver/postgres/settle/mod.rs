//! Endings of attempts, sorted by what becomes of the job, and settled by the quickest statement that fits.

use std::collections::{HashMap, HashSet};

use super::Postgres;
use crate::driver::{Ending, Settled, Settlement};
use crate::error::Result;
use crate::job::Reservation;

pub(crate) mod by_id;
pub(crate) mod by_place;
pub(crate) mod durability;
pub(crate) mod fence;
pub(crate) mod locked;

use by_id::{Kind, On, run};
use locked::{Answers, counted};

/// Settles all of them; returns what became of each that still stood.
pub(crate) async fn settle(driver: &Postgres, settlements: &[Settlement]) -> Result<HashMap<Reservation, Settled>> {
    let mut left: Vec<&Settlement> = settlements.iter().collect();
    left.sort_by_key(|settlement| settlement.reservation.id);
    let mut all = HashMap::new();
    while !left.is_empty() {
        // A job may be there twice, if its reservation was lost and it was claimed again.
        let mut last = None;
        let is_first =
            |settlement: &&Settlement| last.replace(settlement.reservation.id) != Some(settlement.reservation.id);
        let (batch, again) = left.into_iter().partition::<Vec<_>, _>(is_first);
        let settled = settle_each(driver, &batch).await?;
        all.extend(batch.iter().filter_map(|settlement| {
            let settled = settled.get(&settlement.reservation.id)?;
            Some((settlement.reservation, settled.clone()))
        }));
        left = again;
    }
    Ok(all)
}

/// Settles these, of which each has an id of its own, in the order of their ids.
async fn settle_each(driver: &Postgres, settlements: &[&Settlement]) -> Result<Answers> {
    let (mut finished, mut waiting, mut dead, mut recorded) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for &settlement in settlements {
        match settlement.ending {
            Ending::Completed(_) | Ending::Cancelled => finished.push(settlement),
            Ending::Waiting { .. } => waiting.push(settlement),
            Ending::Dead(_) => dead.push(settlement),
            Ending::Recorded(_) => recorded.push(settlement),
        }
    }
    // Each to its end: a statement that is given up in its middle would be in the way of the next try.
    let (mut answers, waiting, dead, recorded) = futures::join!(
        finish(driver, &finished),
        by_id(driver, Kind::PutBack, &waiting),
        by_id(driver, Kind::Bury, &dead),
        by_id(driver, Kind::Count, &recorded),
    );
    for more in [waiting?, dead?, recorded?] {
        answers.as_mut().map(|answers| answers.extend(more)).ok();
    }
    answers
}

async fn finish(driver: &Postgres, settlements: &[&Settlement]) -> Result<Answers> {
    let (alike, others) = by_place::part(settlements);
    // First those that may be refused, while nothing is settled yet.
    let mut answers = by_id(driver, Kind::Finish, &others).await?;
    let mut left = Vec::new();
    for claim in alike {
        let completed = match driver.locks.are_about() {
            true => HashSet::new(),
            false => match by_place::complete(driver, &claim).await {
                Err(error) if error.is_locked() => {
                    driver.locks.met();
                    HashSet::new()
                }
                completed => completed?,
            },
        };
        left.extend(claim.into_iter().filter(|settlement| !completed.contains(&settlement.reservation.id)));
        answers.extend(completed.into_iter().map(|id| (id, Settled::Counted)));
    }
    left.sort_by_key(|settlement| settlement.reservation.id);
    answers.extend(by_id(driver, Kind::Finish, &left).await?);
    Ok(answers)
}

/// Settles these, and passes over those whose rows others have locked.
async fn by_id(driver: &Postgres, kind: Kind, settlements: &[&Settlement]) -> Result<Answers> {
    if settlements.is_empty() {
        return Ok(Answers::new());
    }
    if !driver.locks.are_about() {
        match run(driver, kind, settlements, On::Usual).await {
            Err(error) if error.is_locked() => driver.locks.met(),
            settled => return Ok(counted(settled?)),
        }
    }
    if kind == Kind::Count {
        return Ok(counted(run(driver, kind, settlements, On::Apart).await?));
    }
    locked::settle(driver, kind, settlements).await
}
