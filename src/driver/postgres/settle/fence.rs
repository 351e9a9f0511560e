//! The fence: a settlement counts only while its reservation stands.

use std::time::SystemTime;

use tokio_postgres::types::Type;

use crate::driver::Settlement;
use crate::driver::postgres::session::{Param, Params};

/// The first four parameters of every settling statement: the reservations, with one element per job.
pub(crate) struct Fence {
    ids: Vec<i64>,
    workers: Vec<i64>,
    attempts: Vec<i32>,
    reserved_at: Vec<SystemTime>,
}

impl Fence {
    pub(crate) fn of(settlements: &[&Settlement]) -> Fence {
        Fence {
            ids: column(settlements, |settlement| settlement.reservation.id),
            workers: column(settlements, |settlement| settlement.reservation.worker),
            attempts: column(settlements, |settlement| settlement.reservation.attempt),
            reserved_at: column(settlements, |settlement| settlement.reservation.reserved_at),
        }
    }

    /// Returns all parameters of a statement: the parameters of the fence, and then `particular`.
    pub(crate) fn before<'a>(&'a self, particular: &Params<'a>) -> Vec<Param<'a>> {
        let fence: &Params<'_> = &[
            (&self.ids, Type::INT8_ARRAY),
            (&self.workers, Type::INT8_ARRAY),
            (&self.attempts, Type::INT4_ARRAY),
            (&self.reserved_at, Type::TIMESTAMPTZ_ARRAY),
        ];
        [fence, particular].concat()
    }
}

pub(crate) fn ran(settlements: &[&Settlement]) -> Vec<f64> {
    column(settlements, |settlement| settlement.ran.as_secs_f64())
}

pub(crate) fn waited(settlements: &[&Settlement]) -> Vec<f64> {
    column(settlements, |settlement| settlement.waited.as_secs_f64())
}

pub(crate) fn column<'a, T>(settlements: &[&'a Settlement], field: impl Fn(&'a Settlement) -> T) -> Vec<T> {
    settlements.iter().map(|settlement| field(settlement)).collect()
}
