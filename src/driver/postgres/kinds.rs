//! Storing a worker's counts of attempts by kind.

use tokio_postgres::types::Type;

use super::Postgres;
use super::session::Params;
use crate::driver::{BOUNDS, NamedCount};
use crate::error::Result;

impl Postgres {
    /// Adds a worker's counts to the stored counts.
    pub(crate) async fn count_kinds(&self, counts: &[NamedCount]) -> Result<()> {
        let queues: Vec<&str> = counts.iter().map(|named| named.queue.as_str()).collect();
        let kinds: Vec<&str> = counts.iter().map(|named| named.kind.as_str()).collect();
        let completed: Vec<i64> = counts.iter().map(|named| named.count.completed).collect();
        let failed: Vec<i64> = counts.iter().map(|named| named.count.failed).collect();
        let wait_seconds: Vec<f64> = counts.iter().map(|named| named.count.waits.sum).collect();
        let run_seconds: Vec<f64> = counts.iter().map(|named| named.count.runs.sum).collect();
        let waits: Vec<i64> = counts.iter().flat_map(|named| named.count.waits.counts).collect();
        let runs: Vec<i64> = counts.iter().flat_map(|named| named.count.runs.counts).collect();
        let buckets = (BOUNDS.len() + 1) as i32;
        let params: &Params<'_> = &[
            (&queues, Type::TEXT_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&completed, Type::INT8_ARRAY),
            (&failed, Type::INT8_ARRAY),
            (&wait_seconds, Type::FLOAT8_ARRAY),
            (&run_seconds, Type::FLOAT8_ARRAY),
            (&waits, Type::INT8_ARRAY),
            (&runs, Type::INT8_ARRAY),
            (&buckets, Type::INT4),
        ];
        self.query("count attempts by kind", &self.statements.count_kinds, params).await.map(drop)
    }
}
