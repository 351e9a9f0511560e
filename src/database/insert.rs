//! The statement that enqueues jobs on any client.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql, Type};

use super::schema::Schema;
use crate::error::{Error, Result};
use crate::job::{Due, Enqueued, NewJob};

/// A statement with its parameters and their types.
pub(crate) struct Insert<'a> {
    pub(crate) sql: Cow<'static, str>,
    params: Vec<TypedValue<'a>>,
}

pub(crate) type TypedValue<'a> = (Box<dyn ToSql + Sync + Send + 'a>, Type);

impl<'a> Insert<'a> {
    pub(crate) fn new(sql: Cow<'static, str>, params: Vec<TypedValue<'a>>) -> Insert<'a> {
        Insert { sql, params }
    }

    /// Returns the cheapest statement that stores these jobs; `None` for no jobs.
    pub(crate) fn of(schema: &Schema, jobs: &'a [NewJob]) -> Option<Insert<'a>> {
        let (sql, params) = match jobs {
            [] => return None,
            [job] if job.unique_key.is_none() => {
                (include_str!("../../sql/enqueue.sql"), params(job, (Box::new(&job.payload), Type::JSONB)))
            }
            [first, ..] if jobs.iter().all(|job| job.unique_key.is_none() && settings(job) == settings(first)) => {
                let payloads = (column(jobs, |job| &job.payload), Type::JSONB_ARRAY);
                (include_str!("../../sql/enqueue_alike.sql"), params(first, payloads))
            }
            jobs if jobs.iter().all(|job| job.unique_key.is_none()) => {
                (include_str!("../../sql/enqueue_all.sql"), columns(jobs))
            }
            jobs => {
                let mut params = columns(jobs);
                params.push((column(jobs, |job| job.unique_key.as_deref()), Type::TEXT_ARRAY));
                params.push((column(jobs, |job| job.unique_mode.name()), Type::TEXT_ARRAY));
                params.push((column(jobs, |job| job.unique_until.name()), Type::TEXT_ARRAY));
                (include_str!("../../sql/enqueue_unique.sql"), params)
            }
        };
        Some(Insert { sql: schema.apply(sql), params })
    }

    /// Returns the parameters with their types, for `query_typed`.
    pub(crate) fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.params.iter().map(|(value, ty)| (&**value as &(dyn ToSql + Sync), ty.clone())).collect()
    }

    /// Returns the types and the parameters, for a prepared statement.
    pub(crate) fn prepared(&self) -> (Vec<Type>, Vec<&(dyn ToSql + Sync)>) {
        self.typed().into_iter().map(|(value, ty)| (ty, value)).unzip()
    }
}

/// Reads the server's answer: one row per job.
pub(crate) fn enqueued(rows: Result<Vec<Row>, tokio_postgres::Error>) -> Result<Vec<Enqueued>> {
    let rows = rows.map_err(|error| Error::database("enqueue", error))?;
    Ok(rows.iter().map(|row| Enqueued { id: row.get("id"), existed: row.get("existed") }).collect())
}

/// Reads the server's answer about one job or workflow.
pub(crate) fn enqueued_one(rows: Result<Vec<Row>, tokio_postgres::Error>) -> Result<Enqueued> {
    let no_answer = || Error::unavailable("cannot enqueue: the server returned no row; try again");
    enqueued(rows)?.first().copied().ok_or_else(no_answer)
}

/// Returns all settings of a job except its payload. Jobs with equal settings and without unique keys share one
/// statement.
fn settings(job: &NewJob) -> impl PartialEq {
    // The pattern has no `..`, so that the compiler demands each new field here.
    let NewJob {
        queue,
        kind,
        priority,
        due,
        max_attempts,
        timeout,
        key,
        tags,
        metadata,
        parent_id,
        payload: _,
        unique_key: _,
        unique_mode: _,
        unique_until: _,
    } = job;
    (queue, kind, priority, due, max_attempts, timeout, key, tags, metadata, parent_id)
}

/// Returns the parameters for one job with its payload, or for many jobs with the same settings and their payloads.
pub(crate) fn params<'a>(job: &'a NewJob, payload: TypedValue<'a>) -> Vec<TypedValue<'a>> {
    let (at, delay) = due(job);
    vec![
        (Box::new(&job.queue), Type::TEXT),
        (Box::new(&job.kind), Type::TEXT),
        payload,
        (Box::new(job.priority.level()), Type::INT2),
        (Box::new(job.max_attempts as i32), Type::INT4),
        (Box::new(at), Type::TIMESTAMPTZ),
        (Box::new(delay), Type::FLOAT8),
        (Box::new(&job.key), Type::TEXT),
        (Box::new(job.timeout.map(seconds)), Type::FLOAT8),
        (Box::new((!job.tags.is_empty()).then_some(&job.tags)), Type::TEXT_ARRAY),
        (Box::new(job.metadata.as_ref()), Type::JSONB),
        (Box::new(job.parent_id), Type::INT8),
    ]
}

/// Returns the parameters for many jobs with different settings: an array per column.
fn columns<'a>(jobs: &'a [NewJob]) -> Vec<TypedValue<'a>> {
    vec![
        (column(jobs, |job| job.queue.as_str()), Type::TEXT_ARRAY),
        (column(jobs, |job| job.kind.as_str()), Type::TEXT_ARRAY),
        (column(jobs, |job| &job.payload), Type::JSONB_ARRAY),
        (column(jobs, |job| job.priority.level()), Type::INT2_ARRAY),
        (column(jobs, |job| job.max_attempts as i32), Type::INT4_ARRAY),
        (column(jobs, |job| due(job).0), Type::TIMESTAMPTZ_ARRAY),
        (column(jobs, |job| due(job).1), Type::FLOAT8_ARRAY),
        (column(jobs, |job| job.key.as_deref()), Type::TEXT_ARRAY),
        (column(jobs, |job| job.timeout.map(seconds)), Type::FLOAT8_ARRAY),
        (column(jobs, |job| (!job.tags.is_empty()).then(|| Json(Value::from(job.tags.clone())))), Type::JSONB_ARRAY),
        (column(jobs, |job| job.metadata.as_ref()), Type::JSONB_ARRAY),
        (column(jobs, |job| job.parent_id), Type::INT8_ARRAY),
    ]
}

fn column<'a, T: ToSql + Sync + Send + 'a>(
    jobs: &'a [NewJob],
    field: impl Fn(&'a NewJob) -> T,
) -> Box<dyn ToSql + Sync + Send + 'a> {
    Box::new(jobs.iter().map(field).collect::<Vec<T>>())
}

fn due(job: &NewJob) -> (Option<std::time::SystemTime>, f64) {
    match job.due {
        Due::At(at) => (Some(at), 0.0),
        Due::In(delay) => (None, seconds(delay)),
    }
}

/// Returns a duration in seconds, at most a thousand years, for the server's `make_interval(secs => …)`.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.min(MILLENNIUM).as_secs_f64()
}

/// A thousand years: the longest delay or timeout that is stored.
pub(crate) const MILLENNIUM: Duration = Duration::from_secs(31_557_600_000);
