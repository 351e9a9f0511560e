//! Enqueuing a great many jobs by COPY, row by row.

use std::borrow::Cow;
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

/// The query for the database's clock. COPY takes no expressions, so this program computes the due times.
pub(super) const CLOCK: &str = "select pg_catalog.now()";

/// Returns the statement that copies jobs into the tables of a schema.
pub(super) fn statement(schema: &str) -> Result<Cow<'static, str>> {
    Ok(Schema::new(schema)?.apply(include_str!("../../sql/enqueue_copy.sql")))
}

/// Stores all jobs, or no job if an item of `jobs` is an error. Returns the number of stored jobs.
pub(crate) async fn copy(
    client: &Client,
    schema: &str,
    jobs: &mut (dyn Iterator<Item = Result<NewJob>> + Send),
) -> Result<u64> {
    let failed = |error| Error::database("enqueue", error);
    let sql = statement(schema)?;
    let now: SystemTime = client.query_typed_one(CLOCK, &[]).await.map_err(failed)?.get(0);
    let sink = client.copy_in(&*sql).await.map_err(failed)?;
    let mut rows = pin!(BinaryCopyInWriter::new(sink, &TYPES));
    for job in jobs {
        let row = Row::of(job?, now);
        rows.as_mut().write(&row.values()).await.map_err(failed)?;
    }
    rows.finish().await.map_err(failed)
}

/// A job as a row of `sql/enqueue_copy.sql`.
pub(super) struct Row {
    job: NewJob,
    priority: i16,
    max_attempts: i32,
    available_at: SystemTime,
    timeout: Option<Interval>,
}

impl Row {
    /// Returns the row of a job. `now` is the time by the database's clock.
    pub(super) fn of(job: NewJob, now: SystemTime) -> Row {
        let available_at = match job.due {
            Due::At(at) => at,
            Due::In(delay) => now + delay.min(MILLENNIUM),
        };
        let timeout = job.timeout.map(|timeout| Interval(timeout.min(MILLENNIUM)));
        let (priority, max_attempts) = (job.priority.level(), job.max_attempts as i32);
        Row { job, priority, max_attempts, available_at, timeout }
    }

    fn values(&self) -> [&(dyn ToSql + Sync); TYPES.len()] {
        let Row { job, priority, max_attempts, available_at, timeout } = self;
        let tags: &(dyn ToSql + Sync) = if job.tags.is_empty() { &None::<Vec<String>> } else { &job.tags };
        [
            &job.queue,
            &job.kind,
            &job.payload,
            priority,
            max_attempts,
            available_at,
            &job.key,
            timeout,
            tags,
            &job.metadata,
            &job.parent_id,
        ]
    }

    /// Appends the row in COPY's binary format: the number of values, then each value behind its length. A null has the
    /// length -1.
    #[cfg(feature = "sqlx")]
    pub(super) fn write(
        &self,
        out: &mut BytesMut,
    ) -> std::result::Result<(), Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&(TYPES.len() as i16).to_be_bytes());
        for (value, ty) in self.values().into_iter().zip(&TYPES) {
            let start = out.len();
            out.extend_from_slice(&(-1i32).to_be_bytes());
            if let IsNull::No = value.to_sql_checked(ty, out)? {
                let length = i32::try_from(out.len() - start - 4)?;
                out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// A duration as Postgres' `interval`.
#[derive(Debug)]
pub(super) struct Interval(Duration);

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
