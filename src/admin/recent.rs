//! What happened lately, for pages that people look at: each statement looks at a bounded number of rows.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio_postgres::types::Type;

use super::{Admin, JobRow, Record, as_bytes, records};
use crate::database::Param;
use crate::driver::FailureReason;
use crate::error::{Error, Result};

/// Chooses the dead jobs that [`Admin::dead_groups`], [`Admin::dead_kinds`], [`Admin::dead_errors`] and
/// [`Admin::deaths`] read. A new one
/// chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct DeadJobs {
    queues: Option<Vec<String>>,
    kind: Option<String>,
    reason: Option<FailureReason>,
}

/// The dead jobs with the same queue, kind and reason.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadGroup {
    /// The queue of the jobs.
    pub queue: String,
    /// The kind of the jobs.
    pub kind: String,
    /// The name of the reason for which the jobs are dead.
    pub reason: String,
    /// The number of jobs.
    pub jobs: u64,
    /// The time at which the first of them died.
    pub first_died_at: Option<SystemTime>,
    /// The time at which the last of them died.
    pub last_died_at: Option<SystemTime>,
    /// The number of all groups, of which at most 200 are listed.
    pub of_groups: u64,
    /// The number of the jobs of all groups.
    pub of_jobs: u64,
}

/// The dead jobs with the same queue and kind.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadKind {
    /// The queue of the jobs.
    pub queue: String,
    /// The kind of the jobs.
    pub kind: String,
    /// The number of jobs.
    pub jobs: u64,
    /// The number of all queues and kinds with dead jobs, whether they are listed or not.
    pub of_kinds: u64,
}

/// The dead jobs of a group whose last errors have the same first line.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadError {
    /// The queue of the jobs.
    pub queue: String,
    /// The kind of the jobs.
    pub kind: String,
    /// The name of the reason for which the jobs are dead.
    pub reason: String,
    /// The first line of the error, at most 500 characters; `None` if the jobs have no error.
    pub line: Option<String>,
    /// The number of jobs with this error, of the jobs that the statement has read.
    pub jobs: u64,
    /// The number of jobs of the group that were looked at.
    pub looked_at: u64,
    /// The number of errors that the group has among these jobs.
    pub of_errors: u64,
    /// The job with this error that died last, without payload, metadata, progress and earlier errors.
    pub last: JobRow,
}

/// The number of dead jobs of a group by the time at which they died.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Deaths {
    /// The queue of the jobs.
    pub queue: String,
    /// The kind of the jobs.
    pub kind: String,
    /// The name of the reason for which the jobs are dead.
    pub reason: String,
    /// The numbers of jobs, oldest first. The last one is of the present time.
    pub bars: Vec<u64>,
    /// True if only the latest 50,000 jobs are counted.
    pub is_cut: bool,
}

/// The number of ended attempts of a queue and kind by time.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KindHistory {
    /// The queue of the jobs.
    pub queue: String,
    /// The kind of the jobs; `(other)` for all kinds past the first 200.
    pub kind: String,
    /// The numbers of completed jobs, oldest first. The last one is of the present time.
    pub completed: Vec<u64>,
    /// The numbers of failed attempts, oldest first.
    pub failed: Vec<u64>,
}

impl DeadJobs {
    /// Returns the choice of all dead jobs.
    pub fn new() -> DeadJobs {
        DeadJobs::default()
    }

    /// Chooses only jobs of these queues.
    pub fn queues<S: Into<String>>(self, queues: impl IntoIterator<Item = S>) -> DeadJobs {
        DeadJobs { queues: Some(queues.into_iter().map(Into::into).collect()), ..self }
    }

    /// Chooses only jobs of this kind.
    pub fn kind(self, kind: impl Into<String>) -> DeadJobs {
        DeadJobs { kind: Some(kind.into()), ..self }
    }

    /// Chooses only jobs that are dead for this reason.
    pub fn reason(self, reason: FailureReason) -> DeadJobs {
        DeadJobs { reason: Some(reason), ..self }
    }
}

impl Admin {
    /// Lists the groups of dead jobs with the same queue, kind and reason, at most 200. The group with the latest dead
    /// job comes first.
    ///
    /// # Errors
    /// The server's error.
    pub async fn dead_groups(&self, of: &DeadJobs) -> Result<Vec<DeadGroup>> {
        let sql = as_bytes!(include_str!("../../sql/recent_dead_groups.sql"));
        let group = |row: Record| {
            Ok(DeadGroup {
                queue: row.decode("queue")?,
                kind: row.decode("kind")?,
                reason: row.decode("reason")?,
                jobs: row.decode("jobs")?,
                first_died_at: row.time("first_died_at"),
                last_died_at: row.time("last_died_at"),
                of_groups: row.decode("of_groups")?,
                of_jobs: row.decode("of_jobs")?,
            })
        };
        self.of_dead("list dead jobs", sql, of, &[], group).await
    }

    /// Counts the dead jobs of each queue and kind. Returns at most `most` kinds, those with the most dead jobs.
    ///
    /// # Errors
    /// The server's error.
    pub async fn dead_kinds(&self, of: &DeadJobs, most: u16) -> Result<Vec<DeadKind>> {
        let sql = as_bytes!(include_str!("../../sql/dead_kinds.sql"));
        let kind = |row: Record| {
            Ok(DeadKind {
                queue: row.decode("queue")?,
                kind: row.decode("kind")?,
                jobs: row.decode("jobs")?,
                of_kinds: row.decode("of_kinds")?,
            })
        };
        self.of_dead("count dead jobs", sql, of, &[(&i32::from(most), Type::INT4)], kind).await
    }

    /// Lists at most `most` pauses: those of kinds and keys first, then those of whole queues, the latest first. With
    /// `queues`, lists only pauses that name one of these queues. The rows are those of [`View::PauseStatus`], with the
    /// number of all pauses of kinds and keys as `of_pauses`.
    ///
    /// [`View::PauseStatus`]: super::View::PauseStatus
    ///
    /// # Errors
    /// The server's error.
    pub async fn latest_pauses(&self, queues: Option<&[String]>, most: u16) -> Result<Vec<Record>> {
        let sql = as_bytes!(include_str!("../../sql/latest_pauses.sql"));
        let params: [Param<'_>; 2] = [(&queues, Type::TEXT_ARRAY), (&i32::from(most), Type::INT4)];
        records(&self.read("list pauses", sql, &params).await?)
    }

    /// Groups dead jobs by the first lines of their errors. Looks at `most` jobs, those of each queue, kind and reason
    /// that died last, and at 20 of each in any case. Returns at most `errors` errors of each queue, kind and reason.
    ///
    /// # Errors
    /// The server's error.
    pub async fn dead_errors(&self, of: &DeadJobs, most: u16, errors: u16) -> Result<Vec<DeadError>> {
        let sql = as_bytes!(include_str!("../../sql/recent_dead_errors.sql"));
        let (most, errors) = (i32::from(most), i32::from(errors));
        let error = |row: Record| {
            Ok(DeadError {
                queue: row.decode("queue")?,
                kind: row.decode("kind")?,
                reason: row.decode("reason")?,
                line: row.decode("line")?,
                jobs: row.decode("jobs")?,
                looked_at: row.decode("looked_at")?,
                of_errors: row.decode("of_errors")?,
                last: JobRow::from_record(row.part("last")?)?,
            })
        };
        self.of_dead("list dead jobs", sql, of, &[(&most, Type::INT4), (&errors, Type::INT4)], error).await
    }

    /// Counts dead jobs by the time at which they died, in so many bars of this length. The last bar is of the present
    /// time.
    ///
    /// # Errors
    /// The server's error.
    pub async fn deaths(&self, of: &DeadJobs, bar: Duration, bars: u16) -> Result<Vec<Deaths>> {
        let sql = as_bytes!(include_str!("../../sql/recent_deaths.sql"));
        let (seconds, count) = (bar.as_secs_f64().max(1.0), i32::from(bars));
        let deaths = |row: Record| {
            Ok(Deaths {
                queue: row.decode("queue")?,
                kind: row.decode("kind")?,
                reason: row.decode("reason")?,
                bars: by_age(&row, "bars", bars)?,
                is_cut: row.decode("is_cut")?,
            })
        };
        self.of_dead("count dead jobs", sql, of, &[(&seconds, Type::FLOAT8), (&count, Type::INT4)], deaths).await
    }

    /// Counts the ended attempts of each queue and kind by time, in so many bars of this length, which is a multiple of
    /// ten minutes. The last bar is of the present time. The counters hold seven days.
    ///
    /// # Errors
    /// The server's error.
    pub async fn kind_histories(&self, bar: Duration, bars: u16) -> Result<Vec<KindHistory>> {
        let sql = as_bytes!(include_str!("../../sql/recent_attempts_of_kinds.sql"));
        let (seconds, count) = (bar.as_secs_f64().max(600.0), i32::from(bars));
        let rows = self.read("count attempts", sql, &[(&seconds, Type::FLOAT8), (&count, Type::INT4)]).await?;
        let history = |row: Record| {
            Ok(KindHistory {
                queue: row.decode("queue")?,
                kind: row.decode("kind")?,
                completed: by_age(&row, "completed", bars)?,
                failed: by_age(&row, "failed", bars)?,
            })
        };
        records(&rows)?.into_iter().map(history).collect()
    }

    /// Returns the job of a kind that was enqueued last, if it is among the newest 5,000 live or finished jobs, or if
    /// it is one of the latest dead jobs. With `queues`, only jobs of these queues count.
    ///
    /// # Errors
    /// The server's error.
    pub async fn latest_of_kind(&self, kind: &str, queues: Option<&[String]>) -> Result<Option<JobRow>> {
        let sql = include_str!("../../sql/latest_of_kind.sql");
        let rows = self.read("find a job", sql, &[(&kind, Type::TEXT), (&queues, Type::TEXT_ARRAY)]).await?;
        match rows.first().and_then(|row| row.get::<_, Option<i64>>("id")) {
            Some(id) => self.job(id).await,
            None => Ok(None),
        }
    }

    async fn of_dead<T>(
        &self,
        what: &str,
        sql: &'static str,
        of: &DeadJobs,
        further: &[Param<'_>],
        row: impl Fn(Record) -> Result<T>,
    ) -> Result<Vec<T>> {
        let reason = of.reason.map(FailureReason::name);
        let mut params: Vec<Param<'_>> =
            vec![(&of.queues, Type::TEXT_ARRAY), (&of.kind, Type::TEXT), (&reason, Type::TEXT)];
        params.extend(further.iter().cloned());
        records(&self.read(what, sql, &params).await?)?.into_iter().map(row).collect()
    }
}

/// Returns the values of the bars, oldest first. The column has them by their age.
fn by_age(row: &Record, column: &str, bars: u16) -> Result<Vec<u64>> {
    let by_age: BTreeMap<String, f64> = row.decode(column)?;
    let age_of = |age: &str| age.parse::<u16>().ok().filter(|age| *age < bars);
    let mut values = vec![0; bars.into()];
    for (age, value) in by_age {
        let age = age_of(&age).ok_or_else(|| Error::unavailable(format!("cannot read a chart: bar {age:?}")))?;
        values[usize::from(bars - 1 - age)] = value.max(0.0) as u64;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::super::record::of_json;
    use super::*;

    #[test]
    fn bars_are_in_the_order_of_time() {
        let row = of_json(r#"{"bars": {"0": 7, "2": 5}, "late": {"3": 1}}"#).unwrap();
        assert_eq!(by_age(&row, "bars", 3).unwrap(), [5, 0, 7]);
        assert!(by_age(&row, "late", 3).is_err());
    }
}
