//! Settling together the jobs of one queue that were completed at the same attempt. Most jobs are settled this way.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::durability::answer;
use super::fence::{column, ran, waited};
use crate::driver::postgres::Postgres;
use crate::driver::postgres::hint::{Place, queue_number};
use crate::driver::postgres::session::Param;
use crate::driver::{Ending, Settlement};
use crate::error::Result;

/// The least size of a group (see `part`) that is worth a statement of its own. Settlements of a smaller group are
/// treated like settlements that fit in no group. A group that has all of the settlements stays a group at any size.
const FEW: usize = 16;

/// Divides settlements into groups, each for one statement, and the settlements that fit in no group. Both the input
/// and the results are in the order of the ids. The jobs of a group have the same worker, queue and attempt, and were
/// completed without a result.
pub(crate) fn part<'a>(settlements: &[&'a Settlement]) -> (Vec<Vec<&'a Settlement>>, Vec<&'a Settlement>) {
    let (mut groups, mut others) = (HashMap::<_, Vec<_>>::new(), Vec::new());
    for &settlement in settlements {
        let reservation = settlement.reservation;
        let queue = queue_number(reservation.hint);
        if settlement.ending == Ending::Completed(None) && queue != 0 && Place::from_hint(reservation.hint).is_some() {
            groups.entry((reservation.worker, reservation.attempt, queue)).or_default().push(settlement);
        } else {
            others.push(settlement);
        }
    }
    let is_worth_it = |group: &Vec<_>| group.len() >= FEW || group.len() == settlements.len();
    let (groups, few): (Vec<_>, Vec<_>) = groups.into_values().partition(is_worth_it);
    others.extend(few.into_iter().flatten());
    others.sort_by_key(|settlement| settlement.reservation.id);
    (groups, others)
}

/// The parameters of `sql/settle_alike.sql`.
pub(crate) struct SameQueue {
    ids: Vec<i64>,
    worker: i64,
    attempt: i32,
    reserved_at: Vec<SystemTime>,
    places: Vec<Place>,
    waited: Vec<f64>,
    ran: Vec<f64>,
    waits: Times,
    runs: Times,
}

/// The sum and the maximum of some durations, in seconds.
#[derive(Debug, PartialEq)]
struct Times {
    sum: f64,
    longest: f64,
}

impl Times {
    fn of(seconds: &[f64]) -> Times {
        Times { sum: seconds.iter().sum(), longest: seconds.iter().copied().fold(0.0, f64::max) }
    }
}

impl SameQueue {
    /// Collects the parameters from settlements of one worker, attempt and queue, in the order of their ids.
    pub(crate) fn of(settlements: &[&Settlement]) -> SameQueue {
        let (waited, ran) = (waited(settlements), ran(settlements));
        let first = settlements.first().map(|settlement| settlement.reservation);
        SameQueue {
            ids: column(settlements, |settlement| settlement.reservation.id),
            worker: first.map_or(0, |first| first.worker),
            attempt: first.map_or(0, |first| first.attempt),
            reserved_at: column(settlements, |settlement| settlement.reservation.reserved_at),
            places: settlements.iter().filter_map(|settlement| Place::from_hint(settlement.reservation.hint)).collect(),
            waits: Times::of(&waited),
            runs: Times::of(&ran),
            waited,
            ran,
        }
    }

    pub(crate) fn params(&self) -> [Param<'_>; 11] {
        [
            (&self.ids, Type::INT8_ARRAY),
            (&self.worker, Type::INT8),
            (&self.attempt, Type::INT4),
            (&self.reserved_at, Type::TIMESTAMPTZ_ARRAY),
            (&self.places, Type::TID_ARRAY),
            (&self.waits.sum, Type::FLOAT8),
            (&self.waits.longest, Type::FLOAT8),
            (&self.runs.sum, Type::FLOAT8),
            (&self.runs.longest, Type::FLOAT8),
            (&self.waited, Type::FLOAT8_ARRAY),
            (&self.ran, Type::FLOAT8_ARRAY),
        ]
    }

    /// Returns the ids of the jobs that the statement has settled. A null in the statement's answer stands for all
    /// jobs.
    fn settled(&self, row: &Row) -> Vec<i64> {
        row.get::<_, Option<Vec<i64>>>("settled").unwrap_or_else(|| self.ids.clone())
    }
}

/// Completes jobs of one worker, attempt and queue, in the order of their ids. Returns the ids of the completed jobs.
pub(crate) async fn complete(driver: &Postgres, settlements: &[&Settlement]) -> Result<HashSet<i64>> {
    let group = SameQueue::of(settlements);
    let rows = answer(driver, &driver.statements.settle_alike, &group.params(), settlements.len()).await?;
    Ok(rows.first().into_iter().flat_map(|row| group.settled(row)).collect())
}

/// A number for each queue from which this driver has claimed jobs. The `hint` of a reservation has room for this
/// number, but not for the queue's name.
#[derive(Default)]
pub(crate) struct Queues(Mutex<HashMap<String, u16>>);

impl Queues {
    /// Returns the number of a queue, from 1. Returns 0 if the queue has no number and all 65,535 numbers are taken.
    pub(crate) fn number(&self, queue: &str) -> u16 {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&known) = numbers.get(queue) {
            return known;
        }
        let Ok(number) = u16::try_from(numbers.len() + 1) else { return 0 };
        numbers.insert(queue.to_owned(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::driver::postgres::hint::with_queue;
    use crate::job::Reservation;
    use crate::job::payload::Payload;

    /// Returns the `hint` of a reservation in the queue with this number. The row's tuple id is arbitrary.
    fn hint(queue: u16) -> u64 {
        with_queue(queue, 9)
    }

    /// Returns the settlements of one claim: `count` jobs whose ids start at `from`.
    fn claim(worker: i64, from: i64, count: usize, result: Option<Payload>, hint: u64) -> Vec<Settlement> {
        let reserved_at = SystemTime::UNIX_EPOCH + Duration::from_secs(from as u64);
        let reservation = |id| Reservation { hint, ..Reservation::new(id, worker, 1, reserved_at) };
        let of = |id| Settlement::new(reservation(id), Ending::Completed(result.clone()));
        (from..).take(count).map(of).collect()
    }

    /// Divides the settlements. Returns the sizes of the groups, and the ids of the settlements that fit in no group.
    fn parted(claims: &[Vec<Settlement>]) -> (Vec<usize>, Vec<i64>) {
        let mut all: Vec<_> = claims.iter().flatten().collect();
        all.sort_by_key(|settlement| settlement.reservation.id);
        let (groups, others) = part(&all);
        let mut sizes: Vec<_> = groups.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        (sizes, column(&others, |settlement| settlement.reservation.id))
    }

    #[test]
    fn many_jobs_of_a_worker_and_queue_settle_together() {
        let of = |worker, from, count, queue| claim(worker, from, count, None, hint(queue));
        assert_eq!(parted(&[of(1, 1, 2, 1)]), (vec![2], vec![]), "a small group of all settlements stays a group");
        assert_eq!(parted(&[of(1, 1, FEW, 1), of(2, 100, FEW + 1, 1)]), (vec![FEW, FEW + 1], vec![]));
        assert_eq!(parted(&[of(1, 1, FEW, 1), of(1, 100, FEW + 1, 2)]), (vec![FEW, FEW + 1], vec![]));
        assert_eq!(parted(&[of(1, 3, 2, 1), of(2, 1, 2, 1), of(3, 100, FEW, 1)]), (vec![FEW], vec![1, 2, 3, 4]));
    }

    #[test]
    fn jobs_of_several_claims_keep_their_own_reservations() {
        let claims = [claim(1, 1, 2, None, hint(1)), claim(1, 100, FEW, None, hint(1))];
        assert_eq!(parted(&claims), (vec![FEW + 2], vec![]));
        let group = SameQueue::of(&claims.iter().flatten().collect::<Vec<_>>());
        let reserved = claims.iter().flatten().map(|settlement| settlement.reservation.reserved_at);
        assert_eq!(group.reserved_at, reserved.collect::<Vec<_>>());
    }

    #[test]
    fn a_job_with_a_result_or_an_unknown_place_settles_by_its_id() {
        assert_eq!(parted(&[claim(1, 1, 2, Some(Payload::encode(&()).unwrap()), hint(1))]), (vec![], vec![1, 2]));
        for hint in [0, hint(0), with_queue(1, 0)] {
            assert_eq!(parted(&[claim(1, 1, 2, None, hint)]), (vec![], vec![1, 2]), "{hint}");
        }
    }

    #[test]
    fn each_of_the_first_65535_queues_has_its_own_number() {
        let queues = Queues::default();
        assert_eq!(queues.number("first"), 1);
        for number in 2..=u16::MAX {
            assert_eq!(queues.number(&format!("queue {number}")), number);
        }
        assert_eq!(queues.number("one too many"), 0);
        assert_eq!(queues.number("first"), 1);
    }

    #[test]
    fn a_group_has_the_sum_and_the_longest_of_its_times() {
        let mut settlements = claim(1, 1, 3, None, hint(1));
        for (settlement, seconds) in settlements.iter_mut().zip([2, 3, 1]) {
            (settlement.waited, settlement.ran) = (Duration::from_secs(seconds), Duration::from_secs(10 * seconds));
        }
        let group = SameQueue::of(&settlements.iter().collect::<Vec<_>>());
        assert_eq!((group.waits, group.runs), (Times { sum: 6.0, longest: 3.0 }, Times { sum: 60.0, longest: 30.0 }));
    }
}
