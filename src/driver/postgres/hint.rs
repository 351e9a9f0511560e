//! The `hint` of a reservation: the tuple id of the job's row (Postgres's `ctid`) and the number of the job's queue.

use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// The tuple id of a row. The lowest 16 bits have the number of the line in its block, from 1. The bits above have the
/// number of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u64);

/// A `hint` has the number of the job's queue in the 16 bits above the tuple id.
const QUEUE_SHIFT: u32 = 48;

impl Place {
    /// Returns the tuple id in a `hint`; `None` if the `hint` has none.
    pub(crate) fn from_hint(hint: u64) -> Option<Place> {
        let place = hint & ((1 << QUEUE_SHIFT) - 1);
        (place != 0).then_some(Place(place))
    }

    /// Returns the `hint` with this tuple id and no queue. This `hint` is never zero.
    pub(crate) fn hint(self) -> u64 {
        self.0
    }
}

/// Returns the number of the job's queue in a `hint`; 0 for a queue without a number.
pub(crate) fn queue_number(hint: u64) -> u16 {
    (hint >> QUEUE_SHIFT) as u16
}

/// Returns the `hint` with this tuple id and the number of the job's queue.
pub(crate) fn with_queue(number: u16, place: u64) -> u64 {
    place | u64::from(number) << QUEUE_SHIFT
}

/// The wire format has four bytes for the block and two for the line (`tidsend` in the server's source).
impl<'a> FromSql<'a> for Place {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Place, Box<dyn Error + Sync + Send>> {
        let &[a, b, c, d, e, f] = raw else { return Err("unknown tid format on the wire".into()) };
        Ok(Place(u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
    }

    accepts!(TID);
}

impl ToSql for Place {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let [_, _, place @ ..] = self.0.to_be_bytes();
        out.extend_from_slice(&place);
        Ok(IsNull::No)
    }

    accepts!(TID);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_sent_as_it_was_received() {
        let sent = [0xff, 0xfe, 0, 1, 0x12, 0x34];
        let place = Place::from_sql(&Type::TID, &sent).unwrap();
        let mut out = BytesMut::new();
        let hint = with_queue(u16::MAX, place.hint());
        assert_eq!(queue_number(hint), u16::MAX);
        Place::from_hint(hint).unwrap().to_sql(&Type::TID, &mut out).unwrap();
        assert_eq!(out[..], sent);
        assert!(Place::from_sql(&Type::TID, &sent[1..]).is_err());
    }
}
