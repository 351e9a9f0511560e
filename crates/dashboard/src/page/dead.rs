//! The dead jobs, grouped by queue, kind, reason and the first line of the error.

use std::collections::HashMap;

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{DeadError, DeadGroup, DeadJobs, Deaths};

use super::dead_group::{Group, reason};
use super::deaths::{self, Period};
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{chart, number, text, time};
use crate::guard::Refusal;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The number of jobs whose errors are read, all groups together, and the number of errors that a group shows.
const LOOKED_AT: u16 = 2000;
const ERRORS: u16 = 4;

type Name<'a> = (&'a str, &'a str, &'a str);

/// The narrower choice that the page's address makes.
#[derive(Debug, Clone)]
struct Choice {
    queue: Option<String>,
    kind: Option<String>,
    reason: Option<String>,
    /// The queues of which the visitor sees the jobs; `None` if all.
    queues: Option<Vec<String>>,
}

impl Choice {
    fn of(visit: &Visit) -> Choice {
        let queue = visit.param("queue");
        let queues = match &queue {
            Some(queue) => Some(vec![queue.clone()].into_iter().filter(|queue| visit.viewer.sees(queue)).collect()),
            None => visit.viewer.queues.clone(),
        };
        Choice { queue, kind: visit.param("kind"), reason: visit.param("reason"), queues }
    }

    fn jobs(&self) -> DeadJobs {
        let mut jobs = DeadJobs::new();
        if let Some(queues) = &self.queues {
            jobs = jobs.queues(queues);
        }
        if let Some(kind) = &self.kind {
            jobs = jobs.kind(kind);
        }
        match self.reason.as_deref().and_then(reason) {
            Some(reason) => jobs.reason(reason),
            None => jobs,
        }
    }

    /// Returns the query of the page without one of its conditions.
    fn without(&self, left_out: &str) -> String {
        let conditions = [("queue", &self.queue), ("kind", &self.kind), ("reason", &self.reason)];
        let kept = conditions.iter().filter(|(name, _)| *name != left_out);
        let pairs = kept.filter_map(|(name, value)| Some(format!("{name}={}", text::in_query(value.as_deref()?))));
        pairs.collect::<Vec<_>>().join("&")
    }
}

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let choice = Choice::of(&visit);
    let period = Period::of(&visit);
    let jobs = choice.jobs();
    let of = jobs.clone();
    let groups = visit.read(format!("dead groups {jobs:?}"), move |admin| async move { admin.dead_groups(&of).await });
    let of = jobs.clone();
    let errors = visit.read(format!("dead errors {jobs:?}"), move |admin| async move {
        admin.dead_errors(&of, LOOKED_AT, ERRORS).await
    });
    let deaths = deaths::read(&visit, &jobs, period);
    let (groups, errors, deaths) = futures::join!(groups, errors, deaths);
    let body = html! {
        div.bar { h1 { "Dead jobs" } (chips(&visit, &choice)) }
        (parts::reading(&groups, |groups| html! {
            @if groups.is_empty() {
                p.empty { "No job is dead" @if !choice.without("").is_empty() { " that fits this choice" } "." }
            } @else {
                (figures(groups))
                (deaths::tabs(&visit, "dead", &choice.without(""), period))
                (parts::reading(&deaths, |deaths| deaths::chart("Jobs that died", deaths, period)))
                (table(
                    &visit, groups,
                    errors.value().map_or(&[][..], Vec::as_slice),
                    deaths.value().map_or(&[][..], Vec::as_slice),
                ))
                (notes(groups, errors.value().err()))
            }
        }))
    };
    Ok(Page { title: "Dead jobs".into(), section: Section::Dead, body })
}

/// Draws the conditions of the page, each with a link that drops it.
fn chips(visit: &Visit, choice: &Choice) -> Markup {
    let conditions = [("queue", &choice.queue), ("kind", &choice.kind), ("reason", &choice.reason)];
    html! {
        @for (name, value) in conditions {
            @if let Some(value) = value {
                a.act href=(visit.to(&format!("dead?{}", choice.without(name)))) title={ "Show any " (name) } {
                    (name) " " (text::line(value)) " ×"
                }
            }
        }
    }
}

fn figures(groups: &[DeadGroup]) -> Markup {
    let (of_jobs, of_groups) = groups.first().map_or((0, 0), |group| (group.of_jobs, group.of_groups));
    let last = groups.iter().filter_map(|group| group.last_died_at).max();
    html! {
        dl.figures {
            (parts::figure("Dead jobs", &number::count(of_jobs), None, "bad"))
            (parts::figure("Groups", &number::count(of_groups), None, ""))
            div.figure { dt { "Last died" } dd { (time::ago(last)) } }
        }
    }
}

fn table(visit: &Visit, groups: &[DeadGroup], errors: &[DeadError], deaths: &[Deaths]) -> Markup {
    let mut by_group = HashMap::<Name, Vec<&DeadError>>::new();
    for error in errors {
        by_group.entry((&error.queue, &error.kind, &error.reason)).or_default().push(error);
    }
    let bars: HashMap<Name, &Deaths> = deaths.iter().map(|d| ((&*d.queue, &*d.kind, &*d.reason), d)).collect();
    let columns = [
        Column::Text("Kind, with its errors"),
        Column::Second("When they died"),
        Column::Number("Jobs"),
        Column::SecondNumber("First died"),
        Column::Number("Last died"),
    ];
    let rows = html! {
        @for group in groups {
            @let name: Name = (&group.queue, &group.kind, &group.reason);
            @let link = visit.to(&Group::of(group).page());
            tr data-href=(link) data-key=(format!("{} {} {}", name.0, name.1, name.2)) {
                th.long scope="row" {
                    a href=(link) { (text::line(&group.kind)) } (parts::badge(&group.reason, "bad"))
                    span.sub { (parts::queue_link(visit, &group.queue)) }
                    (error_lines(visit, group, by_group.get(&name).map_or(&[][..], Vec::as_slice)))
                }
                td.second.bad {
                    @if let Some(deaths) = bars.get(&name) {
                        @let bars: Vec<f64> = deaths.bars.iter().map(|jobs| *jobs as f64).collect();
                        (chart::sparkline(&bars, "jobs that died, by time"))
                    }
                }
                td.n { (number::count(group.jobs)) }
                td.n.second { (time::ago(group.first_died_at)) }
                td.n { (time::ago(group.last_died_at)) }
            }
        }
    };
    parts::table("Groups of dead jobs", &columns, rows)
}

fn error_lines(visit: &Visit, group: &DeadGroup, errors: &[&DeadError]) -> Markup {
    let Some(first) = errors.first() else { return html! {} };
    let more = first.of_errors.saturating_sub(errors.len() as u64);
    let of = Group::of(group);
    html! {
        ul.plain.errors {
            @for error in errors {
                li { span.count { (number::count(error.jobs)) } (of.error_link(visit, error, 160)) }
            }
            @if more > 0 { li { span.count {} a href=(visit.to(&of.page())) { "and " (more) " further errors" } } }
            @if group.jobs > first.looked_at {
                li { span.count {} span.soft { "among the " (first.looked_at) " that died last" } }
            }
        }
    }
}

fn notes(groups: &[DeadGroup], errors: Option<&str>) -> Markup {
    let of_groups = groups.first().map_or(0, |group| group.of_groups);
    html! {
        @if let Some(error) = errors { p.hint { "The errors are not shown: " (error) } }
        @if of_groups > groups.len() as u64 {
            p.hint { "Only the " (groups.len()) " groups with the latest dead jobs are listed, of " (of_groups) "." }
        }
    }
}
