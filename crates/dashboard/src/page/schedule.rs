//! One schedule: its next ticks, and what can be done about it.

use std::time::SystemTime;

use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use reveille::job::{NewJob, Payload};
use reveille::schedule::Schedule;

use super::schedules::{self, Listed};
use crate::access::Right;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{text, time};
use crate::guard::Refusal;
use crate::once::Once;
use crate::posted::Posted;
use crate::serve::{self, Page};
use crate::visit::Visit;

const TICKS: usize = 10;
const UNKNOWN: &str = "There is no such schedule any more.";

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let name = visit.param("name").ok_or_else(|| Refusal::not_found("The address names no schedule."))?;
    let rows = schedules::read(&visit).await;
    let schedule = rows.value().ok().map(|rows| schedules::seen(&visit, rows));
    let schedule = schedule.and_then(|schedules| schedules.into_iter().find(|schedule| schedule.name == name));
    let body = html! {
        div.bar {
            h1 { (text::line(&name)) @if let Some(schedule) = &schedule { (schedule.badges()) } }
            @if let Some(schedule) = &schedule {
                @if visit.may(Right::Pause) { (schedules::pause_button(&visit, schedule, &[])) }
                @if visit.may(Right::Enqueue) { (trigger_button(&visit, schedule)) }
                @if visit.may(Right::Settings) {
                    a.act href=(visit.to(&format!("schedule/remove?name={}", text::in_query(&name)))) { "Remove…" }
                }
            }
        }
        (parts::reading(&rows, |_| match &schedule {
            Some(schedule) => html! {
                (problems(schedule))
                (facts(&visit, schedule))
                h2 { "Next ticks" }
                (next(schedule))
            },
            None => html! { p.empty { "There is no such schedule." } },
        }))
        p { a href=(visit.to("schedules")) { "All schedules" } }
    };
    Ok(Page { title: name, section: Section::Schedules, body })
}

fn trigger_button(visit: &Visit, schedule: &Listed) -> Markup {
    let question = "Enqueue one job of the schedule now? Its ticks stay as they are.";
    let button = parts::once_button(visit, "schedule/trigger", "Enqueue one job", "", &[("name", &schedule.name)]);
    parts::confirmed("Trigger", question, button)
}

fn problems(schedule: &Listed) -> Markup {
    html! {
        @if let Some(error) = &schedule.error {
            p.problem { "Its next tick cannot be computed, so it does not fire: " (text::shown(error)) }
        }
        @if schedule.is_late() {
            p.problem { "Its tick is overdue. No worker fires schedules now, or none that knows this time zone." }
        }
        @if schedule.stale {
            p.notice {
                "A worker declared it in its code, and no live worker declares it any more. It still fires until it is \
                 removed."
            }
        }
    }
}

fn facts(visit: &Visit, schedule: &Listed) -> Markup {
    let of_kind = format!("kind={}&queue={}", text::in_query(&schedule.kind), text::in_query(&schedule.queue));
    let catch_up = match schedule.catch_up.as_str() {
        "skip" => "ticks that are missed while no worker runs are dropped",
        "one" => "one job for all ticks that are missed while no worker runs",
        "all" => "a job for each tick that is missed while no worker runs",
        _ => "",
    };
    html! {
        dl.facts {
            dt { "Timing" } dd { (schedule.written_timing()) }
            dt { "Kind" } dd {
                (text::line(&schedule.kind)) " ("
                a href=(visit.to(&format!("jobs?{of_kind}"))) { "its jobs" } ", "
                a href=(visit.to(&format!("dead?{of_kind}"))) { "its dead jobs" } ")"
            }
            dt { "Queue" } dd { (parts::queue_link(visit, &schedule.queue)) }
            dt { "Catch-up" } dd { (text::line(&schedule.catch_up)) span.soft { ": " (catch_up) } }
            dt { "Last tick" } dd { (exact(schedule.last_at)) }
            dt { "Next tick" } dd { (exact(schedule.next_at)) }
        }
    }
}

fn exact(at: Option<SystemTime>) -> Markup {
    html! { (time::exact(at)) @if at.is_some() { span.soft { " (" (time::ago(at)) ")" } } }
}

/// Draws the next ticks. A paused schedule counts its ticks anew when it is resumed, so the ticks of a paused interval
/// are unknown.
fn next(schedule: &Listed) -> Markup {
    let zone = text::line(&schedule.time_zone);
    let is_by_zone = schedules::interval(&schedule.timing).is_none();
    let (yours, from_now) = ("In your zone", Column::Number("From now"));
    let columns = match is_by_zone {
        true => vec![Column::Text(&zone), Column::Line(yours), from_now],
        false => vec![Column::Text(yours), from_now],
    };
    let rows = |ticks: &[SystemTime]| {
        html! {
            @for tick in ticks {
                tr data-key=(time::iso(*tick)) {
                    @if is_by_zone { td { (in_zone(*tick, &schedule.time_zone)) } }
                    td.line[is_by_zone] { (time::exact(Some(*tick))) }
                    td.n { (time::ago(Some(*tick))) }
                }
            }
        }
    };
    html! {
        @if schedule.paused { p.hint { "It is paused, so it enqueues nothing at these times." } }
        @match ticks(schedule, SystemTime::now()) {
            Ok(ticks) if ticks.is_empty() => p.empty { "The next tick is not known. A worker computes it." },
            Ok(ticks) => (parts::table("Next ticks", &columns, rows(&ticks))),
            Err(error) => p.problem { (text::shown(&error)) },
        }
    }
}

/// Returns the next ticks, from the one that is stored on.
fn ticks(schedule: &Listed, now: SystemTime) -> Result<Vec<SystemTime>, String> {
    if let Some(every) = schedules::interval(&schedule.timing) {
        let following = std::iter::successors(schedule.next_at, |tick| tick.checked_add(every));
        return Ok(following.take(TICKS).collect());
    }
    let cron = || {
        let job = NewJob::new(&schedule.kind, Payload::parse("{}")?);
        let cron = Schedule::cron(&schedule.name, &schedule.timing, &job)?.time_zone(&schedule.time_zone);
        cron.ticks_after(schedule.next_at.unwrap_or(now))
    };
    let following = cron().map_err(|error: reveille::Error| error.to_string())?;
    Ok(schedule.next_at.into_iter().chain(following).take(TICKS).collect())
}

/// Writes a time in a zone: `Mon 2026-11-30 03:00:00 CET`.
fn in_zone(tick: SystemTime, zone: &str) -> String {
    let zoned = Timestamp::try_from(tick).and_then(|tick| tick.in_tz(zone));
    zoned.map_or_else(|_| time::utc(tick), |tick| tick.strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string())
}

pub async fn ask_to_remove(visit: Visit) -> Result<Response, Refusal> {
    visit.must(Right::Settings)?;
    serve::page(visit, |visit| async move {
        let name = visit.param("name").ok_or_else(|| Refusal::not_found("The address names no schedule."))?;
        let schedule = find(&visit, &name).await?;
        let body = html! {
            div data-still {
                h1 { "Remove " (text::line(&name)) }
                dl.facts {
                    dt { "Timing" } dd { (schedule.written_timing()) }
                    dt { "Kind" } dd { (text::line(&schedule.kind)) }
                    dt { "Queue" } dd { (text::line(&schedule.queue)) }
                    dt { "Next tick" } dd { (exact(schedule.next_at)) }
                }
                p {
                    "The schedule fires no more. The jobs that it has enqueued stay. If a worker declares it in its \
                     code, it comes back when that worker starts again."
                }
                div.bar {
                    (parts::strong_button(&visit, "schedule/remove", "Remove it", "danger", &[("name", &name)]))
                    a.act href=(visit.to(&schedule.page())) { "Keep it" }
                }
            }
        };
        Ok(Page { title: format!("Remove {name}"), section: Section::Schedules, body })
    })
    .await
}

pub async fn pause(posted: Posted) -> Result<Response, Refusal> {
    let schedule = of_form(&posted, Right::Pause).await?;
    let paused = posted.visit.operator()?.pause_schedule(&schedule.name).await?;
    let done = format!("{} is paused. It enqueues nothing until it is resumed.", schedule.name);
    Ok(posted.done_if(paused, &page_after(&posted, &schedule), &done, UNKNOWN))
}

pub async fn resume(posted: Posted) -> Result<Response, Refusal> {
    let schedule = of_form(&posted, Right::Pause).await?;
    let resumed = posted.visit.operator()?.resume_schedule(&schedule.name).await?;
    let done = format!("{} goes on with its next tick.", schedule.name);
    Ok(posted.done_if(resumed, &page_after(&posted, &schedule), &done, UNKNOWN))
}

pub async fn trigger(posted: Posted) -> Result<Response, Refusal> {
    let schedule = of_form(&posted, Right::Enqueue).await?;
    let once = Once::of(&posted, &format!("schedule/trigger {}", schedule.name), posted.filled("once"))?;
    let triggered = match once.operator.trigger_schedule(&schedule.name).await {
        Ok(triggered) => triggered,
        Err(error) => return once.refused(&posted, error).await,
    };
    let done = triggered.map(|job| format!("{} has enqueued job {job}.", schedule.name));
    Ok(posted.done(&page_after(&posted, &schedule), done.as_deref().unwrap_or(UNKNOWN)))
}

pub async fn remove(posted: Posted) -> Result<Response, Refusal> {
    let schedule = of_form(&posted, Right::Settings).await?;
    let removed = posted.visit.operator()?.remove_schedule(&schedule.name).await?;
    Ok(posted.done_if(removed, "schedules", &format!("{} is removed.", schedule.name), UNKNOWN))
}

/// Returns the schedule that a form names, if the visitor sees it and has the right.
async fn of_form(posted: &Posted, right: Right) -> Result<Listed, Refusal> {
    posted.visit.must(right)?;
    find(&posted.visit, posted.value("name").unwrap_or_default()).await
}

async fn find(visit: &Visit, name: &str) -> Result<Listed, Refusal> {
    let rows = schedules::read(visit).await;
    let rows = rows.value().map_err(Refusal::unavailable)?;
    let schedule = schedules::seen(visit, rows).into_iter().find(|schedule| schedule.name == name);
    schedule.ok_or_else(|| Refusal::not_found(UNKNOWN))
}

/// A form of the list leads back to the list.
fn page_after(posted: &Posted, schedule: &Listed) -> String {
    if posted.value("list").is_some() { "schedules".to_owned() } else { schedule.page() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_tick_is_written_in_the_zone_of_its_schedule() {
        let summer = SystemTime::UNIX_EPOCH + Duration::from_secs(1_782_864_000);
        assert_eq!(in_zone(summer, "Europe/Berlin"), "Wed 2026-07-01 02:00:00 CEST");
        assert_eq!(in_zone(summer, "Mars/Olympus"), "2026-07-01 00:00:00 UTC");
    }
}
