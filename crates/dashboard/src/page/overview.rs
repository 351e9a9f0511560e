//! The first page: all queues with their jobs by state, and what is wrong.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::doctor::{Finding, Verdict};
use reveille::admin::{Admin, Record};
use serde::Deserialize;

use super::overview_figures::{self as figures, Sums};
use crate::act::pause;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{chart, number, text};
use crate::guard::Refusal;
use crate::readings::Reading;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// What `Admin::queue_sums` returns: the sums over all queues, and numbers by queue.
#[derive(Debug)]
struct Counted {
    sums: Sums,
    dead: HashMap<String, u64>,
    failed: HashMap<String, u64>,
}

impl Counted {
    fn of(record: &Record) -> reveille::Result<Counted> {
        Ok(Counted {
            sums: record.decode("sums")?,
            dead: record.decode("dead_by_queue")?,
            failed: record.decode("failed_by_queue")?,
        })
    }

    fn dead(&self, queue: &str) -> u64 {
        self.dead.get(queue).copied().unwrap_or_default()
    }

    /// Returns the sums over the queues on the page.
    fn of_page(&self, queues: &[Queue]) -> Sums {
        let sum = |number: fn(&Queue) -> u64| queues.iter().map(number).sum();
        Sums {
            ready: sum(|queue| queue.ready),
            delayed: sum(|queue| queue.delayed),
            running: sum(|queue| queue.running),
            dead: queues.iter().map(|queue| self.dead(&queue.queue)).sum(),
            estimated: queues.iter().any(|queue| queue.estimated),
            completed_last_minute: sum(|queue| queue.completed_last_minute),
            failed_last_minute: sum(|queue| queue.failed_last_minute),
            ..self.sums
        }
    }
}

/// A queue, as `Admin::stats_of_queues` and `Admin::queue` return it.
#[derive(Debug, Deserialize)]
pub struct Queue {
    pub queue: String,
    pub paused: bool,
    pub ready: u64,
    pub delayed: u64,
    pub running: u64,
    /// `Admin::stats_of_queues` does not return it.
    #[serde(default)]
    pub dead: u64,
    #[serde(default)]
    pub parked: u64,
    #[serde(default)]
    pub blocked: u64,
    pub estimated: bool,
    pub oldest_ready_seconds: Option<f64>,
    pub completed_last_minute: u64,
    pub failed_last_minute: u64,
    pub served: bool,
}

impl Queue {
    /// True if jobs wait, and no living worker works the queue.
    pub fn lacks_workers(&self) -> bool {
        !self.served && self.ready + self.delayed > 0
    }
}

/// The ended attempts of a queue, in 30 parts of the last hour.
type LastHour = HashMap<String, Vec<f64>>;

const PARTS: usize = 30;
/// The number of queues on a page. Those of the other pages are not counted.
const ON_A_PAGE: usize = 100;
/// How long the doctor's findings are shown before it looks again, and how long it may take.
const FINDINGS_LIFE: Duration = Duration::from_secs(300);
const EXAMINATION: Duration = Duration::from_secs(20);

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

/// The queues that a page lists.
struct Listed {
    /// The number of all queues that the visitor sees.
    of: usize,
    /// The number of those whose name has what the visitor looks for.
    found: usize,
    /// The place of the page's first queue among those.
    first: usize,
    names: Vec<String>,
}

impl Listed {
    /// Chooses the queues of the page. Up to 100 queues are in the order of their names. Of more queues, those that
    /// need somebody come first: those with failing attempts, then those with the most dead jobs.
    fn new(visit: &Visit, names: &[String], counted: Option<&Counted>) -> Listed {
        let seen: Vec<&String> = names.iter().filter(|name| visit.viewer.sees(name)).collect();
        let wanted = wanted(visit).to_lowercase();
        let mut found: Vec<&String> =
            seen.iter().copied().filter(|name| name.to_lowercase().contains(&wanted)).collect();
        if let Some(counted) = counted.filter(|_| found.len() > ON_A_PAGE) {
            found.sort_by_key(|name| (!counted.failed.contains_key(*name), Reverse(counted.dead(name))));
        }
        let page = visit.param("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or(1);
        let pages = found.len().div_ceil(ON_A_PAGE).max(1);
        let first = (page.clamp(1, pages) - 1) * ON_A_PAGE;
        let names = found.iter().skip(first).take(ON_A_PAGE).map(|name| (*name).clone()).collect();
        Listed { of: seen.len(), found: found.len(), first, names }
    }

    /// True if the page lists all queues that the visitor sees.
    fn is_whole(&self) -> bool {
        self.names.len() == self.of
    }
}

/// Returns what the names of the listed queues are to contain.
fn wanted(visit: &Visit) -> String {
    visit.param("queue").unwrap_or_default()
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let names = visit.read("names of queues", |admin| async move { admin.queues().await });
    let counted = visit.read("sums over queues", |admin| async move {
        admin.queue_sums().await.and_then(|record| Counted::of(&record))
    });
    let (names, counted, workflows) = futures::join!(names, counted, figures::workflows(&visit));
    let known = names.value().map_or(&[][..], Vec::as_slice);
    let listed = Listed::new(&visit, known, counted.value().ok());
    let (of, of_hour) = (listed.names.clone(), listed.names.clone());
    let all = known.len();
    let queues = visit.read(format!("queues {of:?}"), |admin| async move { queues(admin, of, all).await });
    let last_hour =
        visit.read(format!("last hour {of_hour:?}"), |admin| async move { last_hour(admin, of_hour).await });
    let (queues, last_hour) = futures::join!(queues, last_hour);
    let body = html! {
        h1 { "Overview" }
        (parts::reading(&names, |_| html! {
            (search(&visit, &listed))
            (parts::reading(&counted, |counted| {
                let sums = sums(&visit, &listed, counted, queues.value().ok());
                let workflows = workflows.as_ref().and_then(|workflows| workflows.value().ok());
                sums.map(|sums| figures::draw(&visit, &sums, workflows)).unwrap_or_default()
            }))
            @if let Some(Err(reason)) = workflows.as_ref().map(Reading::value) { (parts::problem(reason)) }
            (parts::reading(&queues, |queues| {
                table(&visit, &listed, queues, counted.value().ok(), last_hour.value().ok())
            }))
            (pager(&visit, &listed))
        }))
        (pause::list(&visit, &listed.names).await)
        (findings(&visit))
    };
    Ok(Page { title: "Overview".into(), section: Section::Overview, body })
}

/// Returns the sums that the page shows. A visitor of some queues gets no sums over others.
fn sums(visit: &Visit, listed: &Listed, counted: &Counted, queues: Option<&Vec<Queue>>) -> Option<Sums> {
    let sees_all = visit.viewer.queues.is_none();
    match queues.filter(|_| listed.is_whole() || !sees_all) {
        Some(queues) => Some(counted.of_page(queues)),
        None => sees_all.then(|| counted.sums.clone()),
    }
}

/// Draws the field that looks for queues by name, where they have more than one page.
fn search(visit: &Visit, listed: &Listed) -> Markup {
    let wanted = wanted(visit);
    html! {
        @if listed.of > ON_A_PAGE || !wanted.is_empty() {
            form.fields method="get" action=(visit.to("")) data-keep {
                label { "Queue" input name="queue" value=(wanted) autocomplete="off" data-filter; }
                button.main type="submit" { "Filter" }
                @if !wanted.is_empty() { a.act href=(visit.to("")) { "Clear" } }
            }
        }
    }
}

/// Draws which queues the page lists, and the way to the others.
fn pager(visit: &Visit, listed: &Listed) -> Markup {
    let Listed { of, found, first, names } = listed;
    let page = |first: usize| {
        let name = text::in_query(&wanted(visit));
        visit.to(&format!("?queue={name}&page={}", first / ON_A_PAGE + 1))
    };
    html! {
        @if found > &ON_A_PAGE {
            div.bar {
                span.hint {
                    "Queues " (first + 1) " to " (number::count(first + names.len())) " of " (number::count(*found))
                    ": those with failing attempts first, then those with the most dead jobs."
                }
                @if *first > 0 { a.act href=(page(first - ON_A_PAGE)) { "Previous" } }
                @if first + names.len() < *found { a.act href=(page(first + ON_A_PAGE)) { "Next" } }
            }
        } @else if *found == 0 && *of > 0 {
            p.empty { "No queue has this in its name." }
        }
        @if !listed.is_whole() && visit.viewer.queues.is_some() {
            p.hint { "The figures are the sums over the queues of this page." }
        }
    }
}

/// Reads the queues of a page.
async fn queues(admin: Admin, names: Vec<String>, all: usize) -> reveille::Result<Vec<Queue>> {
    admin.stats_of_queues(&names, all).await?.iter().map(|row| row.decode("queue")).collect()
}

async fn last_hour(admin: Admin, names: Vec<String>) -> reveille::Result<LastHour> {
    let mut last_hour = LastHour::new();
    for row in admin.last_hour(&names).await? {
        let mut values = vec![0.0; PARTS];
        for (part, ended) in row.decode::<HashMap<usize, f64>>("parts")? {
            values.get_mut(part).into_iter().for_each(|value| *value = ended);
        }
        last_hour.insert(row.decode("queue")?, values);
    }
    Ok(last_hour)
}

/// Draws what the doctor has found lately. An examination takes longer than a page may, so it is made in the
/// background.
fn findings(visit: &Visit) -> Markup {
    if visit.viewer.queues.is_some() {
        return html! {};
    }
    let doctor = visit.shared.doctor.clone();
    let examined =
        visit.shared.readings.glance("doctor", FINDINGS_LIFE, EXAMINATION, async move { doctor.examine().await });
    html! {
        h2 { "What the doctor finds" }
        @match examined {
            None => p.hint { "The doctor is looking at the database …" },
            Some(examined) => (parts::reading(&examined, |findings| {
                let is_shown = |finding: &&Finding| !visit.shared.ignored_checks.contains(&finding.check);
                let findings = findings.iter().filter(is_shown).collect::<Vec<_>>();
                let wrong = findings.iter().filter(|finding| finding.state != Verdict::Ok).collect::<Vec<_>>();
                html! {
                    @if wrong.is_empty() { p.hint { "All " (findings.len()) " checks are well." } }
                    ul.findings { @for finding in wrong { (draw_finding(finding)) } }
                }
            })),
        }
    }
}

fn draw_finding(finding: &Finding) -> Markup {
    let (class, name) = if finding.state == Verdict::Bad { ("bad", "bad") } else { ("warn", "note") };
    html! {
        li {
            strong { (finding.check) } (parts::badge(name, class)) " " (text::shown(&finding.finding))
            @if let Some(advice) = &finding.advice { div.soft { (text::shown(advice)) } }
        }
    }
}

fn table(
    visit: &Visit,
    listed: &Listed,
    queues: &[Queue],
    counted: Option<&Counted>,
    last_hour: Option<&LastHour>,
) -> Markup {
    let columns = [
        Column::Text("Queue"),
        Column::Second("Last hour"),
        Column::Number("Ready"),
        Column::Number("Running"),
        Column::SecondNumber("Delayed"),
        Column::Number("Dead"),
        Column::SecondNumber("Oldest ready"),
        Column::WideNumber("Completed"),
        Column::SecondNumber("Failed"),
    ];
    let by_name: HashMap<&str, &Queue> = queues.iter().map(|queue| (queue.queue.as_str(), queue)).collect();
    let rows = html! {
        @for queue in listed.names.iter().filter_map(|name| by_name.get(name.as_str())) {
            @let parts = last_hour.and_then(|last_hour| last_hour.get(&queue.queue));
            (row(visit, queue, counted.map(|counted| counted.dead(&queue.queue)), parts))
        }
    };
    parts::table("Queues", &columns, rows)
}

fn row(visit: &Visit, queue: &Queue, dead: Option<u64>, last_hour: Option<&Vec<f64>>) -> Markup {
    let link = visit.to(&format!("queue?name={}", text::in_query(&queue.queue)));
    html! {
        tr data-href=(link) data-key=(queue.queue) {
            th scope="row" {
                (parts::queue_link(visit, &queue.queue))
                @if queue.paused { (parts::badge("paused", "warn")) }
                @if queue.lacks_workers() { (parts::badge("no worker", "warn")) }
                @if queue.parked > 0 { (parts::badge(&format!("{} parked", number::count(queue.parked)), "warn")) }
                @if queue.blocked > 0 { (parts::badge(&format!("{} blocked", number::count(queue.blocked)), "")) }
            }
            td.second { @if let Some(parts) = last_hour { (chart::sparkline(parts, &ended_in(parts))) } }
            td.n { (number::about(queue.ready, queue.estimated)) }
            td.n { (parts::count(queue.running)) }
            td.n.second { (number::about(queue.delayed, queue.estimated)) }
            td.n { @if let Some(dead) = dead { (parts::count(dead)) } }
            td.n.second { (queue.oldest_ready_seconds.map(number::seconds).unwrap_or_default()) }
            td.n.wide { (number::rate(queue.completed_last_minute as f64 / 60.0)) }
            td.n.second { (number::rate(queue.failed_last_minute as f64 / 60.0)) }
        }
    }
}

fn ended_in(parts: &[f64]) -> String {
    format!("{} attempts ended in the last hour", number::count(parts.iter().sum::<f64>() as u64))
}
