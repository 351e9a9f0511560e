//! The first page: all queues with their jobs by state, and what is wrong.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::doctor::{Finding, Verdict};
use reveille::admin::{Admin, Record};
use serde::Deserialize;

use crate::act::pause;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{chart, number, text};
use crate::guard::Refusal;
use crate::readings::Reading;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The sums over all queues, as `Admin::busiest_queues` returns them.
#[derive(Debug, Clone, Deserialize)]
pub struct Sums {
    queues: usize,
    ready: u64,
    delayed: u64,
    running: u64,
    dead: u64,
    estimated: bool,
    completed_last_minute: u64,
    failed_last_minute: u64,
    workers: u64,
    slots: u64,
}

impl Sums {
    /// Returns the sums over the queues that the visitor sees. Workers are left out: one may
    /// serve several queues.
    fn of_seen(&self, visit: &Visit, queues: &[Queue]) -> Sums {
        if visit.viewer.queues.is_none() {
            return self.clone();
        }
        let seen: Vec<&Queue> = queues.iter().filter(|queue| visit.viewer.sees(&queue.queue)).collect();
        let sum = |number: fn(&Queue) -> u64| seen.iter().map(|queue| number(queue)).sum();
        Sums {
            queues: seen.len(),
            ready: sum(|queue| queue.ready),
            delayed: sum(|queue| queue.delayed),
            running: sum(|queue| queue.running),
            dead: sum(|queue| queue.dead),
            estimated: seen.iter().any(|queue| queue.estimated),
            completed_last_minute: sum(|queue| queue.completed_last_minute),
            failed_last_minute: sum(|queue| queue.failed_last_minute),
            workers: 0,
            slots: 0,
        }
    }
}

/// A queue, as `Admin::busiest_queues` returns it.
#[derive(Debug, Deserialize)]
pub struct Queue {
    pub queue: String,
    pub paused: bool,
    pub ready: u64,
    pub delayed: u64,
    pub running: u64,
    pub dead: u64,
    #[serde(default)]
    pub parked: u64,
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
/// How long the doctor's findings are shown before it looks again, and how long it may take.
const FINDINGS_LIFE: Duration = Duration::from_secs(300);
const EXAMINATION: Duration = Duration::from_secs(20);

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

/// Reads all queues and their sums.
pub async fn queues(visit: &Visit) -> Arc<Reading<(Sums, Vec<Queue>)>> {
    let read = |overview: Record| Ok((overview.decode("sums")?, overview.decode("queues")?));
    visit.read("overview", |admin| async move { admin.busiest_queues().await.and_then(read) }).await
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let overview = queues(&visit).await;
    let shown = |queues: &[Queue]| queues.iter().map(|queue| queue.queue.clone()).collect::<Vec<_>>();
    let names = overview.value.as_ref().map(|(_, queues)| shown(queues)).unwrap_or_default();
    let of = names.clone();
    let last_hour = visit.read(format!("last hour {names:?}"), |admin| async move { last_hour(admin, of).await }).await;
    let body = html! {
        h1 { "Overview" }
        (parts::reading(&overview, |(sums, queues)| html! {
            (figures(&visit, &sums.of_seen(&visit, queues)))
            (table(&visit, queues, last_hour.value.as_ref().ok()))
            @if sums.queues > queues.len() && visit.viewer.queues.is_some() {
                p.hint { "Only the " (queues.len()) " busiest queues of the database are looked at." }
            } @else if sums.queues > queues.len() {
                p.hint { "These are the " (queues.len()) " busiest of " (number::count(sums.queues as u64)) " queues." }
            }
        }))
        (pause::list(&visit, &names).await)
        (findings(&visit))
    };
    Ok(Page { title: "Overview".into(), section: Section::Overview, body })
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

fn figures(visit: &Visit, sums: &Sums) -> Markup {
    let jobs = |state: &str| Some(visit.to(&format!("jobs?state={state}")));
    let about = |n| number::about(n, sums.estimated);
    html! {
        dl.figures {
            (parts::figure("Ready", &about(sums.ready), jobs("ready"), ""))
            (parts::figure("Running", &number::count(sums.running), jobs("running"), "run"))
            @if visit.viewer.queues.is_none() {
                (parts::figure("Workers", &workers(sums), Some(visit.to("workers")), if_any(sums.workers == 0, "warn")))
            }
            (parts::figure("Delayed", &about(sums.delayed), jobs("delayed"), ""))
            (parts::figure("Dead", &number::count(sums.dead), Some(visit.to("dead")), if_any(sums.dead > 0, "bad")))
            (parts::figure("Completed", &number::rate(sums.completed_last_minute as f64 / 60.0), jobs("completed"), ""))
            (parts::figure("Failed", &number::rate(sums.failed_last_minute as f64 / 60.0), jobs("failing"),
                if sums.failed_last_minute > 0 { "warn" } else { "" }))
        }
    }
}

/// Returns the class of a figure that needs attention.
fn if_any(needs_attention: bool, class: &str) -> &str {
    if needs_attention { class } else { "" }
}

fn workers(sums: &Sums) -> String {
    let slots = if sums.slots == 1 { "slot" } else { "slots" };
    format!("{} ({} {slots})", number::count(sums.workers), number::count(sums.slots))
}

fn table(visit: &Visit, queues: &[Queue], last_hour: Option<&LastHour>) -> Markup {
    let columns = [
        Column::Text("Queue"),
        Column::Wide("Last hour"),
        Column::Number("Ready"),
        Column::Number("Running"),
        Column::WideNumber("Delayed"),
        Column::Number("Dead"),
        Column::WideNumber("Oldest ready"),
        Column::WideNumber("Completed"),
        Column::WideNumber("Failed"),
    ];
    let rows = html! {
        @for queue in queues.iter().filter(|queue| visit.viewer.sees(&queue.queue)) {
            @let link = visit.to(&format!("queue?name={}", text::in_query(&queue.queue)));
            tr data-href=(link) data-key=(queue.queue) {
                th scope="row" {
                    (parts::queue_link(visit, &queue.queue))
                    @if queue.paused { (parts::badge("paused", "warn")) }
                    @if queue.lacks_workers() { (parts::badge("no worker", "warn")) }
                    @if queue.parked > 0 { (parts::badge(&format!("{} parked", number::count(queue.parked)), "warn")) }
                }
                td.wide {
                    @let parts = last_hour.and_then(|last_hour| last_hour.get(&queue.queue));
                    @if let Some(parts) = parts { (chart::sparkline(parts, &ended_in(parts))) }
                }
                td.n { (number::about(queue.ready, queue.estimated)) }
                td.n { (parts::count(queue.running)) }
                td.n.wide { (number::about(queue.delayed, queue.estimated)) }
                td.n { (parts::count(queue.dead)) }
                td.n.wide { (queue.oldest_ready_seconds.map(number::seconds).unwrap_or_default()) }
                td.n.wide { (number::rate(queue.completed_last_minute as f64 / 60.0)) }
                td.n.wide { (number::rate(queue.failed_last_minute as f64 / 60.0)) }
            }
        }
    };
    parts::table("Queues", &columns, rows)
}

fn ended_in(parts: &[f64]) -> String {
    format!("{} attempts ended in the last hour", number::count(parts.iter().sum::<f64>() as u64))
}
