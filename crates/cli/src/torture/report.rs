//! The results: a comparison of the database, the producers' lists and the journals.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_postgres::Client;
use serde_json::Value;

use super::fleet::Life;
use super::journal::Attempt;
use super::linked;
use super::producers::Committed;
use super::queues::TestQueue;
use crate::Failure;
use crate::figures::{percentile, rounded};

pub type TortureFigures = serde_json::Map<String, Value>;

/// Adds the figures that the tables give, about jobs and their effects.
pub async fn database(figures: &mut TortureFigures, client: &Client, committed: &[Committed]) -> Result<(), Failure> {
    let numbers = numbers(committed, |queue| !queue.is_linked());
    // The payload of a job is its number.
    let sql = "with ended as (
            select (payload #>> '{}')::bigint as job, 'finished' as how
            from reveille.finished_jobs where kind = 'torture'
            union all select (payload #>> '{}')::bigint, 'dead' from reveille.dead_jobs where kind = 'torture'
            union all select (payload #>> '{}')::bigint, 'live' from reveille.jobs where kind = 'torture'
        ), applied as (
            select job, count(*) as times from torture.applied group by job
        ), odd_ended as (
            select tags[1] as tag from reveille.finished_jobs where kind = 'odd'
            union all select tags[1] from reveille.dead_jobs where kind = 'odd'
        )
        select
            (select count(*) from torture.enqueued) as enqueued,
            (select count(*) from ended where how = 'finished') as finished,
            (select count(*) from ended where how = 'dead') as dead,
            (select count(*) from ended where how = 'live') as unfinished,
            (select count(*) from torture.enqueued where job not in (select job from ended))
                + (
                    select count(*) from unnest($1::bigint[]) as known (job)
                    where job not in (select job from torture.enqueued)
                ) as lost,
            (select count(*) from (select from ended group by job having count(*) > 1) as twice) as ended_twice,
            (select count(*) from applied where times > 1) as effects_twice,
            (
                select count(*) from ended
                where how = 'finished'
                    and job not in (select job from applied union all select job from torture.applied_once)
            ) as effects_missing,
            (
                select count(*) from applied where job not in (select job from ended where how = 'finished')
            ) as effects_of_unfinished,
            -- No role with the right to cancel has cancelled any of these.
            (
                select count(*) from reveille.finished_jobs
                where outcome = 'cancelled' and kind in ('torture', 'odd')
            ) as cancelled,
            (select count(*) from torture.odd) as odd,
            (
                select count(*) from torture.odd where tag not in (select tag from odd_ended where tag is not null)
            ) as odd_lost,
            (select case when is_called then last_value else 0 end from torture.sprung) as traps_sprung";
    let row = client.query_one(sql, &[&numbers]).await?;
    for column in row.columns() {
        figures.insert(column.name().into(), Value::from(row.get::<_, i64>(column.name())));
    }
    Ok(())
}

/// Returns the numbers of the jobs whose queue passes.
pub fn numbers(committed: &[Committed], passes: impl Fn(TestQueue) -> bool) -> Vec<i64> {
    let of_queue = committed.iter().filter(|committed| TestQueue::of(committed.job).is_some_and(&passes));
    of_queue.map(|committed| committed.job.cast_signed()).collect()
}

/// Returns the attempts at each job, in the order in which they began.
pub fn runs(lives: &[Life]) -> HashMap<u64, Vec<Run>> {
    let mut runs: HashMap<u64, Vec<Run>> = HashMap::new();
    for (worker, life) in lives.iter().enumerate() {
        for attempt in life.attempts() {
            runs.entry(attempt.job).or_default().push(Run::of(attempt, worker, life));
        }
    }
    runs.values_mut().for_each(|runs| runs.sort_by_key(|run| run.began));
    runs
}

/// Adds the figures of the workers' journals. `back` lists the times at which the server was back after a crash.
pub fn journals(
    figures: &mut TortureFigures,
    runs: &HashMap<u64, Vec<Run>>,
    lives: &[Life],
    committed: &[Committed],
    back: &[Duration],
) {
    figures.insert("attempts".into(), Value::from(runs.values().map(Vec::len).sum::<usize>()));

    let overlaps: Vec<f64> = runs.values().flat_map(|runs| overlaps(runs)).map(milliseconds).collect();
    figures.insert("overlaps".into(), Value::from(overlaps.len()));
    figures.insert("longest_overlap_ms".into(), rounded(overlaps.into_iter().fold(0.0, f64::max)));

    let rescues: Vec<f64> =
        lives.iter().enumerate().filter_map(|(worker, life)| rescue(runs, worker, life)).map(milliseconds).collect();
    figures.insert("rescues".into(), Value::from(rescues.len()));
    percentiles(figures, "rescue_", rescues);

    let resumed = |back: &Duration| runs.values().flatten().filter_map(|run| run.began.checked_sub(*back)).min();
    percentiles(figures, "resumed_", back.iter().filter_map(resumed).map(milliseconds).collect());

    let first = |committed: &Committed| Some(runs.get(&committed.job)?.first()?.began.saturating_sub(committed.ready));
    // Leaves out the queues with limits, because their jobs wait for other jobs.
    for (prefix, queue) in [("wait_", TestQueue::Plain), ("calm_wait_", TestQueue::Calm)] {
        let free = committed.iter().filter(|committed| TestQueue::of(committed.job) == Some(queue));
        percentiles(figures, prefix, free.filter_map(first).map(milliseconds).collect());
    }
    figures.insert("workers_started".into(), Value::from(lives.len()));
    figures.insert("workers_gave_up".into(), Value::from(lives.iter().filter(|life| life.gave_up).count()));
}

/// An attempt, and the times for which it ran. The times for which its worker was frozen or dead are left out.
pub struct Run {
    pub job: u64,
    pub began: Duration,
    /// The time at which the handler noted that the attempt succeeds.
    pub succeeded: Option<Duration>,
    pub ran: Vec<(Duration, Duration)>,
    pub worker: usize,
    pub broken_off: bool,
}

impl Run {
    fn of(attempt: Attempt, worker: usize, life: &Life) -> Run {
        let end = attempt.ended.or(life.killed).unwrap_or(attempt.began);
        let (mut ran, mut from) = (Vec::new(), attempt.began);
        for &(frozen, thawed) in &life.frozen {
            if frozen < end && thawed > from {
                ran.push((from, frozen.max(from)));
                from = thawed.min(end);
            }
        }
        ran.push((from, end));
        let Attempt { job, began, succeeded, .. } = attempt;
        Run { job, began, succeeded, ran, worker, broken_off: attempt.ended.is_none() }
    }
}

/// Returns the time of the overlap for each pair of attempts at one job that ran at the same time.
fn overlaps(runs: &[Run]) -> Vec<Duration> {
    let mut overlaps = Vec::new();
    for (place, run) in runs.iter().enumerate() {
        for other in &runs[..place] {
            let both = run.ran.iter().flat_map(|a| other.ran.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
            let sum: Duration = both.map(|(from, until)| until.saturating_sub(from)).sum();
            if !sum.is_zero() {
                overlaps.push(sum);
            }
        }
    }
    overlaps
}

/// Returns the time from the kill of a worker until other workers ran the last of its unfinished jobs; `None` if the
/// worker had no unfinished job. Leaves out linked jobs, because operators cancel and revive them.
fn rescue(runs: &HashMap<u64, Vec<Run>>, worker: usize, life: &Life) -> Option<Duration> {
    let killed = life.killed?;
    let next = |runs: &Vec<Run>| {
        let is_linked = |run: &Run| TestQueue::of(run.job).is_some_and(TestQueue::is_linked);
        let broken = runs.iter().any(|run| run.worker == worker && run.broken_off && !is_linked(run));
        broken.then(|| runs.iter().find(|run| run.began > killed)).flatten().map(|run| run.began - killed)
    };
    runs.values().filter_map(next).max()
}

pub fn percentiles(figures: &mut TortureFigures, prefix: &str, mut sorted: Vec<f64>) {
    sorted.sort_by(f64::total_cmp);
    for (name, percent) in [("p50_ms", 50), ("p99_ms", 99), ("max_ms", 100)] {
        figures.insert(format!("{prefix}{name}"), rounded(percentile(&sorted, percent)));
    }
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The figures that must be 0.
const MUST_BE_ZERO: [&str; 11] = [
    "lost",
    "unfinished",
    "ended_twice",
    "effects_twice",
    "effects_missing",
    "effects_of_unfinished",
    "limits_broken",
    "workers_gave_up",
    "cancelled",
    "odd_lost",
    "traps_sprung",
];

/// Returns the figures that must be 0, and do not exist or are not 0. `with_linked`: the run had linked jobs.
pub fn unsound(figures: &TortureFigures, with_linked: bool) -> Vec<&'static str> {
    let linked = linked::check::MUST_BE_ZERO.into_iter().filter(|_| with_linked);
    let must_be_zero = MUST_BE_ZERO.into_iter().chain(linked);
    must_be_zero.filter(|name| figures.get(*name).and_then(Value::as_i64) != Some(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn run(began: u64, ended: Option<u64>, worker: usize, life: &Life) -> Run {
        Run::of(Attempt { job: 1, began: seconds(began), succeeded: None, ended: ended.map(seconds) }, worker, life)
    }

    #[test]
    fn two_attempts_overlap_only_while_both_run() {
        let (live, frozen) = (Life::default(), Life { frozen: vec![(seconds(2), seconds(40))], ..Life::default() });
        assert_eq!(overlaps(&[run(1, Some(3), 0, &live), run(2, Some(5), 1, &live)]), [seconds(1)]);
        assert_eq!(overlaps(&[run(1, Some(41), 0, &frozen), run(32, Some(35), 1, &live)]), Vec::<Duration>::new());
        assert_eq!(overlaps(&[run(1, Some(42), 0, &frozen), run(32, Some(41), 1, &live)]), [seconds(1)]);
        let killed = Life { killed: Some(seconds(4)), ..Life::default() };
        assert_eq!(overlaps(&[run(1, None, 0, &killed), run(7, Some(8), 1, &live)]), Vec::<Duration>::new());
    }

    #[test]
    fn a_rescue_lasts_until_the_last_broken_off_job_runs_elsewhere() {
        let (live, killed) = (Life::default(), Life { killed: Some(seconds(4)), ..Life::default() });
        let runs = HashMap::from([
            (1, vec![run(1, None, 0, &killed), run(7, Some(8), 1, &live)]),
            (2, vec![run(2, Some(3), 0, &killed), run(30, Some(31), 1, &live)]),
        ]);
        assert_eq!(rescue(&runs, 0, &killed), Some(seconds(3)));
        assert_eq!(rescue(&runs, 1, &live), None);
    }

    #[test]
    fn a_run_is_unsound_only_if_a_figure_must_be_zero_and_is_not() {
        let mut figures: TortureFigures =
            MUST_BE_ZERO.iter().map(|name| ((*name).to_owned(), Value::from(0))).collect();
        figures.insert("overlaps".into(), Value::from(3));
        assert_eq!(unsound(&figures, false), [""; 0]);
        figures.insert("lost".into(), Value::from(1));
        assert_eq!(unsound(&figures, false), ["lost"]);
        assert!(unsound(&figures, true).contains(&"linked_lost"), "a figure is missing");
    }
}
