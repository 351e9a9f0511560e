//! The parameters of a claim and of a look back.

use std::time::SystemTime;

use tokio_postgres::types::{Timestamp, Type};

use crate::driver::Marks;
use crate::driver::postgres::session::Param;

/// The parameters of `sql/claim.sql` and `sql/claim_shared.sql`.
pub(crate) struct Claim<'a> {
    queue: &'a str,
    limit: i64,
    worker: i64,
    from: Places,
}

impl<'a> Claim<'a> {
    pub(crate) fn new(queue: &'a str, limit: usize, worker: i64, from: Marks) -> Claim<'a> {
        Claim { queue, limit: i64::try_from(limit).unwrap_or(i64::MAX), worker, from: Places::of(from) }
    }

    pub(crate) fn params(&self) -> [Param<'_>; 5] {
        let [times, ids] = self.from.params();
        [(&self.queue, Type::TEXT), (&self.limit, Type::INT8), (&self.worker, Type::INT8), times, ids]
    }
}

/// The parameters of `sql/heads.sql`.
pub(crate) struct Heads<'a> {
    queue: &'a str,
    from: Places,
}

impl<'a> Heads<'a> {
    pub(crate) fn new(queue: &'a str, from: Marks) -> Heads<'a> {
        Heads { queue, from: Places::of(from) }
    }

    pub(crate) fn params(&self) -> [Param<'_>; 3] {
        let [times, ids] = self.from.params();
        [(&self.queue, Type::TEXT), times, ids]
    }
}

/// The marks as two parameters, with one element per level.
pub(crate) struct Places {
    times: Vec<Timestamp<SystemTime>>,
    ids: Vec<i64>,
}

impl Places {
    pub(crate) fn of(marks: Marks) -> Places {
        let times = marks.map(|mark| mark.map_or(Timestamp::NegInfinity, |mark| Timestamp::Value(mark.available_at)));
        Places { times: times.into(), ids: marks.map(|mark| mark.map_or(0, |mark| mark.id)).into() }
    }

    pub(crate) fn params(&self) -> [Param<'_>; 2] {
        [(&self.times, Type::TIMESTAMPTZ_ARRAY), (&self.ids, Type::INT8_ARRAY)]
    }
}
