//! Reviving and purging a group of dead jobs: the number is shown first, then a run changes all of them.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use reveille::admin::{BulkAction, Filter, JobCount, Start};

use crate::access::Right;
use crate::draw::parts;
use crate::draw::shell::{self, Section};
use crate::draw::{number, text};
use crate::guard::Refusal;
use crate::page::dead_group::{self, Group, hash};
use crate::posted::Posted;
use crate::runs;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The longest time that is spent on counting the jobs.
const LONGEST_COUNT: Duration = Duration::from_millis(200);

/// What is done to the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Revive,
    Purge,
}

impl Deed {
    fn right(self) -> Right {
        match self {
            Deed::Revive => Right::Revive,
            Deed::Purge => Right::Purge,
        }
    }

    fn action(self) -> BulkAction {
        match self {
            Deed::Revive => BulkAction::Revive,
            Deed::Purge => BulkAction::Purge,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Deed::Revive => "revive",
            Deed::Purge => "purge",
        }
    }

    /// Says what the deed means for the jobs.
    fn meaning(self) -> &'static str {
        match self {
            Deed::Revive => {
                "A revived job is due at once, with all its attempts again. One whose unique key a live job holds \
                 stays dead."
            }
            Deed::Purge => "A purged job is deleted. It cannot be brought back.",
        }
    }
}

/// The jobs of a group as they were counted.
struct Counted {
    group: Group,
    /// The error's first line as it is stored, and as it may be shown.
    line: Option<(String, String)>,
    filter: Filter,
    count: JobCount,
    /// Jobs that die later are left alone.
    start: Start,
}

impl Counted {
    /// Counts the jobs that had died by the start, which is now if `start` is `None`.
    async fn count(visit: &Visit, group: Group, start: Option<Start>, deed: Deed) -> Result<Counted, Refusal> {
        let line = line_of(visit, &group).await?;
        let filter = group.filter(line.as_ref().map(|(stored, _)| stored.as_str()));
        let bulk = visit.admin().bulk(deed.action(), &filter)?;
        let mut bulk = match start {
            Some(start) => bulk.starting_at(start),
            None => bulk,
        };
        let count = bulk.count_up_to(u64::MAX, LONGEST_COUNT).await?;
        let start = bulk.start().await?;
        Ok(Counted { group, line, filter, count, start })
    }

    fn number(&self) -> String {
        let or_more = if self.count.is_exact { "" } else { " or more" };
        format!("{}{or_more}", number::count(self.count.jobs))
    }
}

/// Returns the text of a group's line, as it is stored and as it may be shown.
async fn line_of(visit: &Visit, group: &Group) -> Result<Option<(String, String)>, Refusal> {
    let Some(wanted) = &group.line else { return Ok(None) };
    let errors = dead_group::read_errors(visit, group).await;
    let errors = errors.value.as_ref().map_err(|reason| Refusal::unavailable(reason.as_str()))?;
    let found = errors.iter().find(|error| error.line.as_deref().is_some_and(|line| hash(visit, line) == *wanted));
    let found = found.and_then(|error| Some((error.line.clone()?, dead_group::shown_error(visit, &error.last))));
    found.map(Some).ok_or_else(|| Refusal::not_found("None of the jobs that died last has this error any more."))
}

pub async fn ask_to_revive(visit: Visit) -> Result<Response, Refusal> {
    ask(visit, Deed::Revive).await
}

pub async fn ask_to_purge(visit: Visit) -> Result<Response, Refusal> {
    ask(visit, Deed::Purge).await
}

async fn ask(visit: Visit, deed: Deed) -> Result<Response, Refusal> {
    visit.must(deed.right())?;
    serve::page(visit, move |visit| async move {
        let group = Group::named(&visit, |name| visit.param(name))?;
        let counted = Counted::count(&visit, group, None, deed).await?;
        Ok(question(&visit, &counted, deed, None))
    })
    .await
}

fn question(visit: &Visit, counted: &Counted, deed: Deed, wrong: Option<&str>) -> Page {
    let Counted { group, line, count, .. } = counted;
    let what = if deed == Deed::Revive { "Revive" } else { "Purge" };
    let jobs_are = if count.jobs == 1 { "dead job" } else { "dead jobs" };
    let title = format!("{what} {} {jobs_are}", counted.number());
    let body = html! {
        div data-still {
            h1 { (title) }
            dl.facts {
                dt { "Queue" } dd { (text::line(&group.queue)) }
                dt { "Kind" } dd { (text::line(&group.kind)) }
                dt { "Reason" } dd { (text::line(&group.reason)) }
                @if let Some((_, shown)) = line {
                    dt { "Error" } dd { (text::line(&text::cut(shown.lines().next().unwrap_or_default(), 500))) }
                }
            }
            @if count.jobs == 0 && count.is_exact {
                p.empty { "No dead job fits this any more." }
            } @else {
                p { (deed.meaning()) }
                (form(visit, counted, deed, wrong))
            }
            p { a href=(visit.to(&group.page())) { "Back to the group" } }
        }
    };
    Page { title, section: Section::Dead, body }
}

/// Draws the form. It carries the group and the start, which fixes the jobs that can be met.
fn form(visit: &Visit, counted: &Counted, deed: Deed, wrong: Option<&str>) -> Markup {
    let action = format!("dead/{}", deed.name());
    let Group { queue, kind, reason, line } = &counted.group;
    let start = serde_json::to_string(&counted.start).unwrap_or_default();
    let number = counted.number();
    let carried = [
        ("queue", Some(queue)),
        ("kind", Some(kind)),
        ("reason", Some(reason)),
        ("line", line.as_ref()),
        ("start", Some(&start)),
    ];
    html! {
        form.fields method="post" action=(visit.to(&action)) {
            (parts::signature(visit, &action))
            @for (name, value) in carried {
                @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
            }
            @if deed == Deed::Purge {
                label {
                    "Type " (number::count(counted.count.jobs)) " to purge them"
                    input name="typed" inputmode="numeric" autocomplete="off" required
                        aria-invalid=[wrong.map(|_| "true")] aria-describedby=[wrong.map(|_| "wrong")];
                }
                button.danger type="submit" { "Purge " (number) }
            } @else {
                button.main type="submit" { "Revive " (number) }
            }
        }
        @if let Some(wrong) = wrong { p.field-error id="wrong" role="alert" { (wrong) } }
    }
}

pub async fn revive(posted: Posted) -> Result<Response, Refusal> {
    act(posted, Deed::Revive).await
}

pub async fn purge(posted: Posted) -> Result<Response, Refusal> {
    act(posted, Deed::Purge).await
}

async fn act(posted: Posted, deed: Deed) -> Result<Response, Refusal> {
    let visit = &posted.visit;
    visit.must(deed.right())?;
    let group = Group::named(visit, |name| posted.value(name).map(str::to_owned))?;
    let start = posted.filled("start").and_then(|start| serde_json::from_str(start).ok());
    let start =
        start.ok_or_else(|| Refusal::bad_request("The form does not say when it was made. Nothing was changed."))?;
    let counted = Counted::count(visit, group, Some(start), deed).await?;
    if deed == Deed::Purge && typed(posted.value("typed")) != Some(counted.count.jobs) {
        let wrong = format!("The number is {}. Nothing was purged.", counted.number());
        let page = shell::page(visit, &question(visit, &counted, deed, Some(&wrong)));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let id = runs::begin(visit, deed.action(), &counted.filter, counted.start).await?;
    Ok(posted.done(&format!("actions/{id}"), "It has begun, and goes on without this page."))
}

/// Reads the number that a visitor has typed, with or without commas.
fn typed(text: Option<&str>) -> Option<u64> {
    text?.trim().replace([',', ' '], "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_typed_as_it_is_shown() {
        assert_eq!([typed(Some(" 1,000 ")), typed(Some("12"))], [Some(1000), Some(12)]);
        assert_eq!([typed(None), typed(Some("")), typed(Some("-1")), typed(Some("all"))], [None; 4]);
    }
}
