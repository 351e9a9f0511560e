//! Where a claim has put a row: Postgres's `ctid`, as it crosses the wire and as a reservation keeps it, with what is
//! known of its queue.

use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// A row's block, above the 16 bits of its line there, which counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u64);

/// Where a hint has the number of the job's queue: in the 16 bits above the place.
const NUMBER: u32 = 48;

impl Place {
    /// The place in a hint, if it says one.
    pub(crate) fn from_hint(hint: u64) -> Option<Place> {
        let place = hint & ((1 << NUMBER) - 1);
        (place != 0).then_some(Place(place))
    }

    /// Never zero, which is the hint that says nothing.
    pub(crate) fn hint(self) -> u64 {
        self.0
    }
}

/// The number of the job's queue in a hint; 0 for a queue without one.
pub(crate) fn queue_number(hint: u64) -> u16 {
    (hint >> NUMBER) as u16
}

/// A hint of a queue's number and a place.
pub(crate) fn with_queue(number: u16, place: u64) -> u64 {
    place | u64::from(number) << NUMBER
}

/// Four bytes for the block and two for the line: `tidsend` in the server's source.
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
    fn a_place_goes_out_as_it_came_in() {
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
