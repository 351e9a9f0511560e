//! The schedules: when each one fires next, and which of them need somebody.

use std::time::{Duration, SystemTime};

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{OverviewList, Record};

use super::column;
use crate::access::Right;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{number, text, time};
use crate::guard::Refusal;
use crate::readings::Reading;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The number of schedules that are read.
const MOST: usize = 200;
/// Workers fire a tick within a second or two. A tick that is overdue for longer is late.
const LATE_SECONDS: f64 = -30.0;

#[derive(Debug, Clone)]
pub struct Listed {
    pub name: String,
    pub timing: String,
    pub time_zone: String,
    pub kind: String,
    pub queue: String,
    pub catch_up: String,
    pub next_at: Option<SystemTime>,
    pub last_at: Option<SystemTime>,
    pub paused: bool,
    pub stale: bool,
    pub error: Option<String>,
    next_seconds: Option<f64>,
}

impl Listed {
    fn of(row: &Record) -> Listed {
        Listed {
            name: column(row, "name"),
            timing: column(row, "timing"),
            time_zone: column(row, "time_zone"),
            kind: column(row, "kind"),
            queue: column(row, "queue"),
            catch_up: column(row, "catch_up"),
            next_at: row.time("next_at"),
            last_at: row.time("last_at"),
            paused: column(row, "paused"),
            stale: column(row, "stale"),
            error: column(row, "error"),
            next_seconds: column(row, "next_seconds"),
        }
    }

    pub fn is_late(&self) -> bool {
        !self.paused && self.next_seconds.is_some_and(|seconds| seconds < LATE_SECONDS)
    }

    pub fn page(&self) -> String {
        format!("schedule?name={}", text::in_query(&self.name))
    }

    pub fn badges(&self) -> Markup {
        html! {
            @if self.error.is_some() { (parts::badge("error", "bad")) }
            @if self.is_late() { (parts::badge("late", "bad")) }
            @if self.paused { (parts::badge("paused", "warn")) }
            @if self.stale { (parts::badge("stale", "warn")) }
        }
    }

    /// Draws the cron text with its zone, or the interval.
    pub fn written_timing(&self) -> Markup {
        html! {
            @match interval(&self.timing) {
                Some(every) => { "every " (number::duration(every)) }
                None => { code { (text::line(&self.timing)) } span.sub { (text::line(&self.time_zone)) } }
            }
        }
    }
}

/// Reads an interval as the view writes it, `every 1 day 00:00:10.5`. Returns `None` for a cron text.
pub fn interval(timing: &str) -> Option<Duration> {
    let mut words = timing.strip_prefix("every ")?.split(' ').collect::<Vec<_>>();
    let clock = match words.last()? {
        last if last.contains(':') => words.pop()?,
        _ => "0:0:0",
    };
    let [hours, minutes, seconds] = clock.split(':').collect::<Vec<_>>().try_into().ok()?;
    let whole = |text: &str| text.parse::<f64>().ok();
    let days = match words[..] {
        [] => 0.0,
        [days, "day" | "days"] => whole(days)?,
        _ => return None,
    };
    let seconds = days * 86_400.0 + whole(hours)? * 3600.0 + whole(minutes)? * 60.0 + whole(seconds)?;
    Duration::try_from_secs_f64(seconds).ok().filter(|every| !every.is_zero())
}

pub async fn read(visit: &Visit) -> Reading<Vec<Record>> {
    visit.read("schedules", |admin| async move { admin.overview_list(&OverviewList::Schedules).await }).await
}

pub fn seen(visit: &Visit, rows: &[Record]) -> Vec<Listed> {
    rows.iter().map(Listed::of).filter(|schedule| visit.viewer.sees(&schedule.queue)).collect()
}

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let schedules = read(&visit).await;
    let body = html! {
        h1 { "Schedules" }
        (parts::reading(&schedules, |rows| {
            let schedules = seen(&visit, rows);
            html! {
                @if schedules.is_empty() {
                    p.empty {
                        "There is no schedule. A worker declares schedules in its code, and "
                        code { "reveille schedule add" } " adds them by hand."
                    }
                } @else {
                    (table(&visit, &schedules))
                }
                @if rows.len() >= MOST { p.hint { "Only the first " (MOST) " schedules are listed." } }
                @if schedules.iter().any(Listed::is_late) {
                    p.hint { "A schedule is late if no worker has fired it within 30 seconds of its tick." }
                }
            }
        }))
    };
    Ok(Page { title: "Schedules".into(), section: Section::Schedules, body })
}

fn table(visit: &Visit, schedules: &[Listed]) -> Markup {
    let may_pause = visit.may(Right::Pause);
    let mut columns = vec![
        Column::Text("Schedule"),
        Column::Text("Timing"),
        Column::Second("Kind"),
        Column::Second("Last tick"),
        Column::Text("Next tick"),
    ];
    if may_pause {
        columns.push(Column::Wide("Action"));
    }
    let rows = html! {
        @for schedule in schedules {
            @let link = visit.to(&schedule.page());
            tr data-href=(link) data-key=(schedule.name) {
                th.long scope="row" {
                    a href=(link) { (text::line(&schedule.name)) } (schedule.badges())
                    @if let Some(error) = &schedule.error { span.sub { (text::line(&text::cut(error, 200))) } }
                }
                td.word { (schedule.written_timing()) }
                td.second.word { (text::line(&schedule.kind)) span.sub { (parts::queue_link(visit, &schedule.queue)) } }
                td.second { (time::ago(schedule.last_at)) }
                td { (time::ago(schedule.next_at)) }
                @if may_pause { td.wide { (pause_button(visit, schedule, &[("list", "1")])) } }
            }
        }
    };
    parts::table("Schedules", &columns, rows)
}

/// Draws the button that pauses or resumes. `further` is carried by its form.
pub fn pause_button(visit: &Visit, schedule: &Listed, further: &[(&str, &str)]) -> Markup {
    let carried = [&[("name", schedule.name.as_str())], further].concat();
    match schedule.paused {
        true => parts::button(visit, "schedule/resume", "Resume", "", &carried),
        false => parts::button(visit, "schedule/pause", "Pause", "", &carried),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_read_as_postgres_writes_it() {
        let seconds = |timing| interval(timing).map(|every| every.as_secs_f64());
        assert_eq!(seconds("every 00:00:10"), Some(10.0));
        assert_eq!(seconds("every 1 day 02:00:00.5"), Some(93_600.5));
        assert_eq!(seconds("every 3 days"), Some(259_200.0));
        for other in ["0 3 * * *", "@daily", "every 1 mon", "every 00:00:00", "every", "every x:y:z"] {
            assert_eq!(seconds(other), None, "{other}");
        }
    }
}
