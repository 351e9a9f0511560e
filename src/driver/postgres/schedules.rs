//! Declaring, reading and firing schedules.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, Type};

use super::session::{Param, Params};
use super::{ANSWER_WITHIN, Postgres};
use crate::database::enqueue_on::EnqueueOn;
use crate::database::insert::seconds;
use crate::driver::{DueSchedule, DueSchedules, Firing};
use crate::error::{Error, Result};
use crate::job::NewJob;
use crate::schedule::{Schedule, Timing};

pub(super) async fn declare(driver: &Postgres, worker: i64, schedules: &[Schedule]) -> Result<()> {
    if schedules.is_empty() {
        return Ok(());
    }
    // Workers that start at the same time then lock the rows in the same order.
    let mut schedules: Vec<&Schedule> = schedules.iter().collect();
    schedules.sort_by_key(|schedule| &schedule.name);
    let crons = column(&schedules, |schedule| match &schedule.timing {
        Timing::Cron(cron) => Some(cron.as_str()),
        Timing::Every(_) => None,
    });
    let intervals = column(&schedules, |schedule| match schedule.timing {
        Timing::Every(every) => Some(seconds(every)),
        Timing::Cron(_) => None,
    });
    let tags = |schedule: &Schedule| {
        let tags = &schedule.job.tags;
        (!tags.is_empty()).then(|| Json(Value::from(tags.clone())))
    };
    let params: &Params<'_> = &[
        (&worker, Type::INT8),
        (&column(&schedules, |schedule| schedule.name.as_str()), Type::TEXT_ARRAY),
        (&crons, Type::TEXT_ARRAY),
        (&intervals, Type::FLOAT8_ARRAY),
        (&column(&schedules, |schedule| schedule.time_zone.as_str()), Type::TEXT_ARRAY),
        (&column(&schedules, |schedule| schedule.catch_up.name()), Type::TEXT_ARRAY),
        (&column(&schedules, |schedule| schedule.job.kind.as_str()), Type::TEXT_ARRAY),
        (&column(&schedules, |schedule| &schedule.job.payload), Type::JSONB_ARRAY),
        (&column(&schedules, |schedule| schedule.job.queue.as_str()), Type::TEXT_ARRAY),
        (&column(&schedules, |schedule| schedule.job.priority.level()), Type::INT2_ARRAY),
        (&column(&schedules, |schedule| schedule.job.max_attempts as i32), Type::INT4_ARRAY),
        (&column(&schedules, |schedule| schedule.job.timeout.map(seconds)), Type::FLOAT8_ARRAY),
        (&column(&schedules, |schedule| schedule.job.key.as_deref()), Type::TEXT_ARRAY),
        (&column(&schedules, tags), Type::JSONB_ARRAY),
        (&column(&schedules, |schedule| schedule.job.metadata.as_ref()), Type::JSONB_ARRAY),
    ];
    let marks: &Params<'_> = &[
        (&column(&schedules, |schedule| schedule.name.as_str()), Type::TEXT_ARRAY),
        (&column(&schedules, |schedule| schedule.through_middleware), Type::BOOL_ARRAY),
    ];
    let statements = &driver.statements;
    let (declare, mark) = ((&*statements.declare_schedules, params), (&*statements.mark_schedules, marks));
    driver.sessions.query_locked(ANSWER_WITHIN, "declare schedules", declare, mark).await.map(drop)
}

pub(super) async fn knows_zone(driver: &Postgres, time_zone: &str) -> Result<bool> {
    let params: &Params<'_> = &[(&time_zone, Type::TEXT)];
    let rows = driver.query("find a time zone", &driver.statements.knows_zone, params).await?;
    Ok(rows.iter().any(|row| row.get("known")))
}

pub(super) async fn due(driver: &Postgres, limit: usize) -> Result<DueSchedules> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = driver.query("read the due schedules", &driver.statements.due_schedules, &[(&most, Type::INT8)]).await?;
    let first =
        rows.first().ok_or_else(|| Error::unavailable("cannot read the due schedules: the server returned no row"))?;
    let seconds: Option<f64> = first.get("due_seconds");
    Ok(DueSchedules {
        schedules: rows.iter().filter_map(schedule).collect::<Result<_>>()?,
        due_in: seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)),
        looked_at: first.get("looked_at"),
    })
}

fn schedule(row: &Row) -> Option<Result<DueSchedule>> {
    let id = row.get::<_, Option<i64>>("id")?;
    let timing = match row.get("cron") {
        Some(cron) => Timing::Cron(cron),
        None => Timing::Every(Duration::from_micros(row.get::<_, i64>("every_micros").max(0) as u64)),
    };
    Some(row.get::<_, &str>("catch_up").parse().map(|catch_up| DueSchedule {
        id,
        name: row.get("name"),
        through_middleware: row.get("through_middleware"),
        timing,
        time_zone: row.get("time_zone"),
        catch_up,
        counted_from: row.get("counted_from"),
        next_at: row.get("next_at"),
    }))
}

pub(super) async fn fire(driver: &Postgres, firings: &[Firing]) -> Result<usize> {
    let ticks = || firings.iter().flat_map(|firing| firing.ticks.iter().map(|tick| (firing.id, *tick)));
    let (ids, times): (Vec<i64>, Vec<SystemTime>) = ticks().unzip();
    let (moves, jobs) = (Moves::of(firings), [(&ids as _, Type::INT8_ARRAY), (&times as _, Type::TIMESTAMPTZ_ARRAY)]);
    let params: Vec<Param<'_>> = moves.params().into_iter().chain(jobs).collect();
    let rows = driver.query("fire schedules", &driver.statements.fire_schedules, &params).await?;
    Ok(moved(&rows))
}

/// Moves the schedule to its next tick without enqueuing ticks, and enqueues these jobs in the same transaction.
pub(super) async fn fire_jobs(driver: &Postgres, firing: &Firing, jobs: &[NewJob]) -> Result<bool> {
    let failed = |error| Error::database("fire a schedule", error);
    let mut client = driver.sessions.client().await?;
    let transaction = client.transaction().await.map_err(failed)?;
    let moves = Moves::of(std::slice::from_ref(firing));
    let none: (&[i64], &[SystemTime]) = (&[], &[]);
    let ticks: [Param<'_>; 2] = [(&none.0, Type::INT8_ARRAY), (&none.1, Type::TIMESTAMPTZ_ARRAY)];
    let params: Vec<Param<'_>> = moves.params().into_iter().chain(ticks).collect();
    let rows = transaction.query_typed(&driver.statements.fire_schedules, &params).await.map_err(failed)?;
    if moved(&rows) == 0 {
        return Ok(false);
    }
    let enqueued = transaction.insert(driver.database.schema().name(), jobs).await?;
    let ids: Vec<i64> = enqueued.iter().map(|job| job.id).collect();
    let params: &Params<'_> = &[(&ids, Type::INT8_ARRAY), (&firing.id, Type::INT8)];
    transaction.query_typed(&driver.statements.mark_scheduled_jobs, params).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(true)
}

fn moved(rows: &[Row]) -> usize {
    rows.first().map_or(0, |row| row.get::<_, i64>("moved").max(0) as usize)
}

/// The first six parameters of `sql/fire_schedules.sql`, which move schedules to their next ticks.
struct Moves {
    ids: Vec<i64>,
    counted_from: Vec<SystemTime>,
    next_at: Vec<Option<SystemTime>>,
    following: Vec<Option<SystemTime>>,
    errors: Vec<Option<String>>,
    last: Vec<Option<SystemTime>>,
}

impl Moves {
    fn of(firings: &[Firing]) -> Moves {
        Moves {
            ids: firings.iter().map(|firing| firing.id).collect(),
            counted_from: firings.iter().map(|firing| firing.counted_from).collect(),
            next_at: firings.iter().map(|firing| firing.next_at).collect(),
            following: firings.iter().map(|firing| firing.following.as_ref().ok().copied()).collect(),
            errors: firings.iter().map(|firing| firing.following.as_ref().err().cloned()).collect(),
            last: firings.iter().map(|firing| firing.ticks.last().copied()).collect(),
        }
    }

    fn params(&self) -> [Param<'_>; 6] {
        [
            (&self.ids, Type::INT8_ARRAY),
            (&self.counted_from, Type::TIMESTAMPTZ_ARRAY),
            (&self.next_at, Type::TIMESTAMPTZ_ARRAY),
            (&self.following, Type::TIMESTAMPTZ_ARRAY),
            (&self.errors, Type::TEXT_ARRAY),
            (&self.last, Type::TIMESTAMPTZ_ARRAY),
        ]
    }
}

fn column<'a, T>(schedules: &[&'a Schedule], field: impl Fn(&'a Schedule) -> T) -> Vec<T> {
    schedules.iter().map(|schedule| field(schedule)).collect()
}
