//! Schedules, out of rows and into parameters.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, Type};

use super::Postgres;
use super::session::Params;
use crate::database::insert::seconds;
use crate::driver::{DueSchedule, DueSchedules, Firing};
use crate::error::{Error, Result};
use crate::schedule::{Schedule, Timing};

pub(super) async fn declare(driver: &Postgres, worker: i64, schedules: &[Schedule]) -> Result<()> {
    if schedules.is_empty() {
        return Ok(());
    }
    // Workers that start together lock the rows in the same order.
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
        (&column(&schedules, |schedule| schedule.job.metadata.as_ref().map(Json)), Type::JSONB_ARRAY),
    ];
    driver.query("declare schedules", &driver.statements.declare_schedules, params).await.map(drop)
}

pub(super) async fn knows_zone(driver: &Postgres, time_zone: &str) -> Result<bool> {
    let params: &Params<'_> = &[(&time_zone, Type::TEXT)];
    let rows = driver.query("look up a time zone", &driver.statements.knows_zone, params).await?;
    Ok(rows.iter().any(|row| row.get("known")))
}

pub(super) async fn due(driver: &Postgres, limit: usize) -> Result<DueSchedules> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = driver.query("look at schedules", &driver.statements.due_schedules, &[(&most, Type::INT8)]).await?;
    let first = rows.first().ok_or_else(|| Error::unavailable("look at schedules: the server gave no answer"))?;
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
        timing,
        time_zone: row.get("time_zone"),
        catch_up,
        counted_from: row.get("counted_from"),
        next_at: row.get("next_at"),
    }))
}

pub(super) async fn fire(driver: &Postgres, firings: &[Firing]) -> Result<usize> {
    let ticks = || firings.iter().flat_map(|firing| firing.ticks.iter().map(|tick| (firing.id, *tick)));
    let (tick_ids, tick_times): (Vec<i64>, Vec<SystemTime>) = ticks().unzip();
    let of = |firing: &Firing| firing.following.clone();
    let ids: Vec<i64> = firings.iter().map(|firing| firing.id).collect();
    let counted_from: Vec<SystemTime> = firings.iter().map(|firing| firing.counted_from).collect();
    let next_at: Vec<Option<SystemTime>> = firings.iter().map(|firing| firing.next_at).collect();
    let following: Vec<Option<SystemTime>> = firings.iter().map(|firing| of(firing).ok()).collect();
    let errors: Vec<Option<String>> = firings.iter().map(|firing| of(firing).err()).collect();
    let last: Vec<Option<SystemTime>> = firings.iter().map(|firing| firing.ticks.last().copied()).collect();
    let params: &Params<'_> = &[
        (&ids, Type::INT8_ARRAY),
        (&counted_from, Type::TIMESTAMPTZ_ARRAY),
        (&next_at, Type::TIMESTAMPTZ_ARRAY),
        (&following, Type::TIMESTAMPTZ_ARRAY),
        (&errors, Type::TEXT_ARRAY),
        (&last, Type::TIMESTAMPTZ_ARRAY),
        (&tick_ids, Type::INT8_ARRAY),
        (&tick_times, Type::TIMESTAMPTZ_ARRAY),
    ];
    let rows = driver.query("fire schedules", &driver.statements.fire_schedules, params).await?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i64>("moved").max(0) as usize))
}

fn column<'a, T>(schedules: &[&'a Schedule], field: impl Fn(&'a Schedule) -> T) -> Vec<T> {
    schedules.iter().map(|schedule| field(schedule)).collect()
}
