//! The kinds: how many of their jobs end, fail and wait, and how long they take.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{DeadJobs, DeadKind, KindHistory, Record, View};

use super::column;
use crate::access::Right;
use crate::act::pause;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{chart, number, text};
use crate::guard::Refusal;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The sparkline of a kind: a day in bars of half an hour.
const BAR: Duration = Duration::from_secs(1800);
const BARS: u16 = 48;
/// The counters hold ten minutes each.
const COUNTED_SECONDS: u64 = 600;
/// The name of all kinds past the first 200.
const OTHER: &str = "(other)";
/// The number of kinds whose dead jobs are counted, and the number that are listed although no attempt has ended: those
/// with the most dead jobs.
const MOST_DEAD_KINDS: u16 = 5000;
const LISTED_DEAD_KINDS: usize = 200;

type Name = (String, String);

/// The attempts of a kind in a queue within the last hour.
#[derive(Debug, Default, Clone)]
struct Kind {
    completed: u64,
    failed: u64,
    median_wait: Option<f64>,
    p95_wait: Option<f64>,
    median_run: Option<f64>,
    p95_run: Option<f64>,
    /// `None`: not counted.
    dead: Option<u64>,
    history: Vec<f64>,
}

impl Kind {
    fn attempts(&self) -> u64 {
        self.completed + self.failed
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Name,
    Attempts,
    Failures,
    Waiting,
    Running,
    Dead,
}

impl Order {
    const ALL: [(Order, &'static str, &'static str); 6] = [
        (Order::Name, "name", "By kind"),
        (Order::Attempts, "attempts", "By attempts"),
        (Order::Failures, "failures", "By failures"),
        (Order::Waiting, "waiting", "By waiting time"),
        (Order::Running, "running", "By run time"),
        (Order::Dead, "dead", "By dead jobs"),
    ];

    fn sort(self, kinds: &mut [(Name, Kind)]) {
        let largest = |kind: &Kind| match self {
            Order::Name => 0.0,
            Order::Attempts => kind.attempts() as f64,
            Order::Failures => kind.failed as f64,
            Order::Waiting => kind.p95_wait.unwrap_or(-1.0),
            Order::Running => kind.p95_run.unwrap_or(-1.0),
            Order::Dead => kind.dead.map_or(-1.0, |dead| dead as f64),
        };
        kinds.sort_by(|(a, one), (b, other)| match self {
            Order::Name => (a.1 == OTHER, &a.1, &a.0).cmp(&(b.1 == OTHER, &b.1, &b.0)),
            _ => largest(other).total_cmp(&largest(one)),
        });
    }
}

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let asked = visit.param("sort");
    let order = Order::ALL.into_iter().find(|(_, name, _)| Some(*name) == asked.as_deref());
    let order = order.map_or(Order::Name, |(order, ..)| order);
    let stats = visit.read("kinds", |admin| async move { admin.view(View::KindStats).await });
    let of = visit.viewer.queues.as_ref().map_or_else(DeadJobs::new, |queues| DeadJobs::new().queues(queues));
    let dead = visit.read(format!("dead kinds of {of:?}"), move |admin| async move {
        admin.dead_kinds(&of, MOST_DEAD_KINDS).await
    });
    let histories = visit.read("kind histories", |admin| async move { admin.kind_histories(BAR, BARS).await });
    let (stats, dead, histories, pauses) = futures::join!(stats, dead, histories, pause::read(&visit));
    let tabs = Order::ALL.map(|(tab, name, title)| (title, format!("kinds?sort={name}"), tab == order));
    let body = html! {
        div.bar { h1 { "Kinds" } span.soft { "attempts of the last hour" } }
        (parts::reading(&stats, |stats| {
            let empty = (&[][..], &[][..]);
            let dead = dead.value().map_or(empty.0, Vec::as_slice);
            let histories = histories.value().map_or(empty.1, Vec::as_slice);
            let pauses = pauses.value().map_or(&[][..], Vec::as_slice);
            let mut kinds = joined(&visit, stats, dead, histories);
            order.sort(&mut kinds);
            match kinds.is_empty() {
                true => html! {
                    p.empty {
                        "No attempt has ended within the last day, and no job is dead. A kind is listed here ten \
                         seconds after its first attempt."
                    }
                },
                false => html! {
                    (parts::tabs(&visit, "Order", &tabs))
                    (table(&visit, &kinds, pauses))
                    (notes(&kinds, dead))
                },
            }
        }))
        (parts::reading(&dead, |_| html! {}))
        (parts::reading(&histories, |_| html! {}))
    };
    Ok(Page { title: "Kinds".into(), section: Section::Kinds, body })
}

/// Joins what is known of each kind. A kind without an attempt within the hour is listed for its dead jobs, or for its
/// attempts of the day.
fn joined(visit: &Visit, stats: &[Record], dead: &[DeadKind], histories: &[KindHistory]) -> Vec<(Name, Kind)> {
    let mut kinds = BTreeMap::<Name, Kind>::new();
    for row in stats {
        let kind = kinds.entry((column(row, "queue"), column(row, "kind"))).or_default();
        (kind.completed, kind.failed) = (column(row, "completed"), column(row, "failed"));
        (kind.median_wait, kind.p95_wait) = (column(row, "median_wait_seconds"), column(row, "p95_wait_seconds"));
        (kind.median_run, kind.p95_run) = (column(row, "median_run_seconds"), column(row, "p95_run_seconds"));
    }
    for history in histories {
        let bars = history.completed.iter().zip(&history.failed).map(|(completed, failed)| (completed + failed) as f64);
        kinds.entry((history.queue.clone(), history.kind.clone())).or_default().history = bars.collect();
    }
    // The dead jobs of the other kinds are counted under their own names.
    let are_all_counted = dead.first().is_none_or(|first| first.of_kinds == dead.len() as u64);
    for ((_, name), kind) in &mut kinds {
        kind.dead = (are_all_counted && name != OTHER).then_some(0);
    }
    for (place, of_kind) in dead.iter().enumerate() {
        let name = (of_kind.queue.clone(), of_kind.kind.clone());
        if place < LISTED_DEAD_KINDS || kinds.contains_key(&name) {
            kinds.entry(name).or_default().dead = Some(of_kind.jobs);
        }
    }
    kinds.into_iter().filter(|((queue, _), _)| visit.viewer.sees(queue)).collect()
}

/// Returns the seconds that the counts of the last hour cover: 50 to 60 minutes, since they begin at a full ten.
fn counted_seconds(now: SystemTime) -> f64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (3600 - COUNTED_SECONDS + now % COUNTED_SECONDS) as f64
}

fn table(visit: &Visit, kinds: &[(Name, Kind)], pauses: &[Record]) -> Markup {
    let columns = [
        Column::Text("Kind"),
        Column::Second("Last day"),
        Column::Number("Attempts"),
        Column::Number("Failed"),
        Column::SecondNumber("Wait p50"),
        Column::SecondNumber("Wait p95"),
        Column::SecondNumber("Run p50"),
        Column::Number("Run p95"),
        Column::Number("Dead"),
        Column::Line("Change"),
    ];
    let seconds = counted_seconds(SystemTime::now());
    let rows = html! {
        @for ((queue, name), kind) in kinds {
            @let query = format!("kind={}&queue={}", text::in_query(name), text::in_query(queue));
            @let link = visit.to(&format!("jobs?{query}"));
            @let paused = pause::of_kind(pauses, queue, name);
            @let time = |seconds: Option<f64>| seconds.map(number::seconds).unwrap_or_default();
            tr data-href=(link) data-key=(format!("{queue} {name}")) {
                th.long scope="row" {
                    @if name == OTHER { (OTHER) } @else { a href=(link) { (text::line(name)) } }
                    @if paused.is_some() { (parts::badge("paused", "warn")) }
                    span.sub {
                        (parts::queue_link(visit, queue))
                        @if visit.may(Right::Enqueue) && name != OTHER {
                            " · " a href=(visit.to(&format!("enqueue?{query}"))) { "enqueue" }
                        }
                    }
                }
                td.second {
                    @if !kind.history.is_empty() {
                        (chart::sparkline(&kind.history, &format!("attempts of {} in the last day", text::line(name))))
                    }
                }
                td.n { (parts::count(kind.attempts())) span.sub { (number::rate(kind.attempts() as f64 / seconds)) } }
                td.n { (failures(kind)) }
                td.n.second { (time(kind.median_wait)) }
                td.n.second { (time(kind.p95_wait)) }
                td.n.second { (time(kind.median_run)) }
                td.n { (time(kind.p95_run)) }
                td.n {
                    @match kind.dead {
                        None => span.none { "–" },
                        Some(0) => span.none { "0" },
                        Some(dead) => a.bad href=(visit.to(&format!("dead?{query}"))) { (number::count(dead)) },
                    }
                }
                td.line.acts {
                    @match &paused {
                        Some(paused) => (pause::resume_button(visit, paused, Some(("from", "kinds")))),
                        None if name == OTHER => {}
                        None => (pause::button(visit, queue, ("kind", name), ("from", "kinds"))),
                    }
                }
            }
        }
    };
    parts::table("Kinds", &columns, rows)
}

/// Draws the number of failed attempts with their share.
fn failures(kind: &Kind) -> Markup {
    let share = kind.failed as f64 / kind.attempts().max(1) as f64 * 100.0;
    html! {
        @match kind.failed {
            0 => span.none { "0" },
            failed => { span.warn { (number::count(failed)) } span.sub { (percent(share)) } }
        }
    }
}

fn percent(share: f64) -> String {
    match share {
        share if share < 1.0 => "<1 %".to_owned(),
        share => format!("{share:.0} %"),
    }
}

fn notes(kinds: &[(Name, Kind)], dead: &[DeadKind]) -> Markup {
    let of_kinds = dead.first().map_or(0, |first| first.of_kinds);
    html! {
        p.hint {
            "Failed counts attempts, most of which are tried again. The times are estimates: half of the attempts \
             (p50) and 95 % of them (p95) took no longer. Wait is the time from the due time to the start."
            @if kinds.iter().any(|((_, name), _)| name == OTHER) {
                " " (OTHER) " stands for all kinds past the first 200."
            }
            @if of_kinds > LISTED_DEAD_KINDS as u64 {
                " Of " (number::count(of_kinds)) " kinds with dead jobs, those without attempts are listed here only \
                 if they are among the " (LISTED_DEAD_KINDS) " with the most dead jobs."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_over_the_time_that_the_counts_cover() {
        let at = |seconds| counted_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!([at(7200), at(7201), at(7799)], [3000.0, 3001.0, 3599.0]);
        assert_eq!([percent(0.2), percent(1.0), percent(99.6)], ["<1 %", "1 %", "100 %"]);
    }

    #[test]
    fn kinds_are_sorted_with_the_worst_first() {
        let kind = |name: &str, failed, p95_run| {
            (("q".to_owned(), name.to_owned()), Kind { failed, p95_run, ..Kind::default() })
        };
        let sorted = |order: Order| {
            let mut kinds = [kind("b", 1, None), kind("a", 3, Some(0.5)), kind("c", 2, Some(7.0))];
            order.sort(&mut kinds);
            kinds.map(|((_, name), _)| name).concat()
        };
        assert_eq!([sorted(Order::Name), sorted(Order::Failures), sorted(Order::Running)], ["abc", "acb", "cab"]);
    }
}
