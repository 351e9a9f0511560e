//! Settling: sorts the settlements by their endings, and records each group by the fastest statement that fits.

use std::collections::{HashMap, HashSet};

use super::Postgres;
use crate::driver::settlement::too_large_result;
use crate::driver::{Ending, Settled, Settlement};
use crate::error::{Error, Result};
use crate::job::Reservation;

pub(crate) mod by_id;
pub(crate) mod by_place;
pub(crate) mod durability;
pub(crate) mod fence;
pub(crate) mod locked;

use by_id::{Counting, SettleStatement, run};
use locked::{Answers, counted};

/// Records all of the settlements. Returns the fates of the settlements whose reservations still stood.
pub(crate) async fn settle(driver: &Postgres, settlements: &[Settlement]) -> Result<HashMap<Reservation, Settled>> {
    let mut left: Vec<&Settlement> = settlements.iter().collect();
    left.sort_by_key(|settlement| settlement.reservation.id);
    let mut all = HashMap::new();
    while !left.is_empty() {
        // A job may occur twice, if its first reservation was lost and the job was claimed again.
        let mut last = None;
        let is_first =
            |settlement: &&Settlement| last.replace(settlement.reservation.id) != Some(settlement.reservation.id);
        let (batch, again) = left.into_iter().partition::<Vec<_>, _>(is_first);
        let settled = settle_each(driver, &batch).await.map_err(|error| named(error, &batch))?;
        all.extend(batch.iter().filter_map(|settlement| {
            let settled = settled.get(&settlement.reservation.id)?;
            Some((settlement.reservation, settled.clone()))
        }));
        left = again;
    }
    Ok(all)
}

/// Names the job of a batch of one whose result is too large.
fn named(error: Error, batch: &[&Settlement]) -> Error {
    match batch {
        [one] if error.is_refused_by("result_of_a_linked_job_is_at_most_1_mib") => {
            too_large_result(one.reservation.id).with_source(error)
        }
        _ => error,
    }
}

/// Settles jobs in the order of their ids. No two of the settlements may be of the same job.
async fn settle_each(driver: &Postgres, settlements: &[&Settlement]) -> Result<Answers> {
    let (mut finished, mut waiting, mut dead, mut recorded) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for &settlement in settlements {
        match settlement.ending {
            Ending::Completed(_) | Ending::Cancelled => finished.push(settlement),
            Ending::Waiting { .. } | Ending::Released => waiting.push(settlement),
            Ending::Dead(_) => dead.push(settlement),
            Ending::Recorded(_) => recorded.push(settlement),
        }
    }
    // All four statements run to their end: an abandoned statement could block the next try.
    let (mut answers, waiting, dead, recorded) = futures::join!(
        finish(driver, &finished),
        by_id(driver, SettleStatement::PutBack, &waiting),
        by_id(driver, SettleStatement::Bury, &dead),
        by_id(driver, SettleStatement::Count, &recorded),
    );
    for more in [waiting?, dead?, recorded?] {
        answers.as_mut().map(|answers| answers.extend(more)).ok();
    }
    answers
}

async fn finish(driver: &Postgres, settlements: &[&Settlement]) -> Result<Answers> {
    let (groups, others) = by_place::part(settlements);
    // These settlements come first, because the server may refuse one of them. After such an error, no group is
    // settled, and the caller tries all of them again.
    let mut answers = by_id(driver, SettleStatement::Finish, &others).await?;
    let mut left = Vec::new();
    for group in groups {
        let completed = match driver.locks.are_expected() {
            true => HashSet::new(),
            false => match by_place::complete(driver, &group).await {
                Err(error) if error.is_locked() => {
                    driver.locks.met();
                    HashSet::new()
                }
                completed => completed?,
            },
        };
        left.extend(group.into_iter().filter(|settlement| !completed.contains(&settlement.reservation.id)));
        answers.extend(completed.into_iter().map(|id| (id, Settled::Counted)));
    }
    left.sort_by_key(|settlement| settlement.reservation.id);
    answers.extend(by_id(driver, SettleStatement::Finish, &left).await?);
    Ok(answers)
}

/// Records settlements by the ids of their jobs, and passes over the jobs whose rows other sessions have locked.
async fn by_id(driver: &Postgres, statement: SettleStatement, settlements: &[&Settlement]) -> Result<Answers> {
    if settlements.is_empty() {
        return Ok(Answers::new());
    }
    if !driver.locks.are_expected() {
        match run(driver, statement, settlements, Counting::Usual).await {
            Err(error) if error.is_locked() => driver.locks.met(),
            settled => return Ok(counted(settled?)),
        }
    }
    if statement == SettleStatement::Count {
        return Ok(counted(run(driver, statement, settlements, Counting::Apart).await?));
    }
    locked::settle(driver, statement, settlements).await
}
