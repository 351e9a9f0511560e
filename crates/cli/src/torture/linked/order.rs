//! What the journals say about jobs that wait for others: none starts before the ends that it waits for.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::check::Ends;
use crate::torture::report::Run;

/// A dependency, by the numbers of the jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    pub waiter: u64,
    pub prerequisite: u64,
    /// The outcome that is waited for: `completed`, `dead`, `cancelled` or `any`.
    pub fires_on: String,
    /// True if one met dependency is enough for the waiter.
    pub needs_one: bool,
}

/// The findings about the order of jobs.
#[derive(Debug, Default, PartialEq)]
pub struct Order {
    /// Jobs that started before the outcomes that they wait for.
    pub started_early: usize,
    /// Such jobs whose prerequisites' cancellation a crash of the server may have undone.
    pub excused: usize,
    /// Prerequisites that began an attempt after their successor had started, neither after a crash of the server nor
    /// after a revival. A worker that is frozen or cut off may do so.
    pub began_after_successor: usize,
    /// The times from the last end that a job waited for, or from the job's commit, to the job's start.
    pub waits: Vec<Duration>,
}

/// Whether the outcome of a link had come at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    No,
    /// A crash of the server may have undone it.
    Perhaps,
    Yes,
}

/// Checks each job that waits for others. `back` lists the times at which the server was back after a crash.
pub fn order(links: &[Link], runs: &HashMap<u64, Vec<Run>>, ends: &Ends, back: &[Duration]) -> Order {
    let mut of_waiters: HashMap<u64, Vec<&Link>> = HashMap::new();
    for link in links {
        of_waiters.entry(link.waiter).or_default().push(link);
    }
    let mut order = Order::default();
    for (waiter, links) in of_waiters {
        let Some(start) = runs.get(&waiter).and_then(|runs| runs.first()).map(|run| run.began) else { continue };
        let came = links.iter().map(|link| came(link, start, runs, ends, back));
        let needs_one = links[0].needs_one;
        match if needs_one { came.max() } else { came.min() } {
            Some(Came::No) => order.started_early += 1,
            Some(Came::Perhaps) => order.excused += 1,
            _ => {}
        }
        if needs_one {
            continue;
        }
        let again = links.iter().filter(|link| began_after(link.prerequisite, start, runs, &ends.revived, back));
        order.began_after_successor += again.count();
        let last = last_end(&links, start, runs).zip(ends.committed.get(&waiter));
        order.waits.extend(last.map(|(end, committed)| start.saturating_sub(end.max(*committed))));
    }
    order
}

/// Returns whether the outcome of a link had come at the time `at`.
fn came(link: &Link, at: Duration, runs: &HashMap<u64, Vec<Run>>, ends: &Ends, back: &[Duration]) -> Came {
    let before = || runs.get(&link.prerequisite).into_iter().flatten().filter(move |run| run.began <= at);
    let has_come = match link.fires_on.as_str() {
        "completed" => before().any(|run| run.succeeded.is_some_and(|succeeded| succeeded <= at)),
        // An attempt that seemed to succeed may have failed: its transaction may have been rolled back.
        "dead" | "any" if before().next().is_some() => true,
        "dead" | "any" if ends.lost.contains(&link.prerequisite) => true,
        // No attempt is needed for a cancellation.
        _ if ends.cancelled.contains(&link.prerequisite) => true,
        _ if back.iter().any(|back| *back > at) => return Came::Perhaps,
        _ => false,
    };
    if has_come { Came::Yes } else { Came::No }
}

/// Returns true if an attempt at a job began after the time `start` without a reason.
fn began_after(
    job: u64,
    start: Duration,
    runs: &HashMap<u64, Vec<Run>>,
    revived: &HashSet<u64>,
    back: &[Duration],
) -> bool {
    let later = |run: &Run| run.began > start && !back.iter().any(|back| *back > start && *back < run.began);
    !revived.contains(&job) && runs.get(&job).is_some_and(|runs| runs.iter().any(later))
}

/// Returns the last end that a job waited for until its start, if the job waited only for completed jobs.
fn last_end(links: &[&Link], start: Duration, runs: &HashMap<u64, Vec<Run>>) -> Option<Duration> {
    let completed = |link: &&Link| {
        let runs = runs.get(&link.prerequisite).filter(|_| link.fires_on == "completed")?;
        runs.iter().filter_map(|run| run.succeeded).filter(|succeeded| *succeeded <= start).max()
    };
    let ends: Option<Vec<Duration>> = links.iter().map(completed).collect();
    ends?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn run(job: u64, began: u64, succeeded: Option<u64>) -> Run {
        let (began, succeeded) = (seconds(began), succeeded.map(seconds));
        Run { job, began, succeeded, ran: Vec::new(), worker: 0, broken_off: false }
    }

    fn runs(of: impl IntoIterator<Item = Run>) -> HashMap<u64, Vec<Run>> {
        let mut runs: HashMap<u64, Vec<Run>> = HashMap::new();
        of.into_iter().for_each(|run| runs.entry(run.job).or_default().push(run));
        runs
    }

    fn link(prerequisite: u64, fires_on: &str, needs_one: bool) -> Link {
        Link { waiter: 9, prerequisite, fires_on: fires_on.into(), needs_one }
    }

    fn early(links: &[Link], of: impl IntoIterator<Item = Run>) -> (usize, usize) {
        let order = order(links, &runs(of), &Ends::default(), &[]);
        (order.started_early, order.began_after_successor)
    }

    #[test]
    fn a_job_starts_after_all_ends_or_the_first_one() {
        let both = |needs_one| [link(1, "completed", needs_one), link(2, "completed", needs_one)];
        let first = || run(1, 1, Some(2));
        assert_eq!(early(&both(false), [first(), run(2, 1, Some(3)), run(9, 4, Some(5))]), (0, 0));
        assert_eq!(early(&both(false), [first(), run(2, 1, Some(6)), run(9, 4, Some(5))]), (1, 0));
        assert_eq!(early(&both(false), [first(), run(2, 1, None), run(9, 4, Some(5))]), (1, 0));
        assert_eq!(early(&both(true), [first(), run(2, 1, Some(6)), run(9, 4, Some(5))]), (0, 0));
        assert_eq!(early(&both(true), [run(2, 1, Some(6)), run(9, 4, Some(5))]), (1, 0));
        assert_eq!(early(&both(false), []), (0, 0));
    }

    #[test]
    fn each_outcome_has_its_sign_in_the_journals() {
        assert_eq!(early(&[link(1, "dead", false)], [run(1, 1, None), run(9, 4, None)]), (0, 0));
        assert_eq!(early(&[link(1, "dead", false)], [run(9, 4, None)]), (1, 0));
        assert_eq!(early(&[link(1, "any", false)], [run(1, 1, None), run(9, 4, None)]), (0, 0));
        assert_eq!(early(&[link(1, "any", false)], [run(9, 4, None)]), (1, 0));
        let waits = [link(1, "any", false), link(2, "cancelled", false)];
        let cancelled = Ends { cancelled: [1, 2].into(), ..Ends::default() };
        assert_eq!(order(&waits, &runs([run(9, 4, None)]), &cancelled, &[]).started_early, 0);
        let lost = Ends { lost: [1].into(), ..Ends::default() };
        assert_eq!(order(&[link(1, "dead", false)], &runs([run(9, 4, None)]), &lost, &[]).started_early, 0);
    }

    #[test]
    fn a_crash_excuses_what_it_may_have_undone() {
        let waits = [link(1, "any", false)];
        let ran = runs([run(9, 4, Some(5)), run(1, 7, Some(8)), run(9, 9, Some(10))]);
        let after = |back| order(&waits, &ran, &Ends::default(), &[seconds(back)]);
        assert_eq!((after(6).started_early, after(6).excused, after(6).began_after_successor), (0, 1, 0));
        assert_eq!((after(3).started_early, after(3).excused, after(3).began_after_successor), (1, 0, 1));
        let revived = Ends { revived: [1].into(), ..Ends::default() };
        assert_eq!(order(&waits, &ran, &revived, &[]).began_after_successor, 0);
    }

    #[test]
    fn the_wait_begins_at_the_last_end_or_the_commit() {
        let waits = [link(1, "completed", false), link(2, "completed", false)];
        let ran = runs([run(1, 1, Some(2)), run(2, 1, Some(3)), run(9, 7, None)]);
        let committed = |at| Ends { committed: [(9, seconds(at))].into(), ..Ends::default() };
        assert_eq!(order(&waits, &ran, &committed(0), &[]).waits, [seconds(4)]);
        assert_eq!(order(&waits, &ran, &committed(5), &[]).waits, [seconds(2)]);
    }
}
