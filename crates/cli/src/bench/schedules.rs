//! `bench schedules`: the lateness of jobs of many schedules. Each schedule has a tick each second, and one worker is
//! killed.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::stage::{BenchStage, KIND, QUEUE};
use super::workers::{NEVER, NoOpWorkers};
use super::{BenchFigures, percentiles};
use crate::Failure;

#[derive(Args)]
pub struct SchedulesBench {
    /// Number of schedules. Each has a tick every second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    schedules: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,
    /// Worker processes; if there are several, one is killed halfway.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
}

/// Counts the ticks that were due, the jobs that were enqueued for ticks, and the jobs that are second jobs of a tick.
const COUNT: &str = "
    select
        sum(extract(epoch from last_at - date_trunc('second', counted_from)))::bigint,
        sum(jobs.ticks)::bigint, sum(jobs.ticks - jobs.kinds)::bigint
    from reveille.schedules
    cross join lateral (
        select count(*) as ticks, count(distinct ticks.at) as kinds
        from (
            select metadata ->> 'tick' as at from reveille.finished_jobs where schedule_id = schedules.id
            union all select metadata ->> 'tick' from reveille.jobs where schedule_id = schedules.id
        ) as ticks
    ) as jobs";

impl SchedulesBench {
    pub async fn measure(&self, stage: &BenchStage) -> Result<BenchFigures, Failure> {
        let mut workers = NoOpWorkers::processes(stage, self.workers.into(), 64, NEVER).await?;
        let client = stage.client().await?;
        let add = "select reveille.schedule(n::text, kind => $1, queue => $2, payload => 'null', cron => '* * * * * *')
            from generate_series(1, $3::int) as n";
        let many = i32::try_from(self.schedules).unwrap_or(i32::MAX);
        client.execute(add, &[&KIND, &QUEUE, &many]).await?;
        let half = Duration::from_secs(self.seconds.into()) / 2;
        tokio::time::sleep(half).await;
        if self.workers > 1 {
            workers.kill_one().await?;
        }
        tokio::time::sleep(half).await;
        client.execute("update reveille.schedules set paused_at = now()", &[]).await?;
        while client.query_one("select exists (select from reveille.jobs)", &[]).await?.get(0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let row = client.query_one(COUNT, &[]).await?;
        let late = "select wait_seconds * 1000, extract(epoch from created_at - available_at)::float8 * 1000
            from reveille.finished_jobs where attempts = 1";
        let late = client.query(late, &[]).await?;
        workers.stop().await?;
        let mut figures = BenchFigures::new();
        figures.insert("schedules".into(), Value::from(self.schedules));
        figures.insert("workers".into(), Value::from(self.workers));
        for (place, name) in ["ticks", "enqueued", "more_than_once"].into_iter().enumerate() {
            figures.insert(name.into(), Value::from(row.get::<_, i64>(place)));
        }
        percentiles(&mut figures, "", late.iter().map(|row| row.get(0)).collect());
        percentiles(&mut figures, "enqueued_", late.iter().map(|row| row.get(1)).collect());
        Ok(figures)
    }
}
