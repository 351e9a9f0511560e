//! The figures of linked jobs: a comparison of the tables, the journals and what was emitted.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use deadpool_postgres::Client;
use serde_json::Value;

use super::events::Emitted;
use super::order::{self, Link};
use super::{Acts, KINDS, durable, tables};
use crate::torture::fleet::Life;
use crate::torture::journal::Note;
use crate::torture::limits;
use crate::torture::producers::Committed;
use crate::torture::queues::TestQueue;
use crate::torture::report::{Run, TortureFigures, milliseconds, numbers, percentiles};
use crate::torture::schedule::Kind;

pub use super::tables::stalled;

/// The figures of linked jobs that must be 0.
pub const MUST_BE_ZERO: [&str; 22] = [
    "linked_lost",
    "linked_unfinished",
    "linked_ended_twice",
    "linked_effects_twice",
    "linked_effects_missing",
    "linked_effects_of_unfinished",
    "linked_deaths_unexplained",
    "ends_not_applied",
    "waits_left_over",
    "steps_left_over",
    "workflows_unfinished",
    "workflow_jobs_wrong",
    "workflow_counts_wrong",
    "dependencies_wrong",
    "stalled_wrongly",
    "started_early",
    "inputs_wrong",
    "steps_repeated",
    "step_values_changed",
    "sleeps_too_short",
    "waits_wrong",
    "waits_missed",
];

/// The monotonic clock and the clock of the server may run apart by this much during a sleep.
const CLOCKS_APART: Duration = Duration::from_millis(20);

/// How linked jobs have ended, by their numbers.
#[derive(Default)]
pub struct Ends {
    pub cancelled: HashSet<u64>,
    pub dead: HashSet<u64>,
    /// The jobs of workers that were declared dead. Such a failure need not be in a journal.
    pub lost: HashSet<u64>,
    pub revived: HashSet<u64>,
    /// The times at which commits of jobs were seen.
    pub committed: HashMap<u64, Duration>,
}

/// What the run knows besides the tables and the attempts.
pub struct Seen<'a> {
    /// The jobs of all queues whose commit was seen.
    pub committed: &'a [Committed],
    pub lives: &'a [Life],
    pub emitted: &'a Emitted,
    pub acts: &'a Acts,
    /// The times at which the server was back after a crash.
    pub back: &'a [Duration],
    /// The kinds of faults.
    pub kinds: &'a [Kind],
}

/// Adds the figures of linked jobs.
pub async fn report(
    figures: &mut TortureFigures,
    client: &Client,
    runs: &HashMap<u64, Vec<Run>>,
    seen: Seen<'_>,
) -> Result<(), tokio_postgres::Error> {
    let committed = numbers(seen.committed, TestQueue::is_linked);
    tables::tables(figures, client, &committed).await?;
    seen.acts.report(figures);
    let mut ends = ends(client).await?;
    ends.committed = seen.committed.iter().map(|committed| (committed.job, committed.ready)).collect();
    let unexplained = ends.dead.difference(&ends.lost).filter(|job| !runs.contains_key(job)).count();
    figures.insert("linked_deaths_unexplained".into(), Value::from(unexplained));

    let order = order::order(&links(client).await?, runs, &ends, seen.back);
    // Under some faults, a worker may run jobs that another worker has taken over.
    let again = if limits::handlers_are_exact(seen.kinds) { order.began_after_successor } else { 0 };
    figures.insert("started_early".into(), Value::from(order.started_early + again));
    figures.insert("started_early_excused".into(), Value::from(order.excused));
    figures.insert("began_after_successor".into(), Value::from(order.began_after_successor));
    let repeated = |runs: &&Vec<Run>| runs.iter().filter(|run| run.succeeded.is_some()).count() > 1;
    let is_linked = |job: u64| TestQueue::of(job).is_some_and(TestQueue::is_linked);
    let linked = runs.iter().filter(|(job, _)| is_linked(**job)).map(|(_, runs)| runs);
    figures.insert("linked_repeated".into(), Value::from(linked.filter(repeated).count()));
    percentiles(figures, "successor_", order.waits.into_iter().map(milliseconds).collect());

    let notes: Vec<Note> = seen.lives.iter().flat_map(Life::notes).collect();
    notes_of(figures, &notes, &payloads(client).await?, seen.emitted);
    Ok(())
}

/// Reads how the jobs have ended. Revived jobs are known by their numbers unless they were purged later.
async fn ends(client: &Client) -> Result<Ends, tokio_postgres::Error> {
    let of_each = "select job, how, lost, id in (select id from torture.revived) as revived from ended";
    let sql = format!("{} {of_each}", tables::ENDED);
    let mut ends = Ends::default();
    for row in client.query(&sql, &[&&KINDS[..]]).await? {
        let job = row.get::<_, i64>("job").cast_unsigned();
        match row.get::<_, &str>("how") {
            "cancelled" => drop(ends.cancelled.insert(job)),
            "dead" => drop(ends.dead.insert(job)),
            _ => {}
        }
        if row.get("lost") {
            ends.lost.insert(job);
        }
        if row.get("revived") {
            ends.revived.insert(job);
        }
    }
    let purged = client.query("select job, id in (select id from torture.revived) from torture.purged", &[]).await?;
    for row in purged {
        let job = row.get::<_, i64>(0).cast_unsigned();
        ends.cancelled.insert(job);
        if row.get(1) {
            ends.revived.insert(job);
        }
    }
    Ok(ends)
}

/// Reads the dependencies. Those of workflows are kept in the tables, and all others in `torture.links`.
async fn links(client: &Client) -> Result<Vec<Link>, tokio_postgres::Error> {
    let sql = format!(
        "{}, numbers as (select id, job from ended union select id, job from torture.purged)
        select waiter, prerequisite, fires_on, needs_one from torture.links
        union all
        select
            waiters.job, members.job, dependencies.fires_on,
            named.name like 'first %' or named.name = 'on dead'
        from reveille.dependencies
        join reveille.workflow_jobs as named on named.job = dependencies.waiter
        join numbers as waiters on waiters.id = dependencies.waiter
        join numbers as members on members.id = dependencies.on_job",
        tables::ENDED
    );
    let link = |row: &tokio_postgres::Row| Link {
        waiter: row.get::<_, i64>(0).cast_unsigned(),
        prerequisite: row.get::<_, i64>(1).cast_unsigned(),
        fires_on: row.get(2),
        needs_one: row.get(3),
    };
    Ok(client.query(&sql, &[&&KINDS[..]]).await?.iter().map(link).collect())
}

/// Reads the payloads of events, by the jobs that wait for them.
async fn payloads(client: &Client) -> Result<HashMap<u64, String>, tokio_postgres::Error> {
    let sql = "select split_part(name, '-', 2)::bigint, payload #>> '{}' from reveille.events
        where name like 'torture-%'";
    let payload = |row: &tokio_postgres::Row| (row.get::<_, i64>(0).cast_unsigned(), row.get(1));
    Ok(client.query(sql, &[]).await?.iter().map(payload).collect())
}

/// Adds the figures of the notes about steps, sleeps, waits and inputs.
fn notes_of(figures: &mut TortureFigures, notes: &[Note], payloads: &HashMap<u64, String>, emitted: &Emitted) {
    let mut named: HashMap<(u64, &str), Vec<&Note>> = HashMap::new();
    for note in notes {
        named.entry((note.job, &note.name)).or_default().push(note);
    }
    let mut count = |name: &str, counts: &dyn Fn(u64, &[&Note]) -> bool| {
        let found: Vec<_> = named.iter().filter(|((job, _), notes)| counts(*job, notes)).collect();
        if MUST_BE_ZERO.contains(&name) {
            found.iter().for_each(|(of, notes)| tracing::debug!(name, ?of, ?notes, "these notes are wrong"));
        }
        figures.insert(name.into(), Value::from(found.len()));
    };
    count("steps_recorded", &|_, notes| of(notes, 'c').next().is_some() && of(notes, 'r').next().is_some());
    count("sleeps", &|_, notes| is(notes, durable::NAP) && of(notes, 'r').next().is_some());
    count("waits_for_events", &|_, notes| is(notes, durable::EVENT) && of(notes, 'r').next().is_some());
    count("waits_timed_out", &|_, notes| of(notes, 'r').any(|note| note.value == durable::NO_EVENT));
    count("inputs_wrong", &|_, notes| of(notes, 'x').next().is_some());
    count("steps_repeated", &|_, notes| is_repeated(notes));
    count("step_values_changed", &|_, notes| {
        let mut values = of(notes, 'r').map(|note| &note.value);
        let first = values.next();
        values.any(|value| Some(value) != first)
    });
    count("sleeps_too_short", &|_, notes| is(notes, durable::NAP) && is_short(notes));
    count("waits_wrong", &|job, notes| {
        let is_wrong = |note: &Note| note.value != durable::NO_EVENT && payloads.get(&job) != Some(&note.value);
        is(notes, durable::EVENT) && of(notes, 'r').any(is_wrong)
    });
    count("waits_missed", &|job, notes| is(notes, durable::EVENT) && is_missed(notes, emitted.get(&job)));
}

fn of<'a>(notes: &'a [&Note], sign: char) -> impl Iterator<Item = &'a Note> {
    notes.iter().copied().filter(move |note| note.sign == sign)
}

fn is(notes: &[&Note], name: &str) -> bool {
    notes.first().is_some_and(|note| note.name == name)
}

/// Returns true if the code of a step ran in a later attempt than the first one that had the step's value, and that
/// attempt began after the value was recorded.
///
/// A worker that was cut off may run the code in an earlier attempt; the store refuses its value. A crash of the server
/// may undo claims, so that an attempt under way has a higher number than the attempt that records the value.
fn is_repeated(notes: &[&Note]) -> bool {
    let recorded = of(notes, 'r').map(|note| note.attempt).min().zip(of(notes, 'r').map(|note| note.at).min());
    let began = |note: &Note| note.value.parse().map_or(note.at, Duration::from_nanos);
    let is_late = |(attempt, at)| of(notes, 'c').any(|note| note.attempt > attempt && began(note) > at);
    recorded.is_some_and(is_late)
}

/// Returns the end of a sleep or a wait, at the earliest: its first beginning and its length.
fn until(notes: &[&Note]) -> Option<Duration> {
    let first = of(notes, 'w').min_by_key(|note| note.at)?;
    Some(first.at + Duration::from_millis(first.value.parse().ok()?))
}

fn is_short(notes: &[&Note]) -> bool {
    until(notes).is_some_and(|until| of(notes, 'r').any(|note| note.at + CLOCKS_APART < until))
}

/// Returns true if a wait has timed out although the event was emitted in time.
fn is_missed(notes: &[&Note], emitted: Option<&Duration>) -> bool {
    let in_time = until(notes).zip(emitted).is_some_and(|(until, emitted)| *emitted + CLOCKS_APART < until);
    in_time && of(notes, 'r').any(|note| note.value == durable::NO_EVENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(sign: char, attempt: u64, at: u64, name: &str, value: impl ToString) -> Note {
        let (at, name, value) = (Duration::from_millis(at), name.to_owned(), value.to_string());
        Note { sign, job: 1, attempt, at, name, value }
    }

    /// Returns the figures that must be 0 and are not.
    fn wrong(notes: &[Note], payload: Option<&str>, emitted: Option<u64>) -> Vec<&'static str> {
        let mut figures = TortureFigures::new();
        let payloads = payload.map(|payload| (1, payload.to_owned())).into_iter().collect();
        let emitted = emitted.map(|at| (1, Duration::from_millis(at))).into_iter().collect();
        notes_of(&mut figures, notes, &payloads, &emitted);
        let is_wrong = |name: &&str| figures.get(*name).is_some_and(|value| *value != 0);
        MUST_BE_ZERO.into_iter().filter(is_wrong).collect()
    }

    #[test]
    fn a_recorded_step_neither_runs_again_nor_changes() {
        let began = |attempt, at| note('c', attempt, at, "first", at * 1_000_000);
        let ran = |attempt| began(attempt, 3);
        let got = |attempt| note('r', attempt, 2, "first", 7);
        assert_eq!(wrong(&[ran(1), ran(2), got(2), got(3)], None, None), [""; 0]);
        assert_eq!(wrong(&[ran(2), got(2), ran(1)], None, None), [""; 0], "the worker was cut off");
        assert_eq!(wrong(&[ran(1), got(1), ran(2)], None, None), ["steps_repeated"]);
        assert_eq!(wrong(&[got(1), began(2, 1)], None, None), [""; 0], "a crash has undone the claim of attempt 2");
        assert_eq!(wrong(&[ran(1), got(1), note('r', 2, 3, "first", 8)], None, None), ["step_values_changed"]);
    }

    #[test]
    fn a_sleep_is_not_shorter_than_asked() {
        let begun = |attempt, at| note('w', attempt, at, "nap", 500);
        let sleep = |woken| [begun(1, 100), begun(2, 550), note('r', 2, woken, "nap", 0)];
        assert_eq!(wrong(&sleep(600), None, None), [""; 0]);
        assert_eq!(wrong(&sleep(570), None, None), ["sleeps_too_short"]);
    }

    #[test]
    fn a_wait_gets_the_first_payload_unless_it_came_too_late() {
        let wait = |value| [note('w', 1, 100, "event", 500), note('r', 2, 700, "event", value)];
        assert_eq!(wrong(&wait("7"), Some("7"), Some(650)), [""; 0]);
        assert_eq!(wrong(&wait("8"), Some("7"), Some(300)), ["waits_wrong"]);
        assert_eq!(wrong(&wait("8"), None, None), ["waits_wrong"]);
        assert_eq!(wrong(&wait("none"), None, None), [""; 0]);
        assert_eq!(wrong(&wait("none"), Some("7"), Some(650)), [""; 0]);
        assert_eq!(wrong(&wait("none"), Some("7"), Some(300)), ["waits_missed"]);
    }

    #[test]
    fn a_result_that_is_not_the_prerequisites_is_noted() {
        assert_eq!(wrong(&[note('x', 0, 1, "input", 5)], None, None), ["inputs_wrong"]);
    }
}
