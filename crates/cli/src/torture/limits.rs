//! Checks limits and orders, by the journals and by queries while the faults go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reveille::Database;
use serde_json::Value;

use super::lock;
use super::producers::Committed;
use super::queues::{MAX_RUNNING, MAX_RUNNING_PER_KEY, RATE, TestQueue};
use super::report::{Run, TortureFigures, milliseconds};
use super::schedule::Kind;
use crate::Failure;
use crate::figures::rounded;

/// The time between two counts of the reserved jobs.
const COUNT_EVERY: Duration = Duration::from_millis(20);

const RESERVED: &str = "with reserved as (
        select queue, count(*) as jobs from reveille.jobs where reserved_by is not null group by queue, key
    )
    select
        coalesce(max(jobs) filter (where queue = 'limited'), 0) as limited,
        coalesce(max(jobs) filter (where queue = 'keyed'), 0) as keyed
    from reserved";

/// The largest numbers of jobs that were reserved at the same time.
#[derive(Default)]
pub struct MostReserved {
    most: Mutex<Reserved>,
}

/// The numbers of jobs that are reserved at the same time.
#[derive(Default, Clone, Copy)]
struct Reserved {
    /// Reserved jobs of the queue `limited`.
    limited: i64,
    /// Reserved jobs of one key of the queue `keyed`: the largest number of all keys.
    keyed: i64,
}

impl MostReserved {
    /// Counts the reserved jobs every 20 ms, until the task is aborted.
    pub async fn watch(self: Arc<Self>, database: Database) {
        loop {
            let count = async { Ok::<_, Failure>(database.client().await?.query_one(RESERVED, &[]).await?) };
            // Ignores a failed count, because the server may be down.
            if let Ok(Ok(row)) = tokio::time::timeout(Duration::from_secs(1), count).await {
                let mut most = lock(&self.most);
                most.limited = most.limited.max(row.get("limited"));
                most.keyed = most.keyed.max(row.get("keyed"));
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }
}

/// Returns true if the running handlers keep the limits, too, and not only the reservations. This does not hold under
/// all faults. A worker that is frozen or cut off may for some seconds run jobs that other workers already run. So may
/// a worker after a crash of the server that undoes its claims.
pub fn handlers_are_exact(kinds: &[Kind]) -> bool {
    let exact = [
        Kind::Kill,
        Kind::ShiftClock,
        Kind::CutProducers,
        Kind::Snapshot,
        Kind::HostileNotifications,
        Kind::HostileLocks,
        Kind::HostileOperators,
        Kind::LockRows,
        Kind::OddRow,
        Kind::CloseLog,
    ];
    kinds.iter().all(|kind| exact.contains(kind))
}

/// Adds the largest numbers of jobs in each queue that was used, and the number of broken limits.
pub fn report(
    figures: &mut TortureFigures,
    (queues, kinds): (&[TestQueue], &[Kind]),
    most_reserved: &MostReserved,
    runs: &HashMap<u64, Vec<Run>>,
    committed: &[Committed],
) {
    let reserved = *lock(&most_reserved.most);
    let mut broken = 0;
    let mut most = |name: &str, most: i64, limit: u32, counts: bool| {
        broken += u64::from(counts && most > i64::from(limit));
        figures.insert(name.into(), Value::from(most));
    };
    let exact = handlers_are_exact(kinds);
    let of = |queue| runs_of(runs, queue);
    if queues.contains(&TestQueue::Limited) {
        most("limited_most_reserved", reserved.limited, MAX_RUNNING, true);
        most("limited_most_running", most_at_once(of(TestQueue::Limited)), MAX_RUNNING, exact);
    }
    if queues.contains(&TestQueue::Keyed) {
        most("keyed_most_reserved", reserved.keyed, MAX_RUNNING_PER_KEY, true);
        let running = by_key(runs, TestQueue::Keyed).into_values().map(|runs| most_at_once(runs.into_iter())).max();
        most("keyed_most_running", running.unwrap_or_default(), MAX_RUNNING_PER_KEY, exact);
    }
    if queues.contains(&TestQueue::Ordered) {
        let disorders = by_key(runs, TestQueue::Ordered).into_values().map(disorders).sum::<usize>();
        broken += if exact { disorders as u64 } else { 0 };
        figures.insert("ordered_disorders".into(), Value::from(disorders));
    }
    if queues.contains(&TestQueue::Limited) {
        figures.insert("limited_refill_max_ms".into(), rounded(milliseconds(longest_room(runs, committed))));
    }
    if queues.contains(&TestQueue::Rated) {
        let mut starts: Vec<Duration> = of(TestQueue::Rated).map(|run| run.began).collect();
        starts.sort();
        let span = starts.last().zip(starts.first()).map(|(last, first)| (*last - *first).as_secs_f64());
        let used = starts.len() as f64 / (f64::from(RATE) * span.unwrap_or(f64::INFINITY));
        figures.insert("rated_most_in_10_s".into(), Value::from(most_within(&starts, Duration::from_secs(10))));
        figures.insert("rated_used".into(), rounded(used));
    }
    figures.insert("limits_broken".into(), Value::from(broken));
}

fn runs_of(runs: &HashMap<u64, Vec<Run>>, queue: TestQueue) -> impl Iterator<Item = &Run> {
    runs.iter().filter(move |(job, _)| TestQueue::of(**job) == Some(queue)).flat_map(|(_, runs)| runs)
}

fn by_key(runs: &HashMap<u64, Vec<Run>>, queue: TestQueue) -> HashMap<Option<String>, Vec<&Run>> {
    let mut keys: HashMap<_, Vec<&Run>> = HashMap::new();
    for run in runs_of(runs, queue) {
        keys.entry(TestQueue::key(run.job)).or_default().push(run);
    }
    keys
}

/// Returns the largest number of attempts that ran at the same time.
fn most_at_once<'a>(runs: impl Iterator<Item = &'a Run>) -> i64 {
    let mut changes: Vec<(Duration, i64)> =
        runs.flat_map(|run| &run.ran).flat_map(|(from, until)| [(*from, 1), (*until, -1)]).collect();
    changes.sort(); // An end comes before a start at the same time.
    let running = changes.iter().scan(0, |running, (_, change)| {
        *running += change;
        Some(*running)
    });
    running.max().unwrap_or_default()
}

/// Returns the number of times that a job of one key ran before or beside a job that was enqueued earlier.
fn disorders(mut runs: Vec<&Run>) -> usize {
    runs.sort_by_key(|run| run.began);
    let ended = |run: &Run| run.ran.last().map_or(run.began, |(_, until)| *until);
    let wrong =
        |pair: &[&Run]| pair[1].job < pair[0].job || pair[1].job != pair[0].job && pair[1].began < ended(pair[0]);
    runs.windows(2).filter(|pair| wrong(pair)).count()
}

/// Returns the largest number of the sorted `times` within any span of the length `within`.
fn most_within(times: &[Duration], within: Duration) -> usize {
    let counts = times.iter().enumerate().map(|(place, from)| times.partition_point(|at| *at < *from + within) - place);
    counts.max().unwrap_or_default()
}

/// Returns the longest time for which the queue `limited` had a ready job that its limit allowed to start.
fn longest_room(runs: &HashMap<u64, Vec<Run>>, committed: &[Committed]) -> Duration {
    let mut changes: Vec<(Duration, i64, i64)> = Vec::new();
    for committed in committed.iter().filter(|committed| TestQueue::of(committed.job) == Some(TestQueue::Limited)) {
        if let Some(first) = runs.get(&committed.job).and_then(|runs| runs.first()) {
            changes.extend([(committed.ready.min(first.began), 0, 1), (first.began, 0, -1)]);
        }
    }
    let ran = runs_of(runs, TestQueue::Limited).flat_map(|run| &run.ran);
    changes.extend(ran.flat_map(|(from, until)| [(*from, 1, 0), (*until, -1, 0)]));
    changes.sort();
    let (mut running, mut waiting, mut since, mut longest) = (0, 0, None, Duration::ZERO);
    for (at, ran, waited) in changes {
        (running, waiting) = (running + ran, waiting + waited);
        match (running < i64::from(MAX_RUNNING) && waiting > 0, since) {
            (true, None) => since = Some(at),
            (false, Some(from)) => {
                longest = longest.max(at - from);
                since = None;
            }
            _ => {}
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(job: u64, from: u64, until: u64) -> Run {
        let (from, until) = (Duration::from_secs(from), Duration::from_secs(until));
        Run { job, began: from, succeeded: None, ran: vec![(from, until)], worker: 0, broken_off: false }
    }

    #[test]
    fn a_run_that_ends_when_another_begins_is_not_beside_it() {
        assert_eq!(most_at_once([run(1, 0, 2), run(2, 2, 3), run(3, 1, 3)].iter()), 2);
        assert_eq!(most_at_once([].iter()), 0);
    }

    #[test]
    fn an_order_is_broken_by_overtaking_and_by_overlapping() {
        let (first, again, second) = (run(1, 0, 2), run(1, 3, 4), run(2, 5, 6));
        assert_eq!(disorders(vec![&second, &again, &first]), 0);
        assert_eq!(disorders(vec![&first, &run(2, 1, 3)]), 1);
        assert_eq!(disorders(vec![&first, &run(2, 2, 3), &again]), 1);
    }

    #[test]
    fn the_busiest_span_is_found_wherever_it_begins() {
        let times: Vec<Duration> = [0, 9, 10, 11, 18, 30].map(Duration::from_secs).to_vec();
        assert_eq!(most_within(&times, Duration::from_secs(10)), 4);
    }

    #[test]
    fn room_counts_while_a_job_waits() {
        let job = |number| TestQueue::Limited.first_number(0) + number;
        let mut runs: HashMap<u64, Vec<Run>> =
            (0..5).map(|number| (job(number), vec![run(job(number), 0, 10)])).collect();
        runs.insert(job(5), vec![run(job(5), 13, 20)]);
        let committed = [Committed { job: job(5), ready: Duration::from_secs(5) }];
        assert_eq!(longest_room(&runs, &committed), Duration::from_secs(3));
        assert_eq!(longest_room(&runs, &[]), Duration::ZERO);
    }
}
