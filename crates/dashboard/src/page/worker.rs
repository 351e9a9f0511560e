//! One worker: its queues with their slots, and the jobs that it runs.

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{OverviewList, Record};

use super::workers::{self, WorkedQueue, Worker};
use super::{Id, column};
use crate::access::Right;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{number, text, time};
use crate::guard::Refusal;
use crate::posted::Posted;
use crate::serve::{self, Page};
use crate::visit::Visit;

const MOST_JOBS: usize = 200;
const MOST_SLOTS: u32 = 10_000;
const UNKNOWN: &str = "There is no such worker any more.";

pub async fn show((Id(id), visit): (Id, Visit)) -> Result<Response, Refusal> {
    serve::page(visit, move |visit| draw(visit, id)).await
}

async fn draw(visit: Visit, id: i64) -> Result<Page, Refusal> {
    let rows = workers::read(&visit).await;
    let jobs = visit
        .read(format!("running jobs of {id}"), move |admin| async move {
            admin.overview_list(&OverviewList::Running { worker: Some(id) }).await
        })
        .await;
    let worker = rows.value().ok().map(|rows| workers::seen(&visit, rows));
    let worker = worker.and_then(|workers| workers.into_iter().find(|worker| worker.id == id));
    let name = worker.as_ref().map_or_else(|| format!("Worker {id}"), Worker::name);
    let body = html! {
        div.bar {
            h1 { (name) @if let Some(worker) = &worker { (worker.badges()) } }
            @if let Some(worker) = &worker { (stop_button(&visit, worker)) }
        }
        (parts::reading(&rows, |_| match &worker {
            Some(worker) => html! { (facts(worker)) h2 { "Queues" } (queues(&visit, worker)) },
            None => html! {
                p.empty { "This worker has ended. Its jobs have ended too, or other workers have taken them back." }
            },
        }))
        @if worker.is_some() {
            h2 { "Running jobs" }
            (parts::reading(&jobs, |jobs| running(&visit, jobs)))
        }
        p { a href=(visit.to("workers")) { "All workers" } }
    };
    Ok(Page { title: name, section: Section::Workers, body })
}

fn stop_button(visit: &Visit, worker: &Worker) -> Markup {
    let action = format!("workers/{}/stop", worker.id);
    let question = format!(
        "Stop {}? It takes no more jobs, finishes the {} that it runs, and then its process ends. What starts your \
         processes may start it again.",
        worker.name(),
        match worker.running {
            1 => "job".to_owned(),
            running => format!("{} jobs", number::count(running)),
        }
    );
    html! {
        // A worker that works queues which the visitor does not see is not theirs to stop.
        @if visit.may(Right::StopWorkers) && worker.is_whole && worker.alive && !worker.stopping {
            @let button = parts::strong_button(visit, &action, "Stop the worker", "danger", &[]);
            (parts::confirmed("Stop", &question, button))
        }
    }
}

fn facts(worker: &Worker) -> Markup {
    html! {
        dl.facts {
            dt { "Host" } dd { (text::brief(&worker.host, 256)) }
            dt { "Process" } dd { (worker.pid) }
            dt { "Version" } dd { (text::brief(&worker.version, 256)) }
            dt { "Running" } dd { (parts::meter(worker.running, worker.slots)) }
            dt { "Started" }
            dd { (time::exact(worker.started_at)) span.soft { " (" (time::ago(worker.started_at)) ")" } }
            dt { "Last seen" } dd { (worker.last_seen()) }
            dt { "Id" } dd.id { (worker.id) }
        }
    }
}

fn queues(visit: &Visit, worker: &Worker) -> Markup {
    let may = visit.may(Right::StopWorkers) && worker.alive;
    let mut columns = vec![Column::Text("Queue"), Column::Text("Running")];
    if may {
        columns.push(Column::Text("Slots"));
    }
    let rows = html! {
        @for queue in &worker.queues {
            tr {
                th scope="row" { (parts::queue_link(visit, &queue.name)) }
                td { (parts::meter(queue.running, queue.slots.unwrap_or_default())) }
                @if may { td { (slots_form(visit, worker, queue)) } }
            }
        }
    };
    html! {
        (parts::table("Queues of the worker", &columns, rows))
        @if may {
            p.hint {
                "With 0 slots, the worker starts no job of the queue. A worker that is started again has the slots of \
                 its own program."
            }
        }
    }
}

fn slots_form(visit: &Visit, worker: &Worker, queue: &WorkedQueue) -> Markup {
    let action = format!("workers/{}/slots", worker.id);
    let Some(slots) = queue.slots else { return html! { span.soft { "not reported" } } };
    html! {
        form.fields method="post" action=(visit.to(&action)) data-keep {
            (parts::signature(visit, &action))
            input type="hidden" name="queue" value=(queue.name);
            input type="number" name="slots" value=(slots) min="0" max=(MOST_SLOTS) required
                aria-label=(format!("Slots of {}", text::line(&queue.name)));
            select name="of" aria-label="Of which workers" {
                option value="this" { "in this worker" }
                option value="all" { "in all of its workers" }
            }
            button type="submit" { "Set" }
        }
    }
}

fn running(visit: &Visit, jobs: &[Record]) -> Markup {
    let columns = [
        Column::Text("Job"),
        Column::Text("Kind"),
        Column::Second("Queue"),
        Column::Second("Attempt"),
        Column::Number("Running for"),
    ];
    let seen: Vec<&Record> = jobs.iter().filter(|job| visit.viewer.sees(&column::<String>(job, "queue"))).collect();
    let rows = html! {
        @for job in &seen {
            @let id: i64 = column(job, "id");
            tr data-href=(visit.to(&format!("jobs/{id}"))) data-key=(id) {
                th scope="row" { (parts::job_link(visit, id)) }
                td { (text::line(&column::<String>(job, "kind"))) }
                td.second { (parts::queue_link(visit, &column::<String>(job, "queue"))) }
                td.second { (column::<u64>(job, "attempt")) }
                td.n { (number::seconds(column::<f64>(job, "running_seconds").floor())) }
            }
        }
    };
    html! {
        @if seen.is_empty() { p.empty { "It runs no job now." } }
        @else { (parts::table("Running jobs", &columns, rows)) }
        @if jobs.len() >= MOST_JOBS { p.hint { "Only the " (MOST_JOBS) " jobs that run longest are listed." } }
    }
}

pub async fn stop((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    let visit = &posted.visit;
    visit.must(Right::StopWorkers)?;
    let worker = find(visit, id).await?;
    if !worker.is_whole {
        return Err(Refusal::forbidden("The worker also works queues that you may not see. Nothing was changed."));
    }
    let stopped = visit.operator()?.stop_worker(id).await?;
    let done = format!("{} was asked to stop. It ends once its running jobs have ended.", worker.name());
    Ok(posted.done_if(stopped, &format!("workers/{id}"), &done, UNKNOWN))
}

pub async fn set_slots((Id(id), posted): (Id, Posted)) -> Result<Response, Refusal> {
    let visit = &posted.visit;
    visit.must(Right::StopWorkers)?;
    let worker = find(visit, id).await?;
    let queue = posted.value("queue").unwrap_or_default();
    if !worker.queues.iter().any(|worked| worked.name == queue) {
        return Err(Refusal::not_found("The worker does not work this queue. Nothing was changed."));
    }
    let page = format!("workers/{id}");
    let slots = posted.filled("slots").and_then(|slots| slots.parse().ok()).filter(|slots| *slots <= MOST_SLOTS);
    let Some(slots) = slots else {
        return Ok(posted.done(&page, "Nothing was changed: the number of slots is a whole number from 0 to 10,000."));
    };
    let of = (posted.value("of") != Some("all")).then_some(id);
    let workers = visit.operator()?.set_slots(queue, slots, of).await?;
    let done = match of {
        Some(_) => format!("The worker gets {slots} slots for {queue} within a second."),
        None => format!("{workers} workers get {slots} slots each for {queue} within a second."),
    };
    Ok(posted.done_if(workers > 0, &page, &done, UNKNOWN))
}

/// Returns the worker of an action, if the visitor sees it.
async fn find(visit: &Visit, id: i64) -> Result<Worker, Refusal> {
    let rows = workers::read(visit).await;
    let rows = rows.value().map_err(Refusal::unavailable)?;
    workers::seen(visit, rows).into_iter().find(|worker| worker.id == id).ok_or_else(|| Refusal::not_found(UNKNOWN))
}
