//! Enqueuing a great many jobs by COPY, row by row.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};

use super::insert::MILLENNIUM;
use super::schema::Schema;
use crate::error::{Error, Result};
use crate::job::{Due, NewJob};

/// The types of the columns of `sql/enqueue_copy.sql`.
const TYPES: [Type; 11] = [
    Type::TEXT,
    Type::TEXT,
    Type::JSONB,
    Type::INT2,
    Type::INT4,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::INTERVAL,
    Type::TEXT_ARRAY,
    Type::JSONB,
    Type::INT8,
];

/// Stores all jobs, or no job if an item of `jobs` is an error. Returns the number of stored jobs.
pub(crate) async fn copy(
    client: &Client,
    schema: &str,
    jobs: &mut (dyn Iterator<Item = Result<NewJob>> + Send),
) -> Result<u64> {
    let failed = |error| Error::database("enqueue", error);
    let sql = Schema::new(schema)?.apply(include_str!("../../sql/enqueue_copy.sql"));
    // COPY takes no expressions, so this program computes the due times. It reads the database's clock for this.
    let now: SystemTime = client.query_typed_one("select pg_catalog.now()", &[]).await.map_err(failed)?.get(0);
    let sink = client.copy_in(&*sql).await.map_err(failed)?;
    let mut rows = pin!(BinaryCopyInWriter::new(sink, &TYPES));
    for job in jobs {
        let job = job?;
        let available_at = match job.due {
            Due::At(at) => at,
            Due::In(delay) => now + delay.min(MILLENNIUM),
        };
        let tags = (!job.tags.is_empty()).then_some(&job.tags);
        let row: [&(dyn ToSql + Sync); TYPES.len()] = [
            &job.queue,
            &job.kind,
            &job.payload,
            &job.priority.level(),
            &(job.max_attempts as i32),
            &available_at,
            &job.key,
            &job.timeout.map(|timeout| Interval(timeout.min(MILLENNIUM))),
            &tags,
            &job.metadata,
            &job.parent_id,
        ];
        rows.as_mut().write(&row).await.map_err(failed)?;
    }
    rows.finish().await.map_err(failed)
}

/// A duration as Postgres' `interval`.
#[derive(Debug)]
struct Interval(Duration);

impl ToSql for Interval {
    /// Writes microseconds, then zero days and months, as the server's `interval_send` does.
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX).to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        Ok(IsNull::No)
    }

    accepts!(INTERVAL);
    to_sql_checked!();
}
