//! The workers: how busy they are, and which of them are stuck or silent.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{OverviewList, Record};

use super::column;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{number, text, time};
use crate::guard::Refusal;
use crate::readings::Reading;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The number of workers that are read.
const MOST: usize = 200;

#[derive(Debug, Clone)]
pub struct Worker {
    pub id: i64,
    pub host: String,
    pub pid: i64,
    pub version: String,
    pub queues: Vec<WorkedQueue>,
    pub running: u64,
    pub slots: u64,
    pub stuck: u64,
    pub alive: bool,
    pub stopping: bool,
    pub started_at: Option<SystemTime>,
    pub last_seen: Option<SystemTime>,
    last_seen_seconds: f64,
    /// True if the visitor may see all queues of the worker.
    pub is_whole: bool,
}

#[derive(Debug, Clone)]
pub struct WorkedQueue {
    pub name: String,
    pub running: u64,
    /// `None` for a worker that does not report its slots by queue.
    pub slots: Option<u64>,
}

impl Worker {
    fn of(row: &Record) -> Option<Worker> {
        let (slots, running): (Vec<u64>, Vec<u64>) = (column(row, "queue_slots"), column(row, "queue_running"));
        let queues = column::<Vec<String>>(row, "queues").into_iter().enumerate().map(|(place, name)| WorkedQueue {
            name,
            running: running.get(place).copied().unwrap_or_default(),
            slots: slots.get(place).copied(),
        });
        Some(Worker {
            id: row.decode("worker").ok()?,
            host: column(row, "host"),
            pid: column(row, "pid"),
            version: column(row, "version"),
            queues: queues.collect(),
            running: column(row, "running"),
            slots: column(row, "slots"),
            stuck: column(row, "stuck"),
            alive: column(row, "alive"),
            stopping: column(row, "stopping"),
            started_at: row.time("started_at"),
            last_seen: row.time("last_seen"),
            last_seen_seconds: column(row, "last_seen_seconds"),
            is_whole: true,
        })
    }

    /// Leaves what the visitor may see: only their queues, and the jobs and slots of these.
    fn seen_by(mut self, visit: &Visit) -> Option<Worker> {
        let count = self.queues.len();
        self.queues.retain(|queue| visit.viewer.sees(&queue.name));
        self.is_whole = self.queues.len() == count;
        if !self.is_whole {
            self.running = self.queues.iter().map(|queue| queue.running).sum();
            self.slots = self.queues.iter().filter_map(|queue| queue.slots).sum();
            self.stuck = 0;
        }
        (self.is_whole || !self.queues.is_empty()).then_some(self)
    }

    pub fn name(&self) -> String {
        format!("{}:{}", text::brief(&self.host, 256), self.pid)
    }

    fn is_sound(&self) -> bool {
        self.alive && self.stuck == 0
    }

    pub fn badges(&self) -> Markup {
        html! {
            @if !self.alive { (parts::badge("silent", "bad")) }
            @if self.stuck > 0 { (parts::badge(&format!("{} stuck", self.stuck), "bad")) }
            @if self.alive && self.stopping { (parts::badge("stopping", "warn")) }
        }
    }

    /// A worker reports once a second, so its report of the last seconds is not worth a change of the page.
    pub fn last_seen(&self) -> Markup {
        match self.last_seen_seconds < 5.0 {
            true => html! { span.soft { "now" } },
            false => time::ago(self.last_seen),
        }
    }
}

pub async fn read(visit: &Visit) -> Reading<Vec<Record>> {
    visit.read("workers", |admin| async move { admin.overview_list(&OverviewList::Workers).await }).await
}

pub fn seen(visit: &Visit, rows: &[Record]) -> Vec<Worker> {
    rows.iter().filter_map(Worker::of).filter_map(|worker| worker.seen_by(visit)).collect()
}

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let workers = read(&visit).await;
    let queue = visit.param("queue");
    let body = html! {
        div.bar {
            h1 { "Workers" @if let Some(queue) = &queue { " of " (text::line(queue)) } }
            @if queue.is_some() { a.act href=(visit.to("workers")) { "All workers" } }
        }
        (parts::reading(&workers, |rows| {
            let mut workers = seen(&visit, rows);
            workers.retain(|worker| queue.as_ref().is_none_or(|queue| worker.queues.iter().any(|q| q.name == *queue)));
            // Those that need somebody come first; the others stay in the order in which they started.
            workers.sort_by_key(Worker::is_sound);
            html! {
                @if workers.is_empty() { (empty(queue.as_deref())) }
                @else { (figures(&workers)) (table(&visit, &workers)) }
                @if rows.len() >= MOST { p.hint { "Only the " (MOST) " workers that started first are listed." } }
            }
        }))
    };
    Ok(Page { title: "Workers".into(), section: Section::Workers, body })
}

fn empty(queue: Option<&str>) -> Markup {
    html! {
        p.empty {
            @match queue {
                Some(queue) => { "No worker works the queue " (text::line(queue)) ". Its jobs wait until one starts." }
                None => { "No worker runs, so no job starts. A worker is listed here as soon as it has started." }
            }
        }
    }
}

fn figures(workers: &[Worker]) -> Markup {
    let alive = || workers.iter().filter(|worker| worker.alive);
    let silent = workers.len() - alive().count();
    let stuck: u64 = workers.iter().map(|worker| worker.stuck).sum();
    let (running, slots) = alive().fold((0, 0), |(running, slots), w| (running + w.running, slots + w.slots));
    let in_use = format!("{} / {}", number::count(running), number::count(slots));
    let stopping = alive().filter(|worker| worker.stopping).count();
    let mut versions = BTreeMap::<&str, usize>::new();
    alive().for_each(|worker| *versions.entry(&worker.version).or_default() += 1);
    html! {
        dl.figures {
            (parts::figure("Alive", &number::count(alive().count() as u64), None, ""))
            (parts::figure("Slots in use", &in_use, None, "run"))
            @if stopping > 0 { (parts::figure("Stopping", &number::count(stopping as u64), None, "warn")) }
            (parts::figure("Silent", &number::count(silent as u64), None, if silent > 0 { "bad" } else { "" }))
            (parts::figure("Stuck jobs", &number::count(stuck), None, if stuck > 0 { "bad" } else { "" }))
        }
        @if silent > 0 {
            p.problem {
                "A silent worker has not reported for 30 seconds. Its jobs are taken back by the other workers."
            }
        }
        @if versions.len() > 1 {
            p.hint {
                "These workers run " (versions.len()) " versions: "
                @for (place, (version, count)) in versions.iter().enumerate() {
                    @if place > 0 { ", " }
                    (text::brief(version, 256)) " (" (count) ")"
                }
                "."
            }
        }
    }
}

fn table(visit: &Visit, workers: &[Worker]) -> Markup {
    let columns = [
        Column::Text("Worker"),
        Column::Line("Queues, with running jobs and slots"),
        Column::Text("Running"),
        Column::Second("Started"),
        Column::Text("Last seen"),
        Column::Second("Version"),
    ];
    let rows = html! {
        @for worker in workers {
            @let link = visit.to(&format!("workers/{}", worker.id));
            tr data-href=(link) data-key=(worker.id) {
                th.long scope="row" { a href=(link) { (worker.name()) } (worker.badges()) }
                td.line { (queues(visit, worker)) }
                td { (parts::meter(worker.running, worker.slots)) }
                td.second { (time::ago(worker.started_at)) }
                td { (worker.last_seen()) }
                td.second { (text::brief(&worker.version, 256)) }
            }
        }
    };
    parts::table("Workers", &columns, rows)
}

/// Draws the first queues of a worker; the worker's own page has all.
fn queues(visit: &Visit, worker: &Worker) -> Markup {
    const SHOWN: usize = 6;
    html! {
        span.chips {
            @for queue in worker.queues.iter().take(SHOWN) {
                span {
                    (parts::queue_link(visit, &queue.name))
                    span.soft { " " (queue.running) @if let Some(slots) = queue.slots { "/" (slots) } }
                }
            }
            @if worker.queues.len() > SHOWN { span.soft { "and " (worker.queues.len() - SHOWN) " more" } }
        }
    }
}
