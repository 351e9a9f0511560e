//! One queue: what it did, what waits, and how it is set.

use std::time::{Duration, SystemTime};

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{Filter, Record, Sort, StateFilter};
use reveille::job::JobState;

use super::jobs;
use super::overview::Queue;
use crate::access::Right;
use crate::act::pause;
use crate::draw::chart::{self, Series};
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{number, text};
use crate::guard::Refusal;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The times that the charts can show: the name in the address, the title, the length in seconds, and the number of
/// bars.
const TIMES: [(&str, &str, u64, u32); 3] =
    [("hour", "hour", 3_600, 60), ("day", "day", 86_400, 96), ("week", "week", 604_800, 84)];
/// The number of jobs in each list.
const JOBS: u32 = 10;
const WITHIN: Duration = Duration::from_millis(50);

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

/// Returns the name of the queue in the address of the page.
pub fn name(visit: &Visit) -> Result<String, Refusal> {
    let name = visit.name_in("name").ok_or_else(|| Refusal::not_found("The address names no queue."))?;
    match visit.viewer.sees(&name) {
        true => Ok(name),
        false => Err(Refusal::not_found("There is no such queue.")),
    }
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let name = name(&visit)?;
    let body = html! {
        (head(&visit, &name).await)
        (pause::of_queue(&visit, &name).await)
        (charts(&visit, &name).await)
        (running(&visit, &name).await)
        (waiting(&visit, &name).await)
        (failing(&visit, &name).await)
        (keys(&visit, &name).await)
        (settings(&visit, &name).await)
    };
    Ok(Page { title: name, section: Section::Overview, body })
}

async fn head(visit: &Visit, name: &str) -> Markup {
    let of = name.to_owned();
    let read = |row: Option<Record>| row.map(|row| row.decode::<Queue>("queue")).transpose();
    let queue = visit.read(format!("queue {name}"), |admin| async move { admin.queue(&of).await.and_then(read) }).await;
    let is_paused = matches!(queue.value(), Ok(Some(queue)) if queue.paused);
    let lacks_workers = matches!(queue.value(), Ok(Some(queue)) if queue.lacks_workers());
    html! {
        div.bar {
            h1 {
                "Queue " (text::line(name))
                @if is_paused { (parts::badge("paused", "warn")) }
                @if lacks_workers { (parts::badge("no worker", "warn")) }
            }
            @if visit.may(Right::Pause) {
                @if is_paused { (parts::button(visit, "queue/resume", "Resume", "", &[("name", name)])) }
                @else { (parts::button(visit, "queue/pause", "Pause", "", &[("name", name)])) }
            }
        }
        (parts::reading(&queue, |queue| match queue {
            Some(queue) => figures(visit, queue),
            None => html! { p.hint { "The queue has no jobs, no workers and no settings." } },
        }))
    }
}

fn figures(visit: &Visit, queue: &Queue) -> Markup {
    let name = text::in_query(&queue.queue);
    let jobs = |state: &str| Some(visit.to(&format!("jobs?state={state}&queue={name}")));
    // The groups of dead jobs have their errors.
    let dead = visit.to(&format!("dead?queue={name}"));
    let about = |n| number::about(n, queue.estimated);
    let rate = number::rate(queue.completed_last_minute as f64 / 60.0);
    let failed = number::rate(queue.failed_last_minute as f64 / 60.0);
    html! {
        dl.figures {
            (parts::figure("Ready", &about(queue.ready), jobs("ready"), ""))
            (parts::figure("Running", &number::count(queue.running), jobs("running"), "run"))
            (parts::figure("Delayed", &about(queue.delayed), jobs("delayed"), ""))
            @if queue.parked > 0 { (parts::figure("Parked", &number::count(queue.parked), jobs("parked"), "warn")) }
            @if queue.blocked > 0 { (parts::figure("Blocked", &number::count(queue.blocked), jobs("blocked"), "")) }
            (parts::figure("Dead", &number::count(queue.dead), Some(dead), if queue.dead > 0 { "bad" } else { "" }))
            (parts::figure("Oldest ready", &queue.oldest_ready_seconds.map_or("–".into(), number::seconds), None, ""))
            (parts::figure("Completed", &rate, jobs("completed"), ""))
            (parts::figure("Failed", &failed, jobs("failing"), if queue.failed_last_minute > 0 { "warn" } else { "" }))
        }
    }
}

async fn charts(visit: &Visit, name: &str) -> Markup {
    let wanted = visit.param("time").unwrap_or_default();
    let (chosen, _, seconds, bars) = TIMES.into_iter().find(|(time, ..)| *time == wanted).unwrap_or(TIMES[0]);
    let queue = name.to_owned();
    let history = visit
        .read(format!("history {seconds} {name}"), move |admin| async move {
            admin.history(Some(&queue), Duration::from_secs(seconds), bars).await
        })
        .await;
    html! {
        div.tabs role="navigation" aria-label="Time" {
            @for (time, title, ..) in TIMES {
                @let address = format!("queue?name={}&time={time}", text::in_query(name));
                a href=(visit.to(&address)) aria-current=[(time == chosen).then_some("true")] { "Last " (title) }
            }
        }
        (parts::reading(&history, |rows| draw_charts(rows, seconds, bars)))
    }
}

fn draw_charts(rows: &[Record], seconds: u64, bars: u32) -> Markup {
    let column = |name: &str| {
        let mut values = vec![0.0; bars as usize];
        for row in rows {
            let part: Option<usize> = row.decode("part").ok();
            if let Some(value) = part.and_then(|part| values.get_mut(part)) {
                *value = row.decode::<Option<f64>>(name).ok().flatten().unwrap_or(0.0);
            }
        }
        values
    };
    let (completed, failed) = (column("completed"), column("failed"));
    let (waits, runs) = (column("mean_wait_seconds"), column("mean_run_seconds"));
    let starts = starts(rows, seconds, bars);
    let ended = [
        Series { class: "good", name: "completed", values: &completed },
        Series { class: "bad", name: "failed", values: &failed },
    ];
    let one = |name, values| [Series { class: "accent", name, values }];
    html! {
        div.charts {
            (chart::bars("Ended attempts", &ended, &starts, |value| number::count(value as u64)))
            (chart::bars("Mean time from due to start", &one("waiting", &waits), &starts, number::seconds))
            (chart::bars("Mean run time", &one("running", &runs), &starts, number::seconds))
        }
    }
}

/// Returns the start of each bar: a multiple of its length, by the database's clock where a row tells it.
fn starts(rows: &[Record], seconds: u64, bars: u32) -> Vec<SystemTime> {
    let step = Duration::from_secs_f64(seconds as f64 / f64::from(bars));
    let told = rows.first().and_then(|row| Some(row.time("starts_at")? - step * row.decode("part").ok()?));
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let present = (since_1970.as_secs_f64() / step.as_secs_f64()).floor() as u32;
    let first = told.unwrap_or_else(|| SystemTime::UNIX_EPOCH + step * (present + 1).saturating_sub(bars));
    (0..bars).map(|bar| first + step * bar).collect()
}

async fn running(visit: &Visit, name: &str) -> Markup {
    let filter = Filter::new().queue(name).state(JobState::Running);
    list(visit, name, "Running jobs", "running", filter, Sort::Id).await.unwrap_or_else(|| none("Running jobs"))
}

async fn waiting(visit: &Visit, name: &str) -> Markup {
    let filter = Filter::new().queue(name).state(JobState::Ready);
    list(visit, name, "Next jobs", "ready", filter, Sort::Due).await.unwrap_or_else(|| none("Next jobs"))
}

/// Draws the jobs that wait for a retry, with their errors, if there are any.
async fn failing(visit: &Visit, name: &str) -> Markup {
    let filter = Filter::new().queue(name).state(StateFilter::Failing);
    list(visit, name, "Jobs that wait for a retry", "failing", filter, Sort::Id).await.unwrap_or_default()
}

fn none(title: &str) -> Markup {
    html! { h2 { (title) } p.empty { "None." } }
}

/// Draws the first jobs that pass a filter. Returns `None` if none does.
async fn list(visit: &Visit, name: &str, title: &str, state: &str, filter: Filter, sort: Sort) -> Option<Markup> {
    let page = visit
        .read(format!("first {state} {name}"), move |admin| async move {
            admin.page(&filter, sort, JOBS, None, WITHIN).await
        })
        .await;
    let is_empty = page.value().is_ok_and(|page| page.jobs.is_empty());
    let all = visit.to(&format!("jobs?state={state}&queue={}", text::in_query(name)));
    (!is_empty).then(|| {
        html! {
            div.bar { h2 { (title) } a href=(all) { "All" } }
            (parts::reading(&page, |page| jobs::table(visit, title, &page.jobs)))
        }
    })
}

async fn keys(visit: &Visit, name: &str) -> Markup {
    let queue = name.to_owned();
    let keys = visit.read(format!("keys {name}"), |admin| async move { admin.waiting_keys(&queue).await }).await;
    parts::reading(&keys, |rows| {
        let columns =
            [Column::Text("Key"), Column::Number("Waiting"), Column::Number("Running"), Column::Line("Change")];
        let has_more = rows.iter().any(|row| row.decode("has_more").unwrap_or(false));
        html! {
            @if !rows.is_empty() {
                h2 { "Keys that wait" }
                (parts::table("Keys that wait", &columns, html! { @for row in rows { (key_row(visit, name, row)) } }))
                @if has_more { p.hint { "The queue has more keys. These are of the first 200 by name." } }
            }
        }
    })
}

fn key_row(visit: &Visit, queue: &str, row: &Record) -> Markup {
    let (key, waiting): (String, u64) = (row.decode("key").unwrap_or_default(), row.decode("waiting").unwrap_or(0));
    let link = visit.to(&format!("jobs?queue={}&key={}", text::in_query(queue), text::in_query(&key)));
    html! {
        tr data-href=(link) data-key=(key) {
            th scope="row" { a href=(link) { (text::line(&key)) } }
            td.n { (number::count(waiting)) @if waiting >= 1_000 { " or more" } }
            td.n { (parts::count(row.decode("running").unwrap_or(0))) }
            td.line.acts { (pause::button(visit, queue, ("key", &key), ("from_queue", queue))) }
        }
    }
}

async fn settings(visit: &Visit, name: &str) -> Markup {
    let queue = name.to_owned();
    let settings =
        visit.read(format!("settings {name}"), |admin| async move { admin.queue_settings(&queue).await }).await;
    parts::reading(&settings, |settings| {
        html! {
            h2 { "Settings" }
            @if visit.may(Right::Settings) { (crate::act::queue::form(visit, name, settings.as_ref(), None)) }
            @else { (shown_settings(settings.as_ref())) }
        }
    })
}

fn shown_settings(settings: Option<&Record>) -> Markup {
    let set = crate::act::queue::SETTINGS.iter().filter_map(|setting| {
        let value = settings.and_then(|settings| setting.written(settings))?;
        Some((setting.label, value))
    });
    html! {
        dl.facts { @for (label, value) in set { dt { (label) } dd { (value) } } }
        @if settings.is_none() { p.hint { "The queue has no settings of its own." } }
    }
}
