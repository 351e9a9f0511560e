//! The dead jobs of one queue, kind and reason, or those among them with one error.

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{DeadError, DeadGroup, DeadJobs, FailureReason, Filter, JobRow, OverviewList, REASONS, Record};
use sha2::{Digest, Sha256};

use super::column;
use super::deaths::{self, Period};
use crate::access::Right;
use crate::draw::parts::{self, Column};
use crate::draw::shell::Section;
use crate::draw::{number, text, time};
use crate::encrypted;
use crate::guard::Refusal;
use crate::readings::Reading;
use crate::redact;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The number of jobs whose errors are read, the number of errors that are listed, and the number of jobs.
const LOOKED_AT: u16 = 2000;
const ERRORS: u16 = 100;
const JOBS: usize = 50;
/// The number of characters of an error's first line that count.
const LONGEST_LINE: usize = 500;

/// Dead jobs with the same queue, kind and reason, and perhaps with the same first line of the last error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub queue: String,
    pub kind: String,
    pub reason: String,
    /// The hash of the line. The line itself may be long, or may be redacted, so it stands in no address.
    pub line: Option<String>,
}

impl Group {
    pub fn of(group: &DeadGroup) -> Group {
        let DeadGroup { queue, kind, reason, .. } = group.clone();
        Group { queue, kind, reason, line: None }
    }

    /// Reads the group that a page's address or a form names.
    ///
    /// # Errors
    /// A refusal if the group is not named, or if the visitor may not see its queue.
    pub fn named(visit: &Visit, value: impl Fn(&str) -> Option<String>) -> Result<Group, Refusal> {
        let unknown = || Refusal::not_found("The address names no group of dead jobs.");
        let needed = |name| value(name).ok_or_else(unknown);
        let group =
            Group { queue: needed("queue")?, kind: needed("kind")?, reason: needed("reason")?, line: value("line") };
        if !visit.viewer.sees(&group.queue) || reason(&group.reason).is_none() {
            return Err(unknown());
        }
        Ok(group)
    }

    pub fn query(&self) -> String {
        let Group { queue, kind, reason, line } = self;
        let [queue, kind, reason] = [queue, kind, reason].map(|value| text::in_query(value));
        let line = line.as_ref().map(|line| format!("&line={}", text::in_query(line))).unwrap_or_default();
        format!("queue={queue}&kind={kind}&reason={reason}{line}")
    }

    pub fn page(&self) -> String {
        format!("dead/group?{}", self.query())
    }

    /// Returns the group of all errors.
    pub fn whole(&self) -> Group {
        Group { line: None, ..self.clone() }
    }

    pub fn jobs(&self) -> DeadJobs {
        let jobs = DeadJobs::new().queues([&self.queue]).kind(&self.kind);
        match reason(&self.reason) {
            Some(reason) => jobs.reason(reason),
            None => jobs,
        }
    }

    /// Returns the filter of the group's jobs. `line` is the text of its line.
    pub fn filter(&self, line: Option<&str>) -> Filter {
        let mut filter = Filter::new().queue(&self.queue).kind(&self.kind);
        if let Some(reason) = reason(&self.reason) {
            filter = filter.reason(reason);
        }
        match line {
            Some(line) => filter.error_line(line),
            None => filter,
        }
    }

    /// Draws an error's first line as a link to its jobs.
    pub fn error_link(&self, visit: &Visit, error: &DeadError, most: usize) -> Markup {
        let shown = text::line(&text::cut(&shown_line(visit, error), most));
        html! {
            @match &error.line {
                Some(line) => {
                    @let group = Group { line: Some(hash(visit, line)), ..self.clone() };
                    a href=(visit.to(&group.page())) { (shown) }
                }
                None => span.soft { "without an error" },
            }
        }
    }
}

/// Returns the reason with this name.
pub fn reason(name: &str) -> Option<FailureReason> {
    REASONS.into_iter().find(|reason| reason.name() == name)
}

/// Returns the name of a line in addresses and forms.
///
/// Who can guess a redacted line could check the guess by its hash. So with a redaction, the name cannot be computed
/// without the dashboard's secret.
pub fn hash(visit: &Visit, line: &str) -> String {
    match visit.shared.redact {
        Some(_) => visit.shared.forms.name(line),
        None => Sha256::digest(line.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn first_line(error: &str) -> String {
    let begin = text_begin(error);
    begin.split('\n').next().unwrap_or_default().to_owned()
}

fn text_begin(error: &str) -> &str {
    error.char_indices().nth(LONGEST_LINE).map_or(error, |(end, _)| &error[..end])
}

/// Returns the last error of a job as it may be shown.
pub fn shown_error(visit: &Visit, job: &JobRow) -> String {
    let error = job.errors().pop().map(|failed| failed.error).unwrap_or_default();
    redact::error(visit, job, &error)
}

fn shown_line(visit: &Visit, error: &DeadError) -> String {
    match first_line(&encrypted::in_words(shown_error(visit, &error.last))).trim() {
        "" => "(an error that begins with an empty line)".to_owned(),
        line => line.to_owned(),
    }
}

pub async fn read_errors(visit: &Visit, group: &Group) -> Reading<Vec<DeadError>> {
    let of = group.jobs();
    let name = format!("errors of {of:?}");
    visit.read(name, move |admin| async move { admin.dead_errors(&of, LOOKED_AT, ERRORS).await }).await
}

pub async fn show(visit: Visit) -> Result<Response, Refusal> {
    serve::page(visit, draw).await
}

async fn draw(visit: Visit) -> Result<Page, Refusal> {
    let group = Group::named(&visit, |name| visit.param(name))?;
    let period = Period::of(&visit);
    let of = group.jobs();
    let groups = visit.read(format!("dead groups {of:?}"), move |admin| async move { admin.dead_groups(&of).await });
    let list =
        OverviewList::DeadJobs { queue: group.queue.clone(), kind: group.kind.clone(), reason: group.reason.clone() };
    let jobs = visit.read(format!("{list:?}"), move |admin| async move { admin.overview_list(&list).await });
    let of = group.jobs();
    let (groups, errors, deaths, jobs) =
        futures::join!(groups, read_errors(&visit, &group), deaths::read(&visit, &of, period), jobs);
    let known = errors.value().map_or(&[][..], Vec::as_slice);
    let chosen = known
        .iter()
        .find(|error| error.line.as_deref().map(|line| hash(&visit, line)) == group.line && group.line.is_some());
    let title = if group.line.is_none() { "Jobs that died" } else { "Jobs that died, with all errors" };
    let body = html! {
        div.bar {
            h1 { (text::line(&group.kind)) (parts::badge(&group.reason, "bad")) }
            @if chosen.is_some() || group.line.is_none() { (actions(&visit, &group)) }
        }
        (parts::reading(&groups, |groups| match groups.first() {
            Some(all) => html! {
                (facts(&visit, all, chosen))
                @if group.line.is_some() { (one_error(&visit, &group, chosen)) }
                (deaths::tabs(&visit, "dead/group", &group.query(), period))
                (parts::reading(&deaths, |deaths| deaths::chart(title, deaths, period)))
                @if group.line.is_none() {
                    h2 { "Errors" }
                    (parts::reading(&errors, |errors| all_errors(&visit, &group, all, errors)))
                }
                h2 { "Jobs that died last" }
                (parts::reading(&jobs, |jobs| listed(&visit, &group, jobs)))
            },
            None => html! { p.empty { "No job of this queue, kind and reason is dead any more." } },
        }))
        p { a href=(visit.to("dead")) { "All dead jobs" } }
    };
    Ok(Page { title: format!("Dead: {}", group.kind), section: Section::Dead, body })
}

fn actions(visit: &Visit, group: &Group) -> Markup {
    let link = |what: &str| visit.to(&format!("dead/{what}?{}", group.query()));
    html! {
        @if visit.may(Right::Revive) { a.act href=(link("revive")) { "Revive…" } }
        @if visit.may(Right::Purge) { a.act.bad href=(link("purge")) { "Purge…" } }
    }
}

fn meaning(reason: &str) -> &'static str {
    match reason {
        "failed" => "no attempts are left",
        "permanent" => "the handler reported a permanent failure",
        "timed_out" => "no attempts are left, and the last one timed out",
        "lost" => "the worker of the last attempt died, and the job could not be tried again",
        "undecodable" => "the job could not be claimed, or its payload did not fit its kind",
        _ => "",
    }
}

fn facts(visit: &Visit, all: &DeadGroup, chosen: Option<&DeadError>) -> Markup {
    html! {
        dl.facts {
            dt { "Queue" } dd { (parts::queue_link(visit, &all.queue)) }
            dt { "Reason" } dd { (text::line(&all.reason)) span.soft { ": " (meaning(&all.reason)) } }
            dt { "Jobs" } dd {
                @match chosen {
                    Some(error) if error.looked_at < all.jobs => {
                        (number::count(error.jobs)) " of the " (number::count(error.looked_at)) " that died last"
                        span.soft { ", " (number::count(all.jobs)) " with all errors" }
                    }
                    Some(error) => {
                        (number::count(error.jobs)) span.soft { " of " (number::count(all.jobs)) " with all errors" }
                    }
                    None => (number::count(all.jobs)),
                }
            }
            dt { "First died" } dd { (time::exact(all.first_died_at)) }
            dt { "Last died" } dd { (time::exact(all.last_died_at)) }
        }
    }
}

fn one_error(visit: &Visit, group: &Group, chosen: Option<&DeadError>) -> Markup {
    html! {
        h2 { "Error" }
        @match chosen {
            Some(error) => {
                pre { (text::shown(&shown_error(visit, &error.last))) }
                p.hint {
                    "This is the error of job " (parts::job_link(visit, error.last.id))
                    ". The group has the jobs with the same first line. "
                    a href=(visit.to(&group.whole().page())) { "All errors" }
                }
            }
            None => p.empty {
                "None of the jobs that died last has this error. "
                a href=(visit.to(&group.whole().page())) { "All errors" }
            },
        }
    }
}

fn all_errors(visit: &Visit, group: &Group, all: &DeadGroup, errors: &[DeadError]) -> Markup {
    let columns = [Column::Number("Jobs"), Column::Text("First line of the error"), Column::SecondNumber("Latest job")];
    let rows = html! {
        @for error in errors {
            tr {
                td.n { (number::count(error.jobs)) }
                td { (group.error_link(visit, error, LONGEST_LINE)) }
                td.n.second { (parts::job_link(visit, error.last.id)) }
            }
        }
    };
    let first = errors.first();
    html! {
        (parts::table("Errors", &columns, rows))
        @if let Some(first) = first.filter(|first| first.looked_at < all.jobs) {
            p.hint { "These are the errors of the " (number::count(first.looked_at)) " jobs that died last." }
        }
        @if let Some(first) = first.filter(|first| first.of_errors > errors.len() as u64) {
            p.hint { "The " (errors.len()) " most frequent of " (number::count(first.of_errors)) " errors." }
        }
    }
}

fn listed(visit: &Visit, group: &Group, jobs: &[Record]) -> Markup {
    let line = |job: &Record| hash(visit, &first_line(&column::<String>(job, "last_error")));
    let all: Vec<&Record> = jobs.iter().filter(|job| group.line.is_none() || Some(line(job)) == group.line).collect();
    let columns = [Column::Text("Job"), Column::Number("Failures"), Column::Second("Worker"), Column::Number("Died")];
    let query = format!("state=dead&{}", group.whole().query());
    let rows = html! {
        @for job in all.iter().take(JOBS) {
            @let id: i64 = column(job, "id");
            tr data-href=(visit.to(&format!("jobs/{id}"))) data-key=(id) {
                th scope="row" { (parts::job_link(visit, id)) }
                td.n { (column::<u64>(job, "failures")) " of " (column::<u64>(job, "max_attempts")) }
                td.second.id { @if let Some(worker) = column::<Option<i64>>(job, "worker") { (worker) } }
                td.n { (number::seconds(column::<f64>(job, "died_seconds").floor())) " ago" }
            }
        }
    };
    html! {
        @if all.is_empty() { p.empty { "None of the " (jobs.len()) " jobs that died last is one of these." } }
        @else { (parts::table("Dead jobs", &columns, rows)) }
        p { a href=(visit.to(&format!("jobs?{query}"))) { "All dead jobs of this queue, kind and reason" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_by_its_address() {
        let group = Group {
            queue: "a&b".to_owned(),
            kind: "k".to_owned(),
            reason: "timed_out".to_owned(),
            line: Some("0a1b".to_owned()),
        };
        assert_eq!(group.query(), "queue=a%26b&kind=k&reason=timed_out&line=0a1b");
        assert_eq!(group.whole().page(), "dead/group?queue=a%26b&kind=k&reason=timed_out");
    }

    #[test]
    fn a_line_is_cut_as_the_statement_cuts_it() {
        assert_eq!([first_line("one\ntwo"), first_line("\ntwo"), first_line("")], ["one", "", ""]);
        assert_eq!(first_line(&"é".repeat(600)).chars().count(), 500);
    }
}
