//! Settling together what one claim has reserved and is completed, which is most of what there is to settle.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::Postgres;
use super::place::{self, Place};
use super::session::Param;
use super::settle::{answer, column, ran, waited};
use crate::driver::{Ending, Settlement};
use crate::error::Result;

/// Of fewer alike, others being there too, none is settled by a statement of its own.
const FEW: usize = 16;

/// Parts these, in the order of their ids, into those alike and the others.
pub(super) fn part<'a>(settlements: &[&'a Settlement]) -> (Vec<Vec<&'a Settlement>>, Vec<&'a Settlement>) {
    let (mut claims, mut others) = (HashMap::<_, Vec<_>>::new(), Vec::new());
    for &settlement in settlements {
        let reservation = settlement.reservation;
        if settlement.ending == Ending::Completed(None) && Place::from_hint(reservation.hint).is_some() {
            let claim = (reservation.worker, reservation.attempt, reservation.reserved_at);
            claims.entry(claim).or_default().push(settlement);
        } else {
            others.push(settlement);
        }
    }
    let is_worth_it = |claim: &Vec<_>| claim.len() >= FEW || claim.len() == settlements.len();
    let (alike, few): (Vec<_>, Vec<_>) = claims.into_values().partition(is_worth_it);
    others.extend(few.into_iter().flatten());
    others.sort_by_key(|settlement| settlement.reservation.id);
    (alike, others)
}

/// The parameters of the statements.
pub(super) struct Alike {
    ids: Vec<i64>,
    worker: i64,
    attempt: i32,
    reserved_at: SystemTime,
    places: Vec<Place>,
    waited: Vec<f64>,
    ran: Vec<f64>,
    sums: [f64; 4],
}

impl Alike {
    /// Of the settlements of one claim, in the order of their ids.
    pub(super) fn of(settlements: &[&Settlement]) -> Alike {
        let (waited, ran) = (waited(settlements), ran(settlements));
        let first = settlements.first().map(|settlement| settlement.reservation);
        Alike {
            ids: column(settlements, |settlement| settlement.reservation.id),
            worker: first.map_or(0, |first| first.worker),
            attempt: first.map_or(0, |first| first.attempt),
            reserved_at: first.map_or(SystemTime::UNIX_EPOCH, |first| first.reserved_at),
            places: settlements.iter().filter_map(|settlement| Place::from_hint(settlement.reservation.hint)).collect(),
            sums: [waited.iter().sum(), longest(&waited), ran.iter().sum(), longest(&ran)],
            waited,
            ran,
        }
    }

    /// Those of `sql/settle_alike.sql`; the first nine are those of `sql/settle_unkept.sql`.
    pub(super) fn params(&self) -> [Param<'_>; 11] {
        let [waited, longest_wait, ran, longest_run] = &self.sums;
        [
            (&self.ids, Type::INT8_ARRAY),
            (&self.worker, Type::INT8),
            (&self.attempt, Type::INT4),
            (&self.reserved_at, Type::TIMESTAMPTZ),
            (&self.places, Type::TID_ARRAY),
            (waited, Type::FLOAT8),
            (longest_wait, Type::FLOAT8),
            (ran, Type::FLOAT8),
            (longest_run, Type::FLOAT8),
            (&self.waited, Type::FLOAT8_ARRAY),
            (&self.ran, Type::FLOAT8_ARRAY),
        ]
    }

    /// Of these, the ids of those that the statement has settled.
    fn settled(&self, row: &Row) -> Vec<i64> {
        row.get::<_, Option<Vec<i64>>>("settled").unwrap_or_else(|| self.ids.clone())
    }
}

fn longest(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(0.0, f64::max)
}

/// Completes these, of one claim and in the order of their ids; returns the ids of those that could be.
pub(super) async fn complete(driver: &Postgres, settlements: &[&Settlement]) -> Result<HashSet<i64>> {
    let unkept = settlements.first().is_some_and(|first| place::is_unkept(first.reservation.hint));
    let mut completed = HashSet::new();
    if unkept {
        let alike = Alike::of(settlements);
        let rows = answer(driver, &driver.statements.settle_unkept, &alike.params()[..9], settlements.len()).await?;
        completed.extend(rows.first().into_iter().flat_map(|row| alike.settled(row)));
        if completed.len() == settlements.len() {
            return Ok(completed);
        }
    }
    let left: Vec<_> =
        settlements.iter().copied().filter(|settlement| !completed.contains(&settlement.reservation.id)).collect();
    let alike = Alike::of(&left);
    for row in answer(driver, &driver.statements.settle_alike, &alike.params(), left.len()).await? {
        driver.unkept.note(row.get("queue"), row.get("unkept"));
        completed.extend(alike.settled(&row));
    }
    Ok(completed)
}

/// The queues that were seen to keep no history when jobs of theirs were settled.
#[derive(Default)]
pub(super) struct Unkept(Mutex<HashSet<String>>);

impl Unkept {
    pub(super) fn contains(&self, queue: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(queue)
    }

    fn note(&self, queue: &str, unkept: bool) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if unkept {
            queues.insert(queue.to_owned());
        } else {
            queues.remove(queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::job::Reservation;

    /// So many of a claim, from that id on.
    fn claim(worker: i64, from: i64, count: usize, result: Option<Value>, hint: u64) -> Vec<Settlement> {
        let of = |id| Settlement {
            reservation: Reservation { id, worker, attempt: 1, reserved_at: SystemTime::UNIX_EPOCH, hint },
            ending: Ending::Completed(result.clone()),
            waited: Duration::ZERO,
            ran: Duration::ZERO,
        };
        (from..).take(count).map(of).collect()
    }

    /// The sizes of those alike, and the ids of the others.
    fn parted(claims: &[Vec<Settlement>]) -> (Vec<usize>, Vec<i64>) {
        let mut all: Vec<_> = claims.iter().flatten().collect();
        all.sort_by_key(|settlement| settlement.reservation.id);
        let (alike, others) = part(&all);
        let mut sizes: Vec<_> = alike.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        (sizes, column(&others, |settlement| settlement.reservation.id))
    }

    #[test]
    fn many_of_a_claim_are_alike_and_so_are_few_if_there_is_nothing_else() {
        assert_eq!(parted(&[claim(1, 1, 2, None, 9)]), (vec![2], vec![]));
        assert_eq!(parted(&[claim(1, 1, FEW, None, 9), claim(2, 100, FEW + 1, None, 9)]), (vec![FEW, FEW + 1], vec![]));
        let few = [claim(1, 3, 2, None, 9), claim(2, 1, 2, None, 9), claim(3, 100, FEW, None, 9)];
        assert_eq!(parted(&few), (vec![FEW], vec![1, 2, 3, 4]));
    }

    #[test]
    fn what_has_a_result_or_says_no_place_is_like_no_other() {
        assert_eq!(parted(&[claim(1, 1, 2, Some(Value::Null), 9)]), (vec![], vec![1, 2]));
        assert_eq!(parted(&[claim(1, 1, 2, None, 0)]), (vec![], vec![1, 2]));
    }

    #[test]
    fn sums_and_the_longest_are_those_of_all() {
        let mut settlements = claim(1, 1, 3, None, 9);
        for (settlement, seconds) in settlements.iter_mut().zip([2, 3, 1]) {
            (settlement.waited, settlement.ran) = (Duration::from_secs(seconds), Duration::from_secs(10 * seconds));
        }
        let alike = Alike::of(&settlements.iter().collect::<Vec<_>>());
        assert_eq!(alike.sums, [6.0, 3.0, 60.0, 30.0]);
    }
}
