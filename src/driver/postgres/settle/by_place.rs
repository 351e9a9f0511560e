//! Settling together what is completed of one queue at the same attempt, which is most of what there is to settle.

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

/// Of fewer alike, with others there, none is settled by a statement of its own.
const FEW: usize = 16;

/// Parts these, in the order of their ids, into those alike and the others.
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
    let (alike, few): (Vec<_>, Vec<_>) = groups.into_values().partition(is_worth_it);
    others.extend(few.into_iter().flatten());
    others.sort_by_key(|settlement| settlement.reservation.id);
    (alike, others)
}

/// The parameters of the statements.
pub(crate) struct Alike {
    ids: Vec<i64>,
    worker: i64,
    attempt: i32,
    reserved_at: Vec<SystemTime>,
    places: Vec<Place>,
    waited: Vec<f64>,
    ran: Vec<f64>,
    sums: [f64; 4],
}

impl Alike {
    /// Of settlements of one worker, attempt and queue, in the order of their ids.
    pub(crate) fn of(settlements: &[&Settlement]) -> Alike {
        let (waited, ran) = (waited(settlements), ran(settlements));
        let first = settlements.first().map(|settlement| settlement.reservation);
        Alike {
            ids: column(settlements, |settlement| settlement.reservation.id),
            worker: first.map_or(0, |first| first.worker),
            attempt: first.map_or(0, |first| first.attempt),
            reserved_at: column(settlements, |settlement| settlement.reservation.reserved_at),
            places: settlements.iter().filter_map(|settlement| Place::from_hint(settlement.reservation.hint)).collect(),
            sums: [waited.iter().sum(), longest(&waited), ran.iter().sum(), longest(&ran)],
            waited,
            ran,
        }
    }

    /// Those of `sql/settle_alike.sql`.
    pub(crate) fn params(&self) -> [Param<'_>; 11] {
        let [waited, longest_wait, ran, longest_run] = &self.sums;
        [
            (&self.ids, Type::INT8_ARRAY),
            (&self.worker, Type::INT8),
            (&self.attempt, Type::INT4),
            (&self.reserved_at, Type::TIMESTAMPTZ_ARRAY),
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

/// Completes these, of one worker, attempt and queue and in the order of their ids; returns the ids of those that could
/// be.
pub(crate) async fn complete(driver: &Postgres, settlements: &[&Settlement]) -> Result<HashSet<i64>> {
    let alike = Alike::of(settlements);
    let rows = answer(driver, &driver.statements.settle_alike, &alike.params(), settlements.len()).await?;
    Ok(rows.first().into_iter().flat_map(|row| alike.settled(row)).collect())
}

/// A number for each queue that was claimed from, which a reservation's hint keeps in place of the queue's name.
#[derive(Default)]
pub(crate) struct Queues(Mutex<HashMap<String, u16>>);

impl Queues {
    /// From 1; 0 where there are more queues than numbers.
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

    /// Somewhere, in the queue of that number.
    fn hint(queue: u16) -> u64 {
        with_queue(queue, 9)
    }

    /// So many of a claim, from that id on.
    fn claim(worker: i64, from: i64, count: usize, result: Option<Payload>, hint: u64) -> Vec<Settlement> {
        let reserved_at = SystemTime::UNIX_EPOCH + Duration::from_secs(from as u64);
        let of = |id| Settlement {
            reservation: Reservation { id, worker, attempt: 1, reserved_at, hint },
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
    fn many_of_a_worker_and_queue_are_alike_and_so_are_few_if_there_is_nothing_else() {
        let of = |worker, from, count, queue| claim(worker, from, count, None, hint(queue));
        assert_eq!(parted(&[of(1, 1, 2, 1)]), (vec![2], vec![]));
        assert_eq!(parted(&[of(1, 1, FEW, 1), of(2, 100, FEW + 1, 1)]), (vec![FEW, FEW + 1], vec![]));
        assert_eq!(parted(&[of(1, 1, FEW, 1), of(1, 100, FEW + 1, 2)]), (vec![FEW, FEW + 1], vec![]));
        assert_eq!(parted(&[of(1, 3, 2, 1), of(2, 1, 2, 1), of(3, 100, FEW, 1)]), (vec![FEW], vec![1, 2, 3, 4]));
    }

    #[test]
    fn what_several_claims_reserved_is_alike_each_job_with_its_own_reservation() {
        let claims = [claim(1, 1, 2, None, hint(1)), claim(1, 100, FEW, None, hint(1))];
        assert_eq!(parted(&claims), (vec![FEW + 2], vec![]));
        let alike = Alike::of(&claims.iter().flatten().collect::<Vec<_>>());
        let reserved = claims.iter().flatten().map(|settlement| settlement.reservation.reserved_at);
        assert_eq!(alike.reserved_at, reserved.collect::<Vec<_>>());
    }

    #[test]
    fn what_has_a_result_or_says_no_place_or_no_queue_is_like_no_other() {
        assert_eq!(parted(&[claim(1, 1, 2, Some(Payload::encode(&()).unwrap()), hint(1))]), (vec![], vec![1, 2]));
        for hint in [0, hint(0), with_queue(1, 0)] {
            assert_eq!(parted(&[claim(1, 1, 2, None, hint)]), (vec![], vec![1, 2]), "{hint}");
        }
    }

    #[test]
    fn queues_have_numbers_of_their_own_while_there_are_any() {
        let queues = Queues::default();
        assert_eq!(queues.number("first"), 1);
        for number in 2..=u16::MAX {
            assert_eq!(queues.number(&format!("queue {number}")), number);
        }
        assert_eq!(queues.number("one too many"), 0);
        assert_eq!(queues.number("first"), 1);
    }

    #[test]
    fn sums_and_the_longest_are_those_of_all() {
        let mut settlements = claim(1, 1, 3, None, hint(1));
        for (settlement, seconds) in settlements.iter_mut().zip([2, 3, 1]) {
            (settlement.waited, settlement.ran) = (Duration::from_secs(seconds), Duration::from_secs(10 * seconds));
        }
        let alike = Alike::of(&settlements.iter().collect::<Vec<_>>());
        assert_eq!(alike.sums, [6.0, 3.0, 60.0, 30.0]);
    }
}
