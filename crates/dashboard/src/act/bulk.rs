//! Changing all jobs that pass a filter: their number first, then a run.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use reveille::admin::{BulkAction, JobCount, JobEdit, Start, StateFilter};
use reveille::job::{JobState, Priority};

use super::sealed::{self, Sealed};
use crate::access::Right;
use crate::draw::parts;
use crate::draw::shell::Section;
use crate::draw::{number, text};
use crate::guard::Refusal;
use crate::job_filter::{FIELDS, JobFilter};
use crate::once::Once;
use crate::posted::Posted;
use crate::readings::Age;
use crate::runs;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// What can be done to all jobs that pass a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Retry,
    Cancel,
    Revive,
    Purge,
    Again,
    Edit,
}

/// The time that counting may take before the page is answered, and while it is open.
const FIRST_COUNT: Duration = Duration::from_millis(80);
const FULL_COUNT: Duration = Duration::from_millis(1_500);
/// The fields of the form that has the new values of the jobs.
const EDITED: [&str; 3] = ["to_queue", "to_priority", "to_due"];

impl Deed {
    const ALL: [Deed; 6] = [Deed::Retry, Deed::Cancel, Deed::Revive, Deed::Purge, Deed::Again, Deed::Edit];

    fn name(self) -> &'static str {
        match self {
            Deed::Retry => "retry",
            Deed::Cancel => "cancel",
            Deed::Revive => "revive",
            Deed::Purge => "purge",
            Deed::Again => "again",
            Deed::Edit => "edit",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Deed::Retry => "Retry now",
            Deed::Cancel => "Cancel",
            Deed::Revive => "Revive",
            Deed::Purge => "Purge",
            Deed::Again => "Run again",
            Deed::Edit => "Move or change",
        }
    }

    /// The text of the button that does it. "Cancel" alone would look like the way back.
    fn button(self) -> &'static str {
        match self {
            Deed::Cancel => "Cancel the jobs",
            other => other.title(),
        }
    }

    /// Says what the deed means for the jobs.
    fn meaning(self) -> &'static str {
        match self {
            Deed::Retry => "Delayed jobs become due now.",
            Deed::Cancel => "Waiting jobs are cancelled. The handlers of running jobs are asked to stop.",
            Deed::Revive => {
                "A revived job is due at once, with all its attempts again. One whose unique key a live job holds \
                 stays dead."
            }
            Deed::Purge => "A purged job is deleted. It cannot be brought back.",
            Deed::Again => "For each job, a new job like it is enqueued.",
            Deed::Edit => "Waiting jobs get the new values. What is left empty stays.",
        }
    }

    fn right(self) -> Right {
        match self {
            Deed::Retry | Deed::Again => Right::Retry,
            Deed::Cancel => Right::Cancel,
            Deed::Revive => Right::Revive,
            Deed::Purge => Right::Purge,
            Deed::Edit => Right::Edit,
        }
    }

    fn action(self) -> BulkAction {
        match self {
            Deed::Retry => BulkAction::Retry,
            Deed::Cancel => BulkAction::Cancel,
            Deed::Revive => BulkAction::Revive,
            Deed::Purge => BulkAction::Purge,
            Deed::Again => BulkAction::RunAgain,
            // For counting, any change will do: it decides nothing about which jobs pass.
            Deed::Edit => BulkAction::Edit(JobEdit::new().priority(Priority::Normal)),
        }
    }

    fn fits(self, state: Option<&str>) -> bool {
        let state = state.and_then(|state| state.parse::<StateFilter>().ok());
        match state {
            Some(StateFilter::Is(JobState::Dead)) => matches!(self, Deed::Revive | Deed::Purge),
            Some(StateFilter::Is(JobState::Completed | JobState::Cancelled) | StateFilter::Finished) => {
                self == Deed::Again
            }
            Some(StateFilter::Is(JobState::Running) | StateFilter::Stuck) => self == Deed::Cancel,
            Some(StateFilter::Is(JobState::Delayed) | StateFilter::Failing) => {
                matches!(self, Deed::Retry | Deed::Cancel | Deed::Edit)
            }
            // Parked jobs are edited one at a time: an edit unparks a job.
            Some(StateFilter::Is(JobState::Parked | JobState::Blocked)) => self == Deed::Cancel,
            _ => matches!(self, Deed::Cancel | Deed::Edit),
        }
    }
}

/// Returns the state of all jobs that pass the filter: only dead jobs have a reason.
fn state(filter: &JobFilter) -> Option<&str> {
    filter.field("state").or(filter.field("reason").map(|_| "dead"))
}

/// Draws the links to all that the visitor may do to the jobs of a list.
pub fn links(visit: &Visit, filter: &JobFilter) -> Markup {
    let fits = |deed: &Deed| deed.fits(state(filter)) && visit.may(deed.right());
    let deeds = Deed::ALL.into_iter().filter(fits).collect::<Vec<_>>();
    html! {
        @if !deeds.is_empty() {
            div.bar {
                span.soft { "All that match:" }
                @for deed in deeds {
                    a.act href=(visit.to(&filter.address_of("bulk", &[("do", deed.name())]))) { (deed.title()) " …" }
                }
            }
        }
    }
}

/// What is to be done to which jobs, as the address of the page says it.
struct Wish {
    deed: Deed,
    filter: JobFilter,
    /// Fixes which jobs can be met; `None` before the first page. A purge has the number of jobs in it.
    sealed: Option<Sealed>,
}

impl Wish {
    fn read(visit: &Visit, value: impl Fn(&str) -> Option<String>) -> Result<Wish, Refusal> {
        let name = value("do").unwrap_or_default();
        let deed = Deed::ALL.into_iter().find(|deed| deed.name() == name);
        let deed = deed.ok_or_else(|| Refusal::bad_request("The address does not say what to do with the jobs."))?;
        visit.must(deed.right())?;
        let fields = FIELDS.into_iter().filter_map(|name| Some((name, value(name).filter(|value| !value.is_empty())?)));
        let filter = JobFilter::read(visit, fields.collect()).map_err(Refusal::bad_request)?;
        if !deed.fits(state(&filter)) {
            return Err(Refusal::bad_request("This cannot be done to jobs in this state."));
        }
        let wish = Wish { deed, filter, sealed: None };
        let sealed = Sealed::read(visit, &wish.address(&[]), value)?;
        Ok(Wish { sealed, ..wish })
    }

    /// Returns the address of the page, which is also what the seal is about: the deed and the filter.
    fn address(&self, further: &[(&str, &str)]) -> String {
        self.filter.address_of("bulk", &[&[("do", self.deed.name())], further].concat())
    }
}

/// Shows the number of jobs, and asks. The first request fixes the start, and sends the browser to an address that has
/// it.
pub async fn ask(visit: Visit) -> Result<Response, Refusal> {
    let wish = Wish::read(&visit, |name| visit.param(name))?;
    if wish.sealed.is_none() {
        let _ = visit.admin().bulk(wish.deed.action(), &wish.filter.filter)?;
        let jobs = (wish.deed.action(), wish.filter.filter.clone());
        let start = match wish.deed {
            // The number that is to be typed is the one of this moment.
            Deed::Purge => count(&visit, &wish, FULL_COUNT).await.map(|(_, start)| start),
            _ => sealed::start(&visit, &wish.address(&[]), jobs).await,
        };
        let sealed = Sealed::new(&visit, &wish.address(&[]), start.map_err(Refusal::unavailable)?)?;
        let there = wish.address(&sealed.fields());
        return Ok((StatusCode::SEE_OTHER, [(LOCATION, visit.to(&there))]).into_response());
    }
    serve::page(visit, move |visit| async move {
        let wish = Wish::read(&visit, |name| visit.param(name))?;
        Ok(question(&visit, &wish).await)
    })
    .await
}

async fn count(visit: &Visit, wish: &Wish, time: Duration) -> Result<(JobCount, Start), String> {
    let jobs = (wish.deed.action(), wish.filter.filter.clone());
    sealed::count(visit, &wish.address(&[]), jobs, wish.sealed.as_ref().map(|sealed| sealed.start), time).await
}

async fn question(visit: &Visit, wish: &Wish) -> Page {
    let time = if visit.age == Age::Fresh { FIRST_COUNT } else { FULL_COUNT };
    let counted = match wish.sealed.as_ref().and_then(|sealed| sealed.start.matching) {
        Some(shown) => Ok((shown, true)),
        None => count(visit, wish, time).await.map(|(count, _)| (count.jobs, count.is_exact)),
    };
    let conditions = wish.filter.fields.iter().filter(|(name, _)| *name != "sort");
    let body = html! {
        h1 { (wish.deed.title()) ": all jobs that match" }
        dl.facts {
            @for (name, value) in conditions { dt { (name) } dd { (text::line(&text::cut(value, 200))) } }
            @if wish.filter.fields.is_empty() { dt { "jobs" } dd { "all live jobs" } }
        }
        @match &counted {
            Ok((jobs, is_exact)) => p #number { strong { (number::count(*jobs)) }
                @if *is_exact { (if *jobs == 1 { " job" } else { " jobs" }) }
                @else { " jobs or more, still counting" }
            },
            Err(problem) => p.problem role="alert" { "The jobs could not be counted: " (text::shown(problem)) },
        }
        p.hint { (wish.deed.meaning()) " Jobs that are enqueued, or that end, from now on are left alone." }
        (form(visit, wish))
    };
    Page { title: format!("{} jobs", wish.deed.title()), section: Section::Jobs, body }
}

fn form(visit: &Visit, wish: &Wish) -> Markup {
    let (carried, wrong) = (|name: &str| visit.param(name).unwrap_or_default(), visit.wrong());
    let input = |name: &str, label: &str, hint: &str| {
        html! { label { (label) input name=(name) value=(carried(name)) placeholder=(hint) autocomplete="off"; } }
    };
    html! {
        form.fields method="post" action=(visit.to("bulk")) data-keep {
            (parts::signature(visit, "bulk"))
            input type="hidden" name="do" value=(wish.deed.name());
            @for (name, value) in wish.sealed.iter().flat_map(Sealed::fields) {
                input type="hidden" name=(name) value=(value);
            }
            @for (name, value) in &wish.filter.fields { input type="hidden" name=(name) value=(value); }
            @if wish.deed == Deed::Edit {
                (input("to_queue", "Move to queue", "as it is"))
                label {
                    "Priority"
                    select name="to_priority" {
                        option value="" { "as it is" }
                        @for name in Priority::ALL.map(Priority::name) {
                            option value=(name) selected[carried("to_priority") == name] { (name) }
                        }
                    }
                }
                (input("to_due", "Due", "now, tomorrow 8:00+01"))
            }
            @if let Some(sealed) = wish.sealed.as_ref().filter(|_| wish.deed == Deed::Purge) {
                (sealed.confirmation(wrong.is_some()))
            }
            @let class = if matches!(wish.deed, Deed::Cancel | Deed::Purge) { "danger" } else { "main" };
            button.(class) type="submit" { (wish.deed.button()) }
            a.act href=(visit.to(&wish.filter.address(&[]))) { "Back" }
        }
        @if let Some(wrong) = wrong {
            p.problem id="wrong" role="alert" { (text::shown(&wrong)) " Nothing was changed." }
        }
    }
}

/// Begins the run, and shows it.
pub async fn begin(posted: Posted) -> Result<Response, Refusal> {
    let visit = &posted.visit;
    let value = |name: &str| posted.value(name).map(str::to_owned);
    let wish = Wish::read(visit, value)?;
    let sealed = wish.sealed.as_ref();
    let sealed = sealed.ok_or_else(|| Refusal::bad_request("The form does not say when it was made."))?;
    let changes = EDITED.map(|name| (name, posted.filled(name).unwrap_or_default()));
    let action = match action(&posted, &wish, sealed).await {
        Ok(action) => action,
        Err(wrong) => return Ok(posted.back(&wish.address(&[&sealed.fields()[..], &changes].concat()), &wrong)),
    };
    let once = Once::of(&posted, &format!("bulk {changes:?}"), Some(&sealed.seal))?;
    let start = match sealed.start.matching {
        Some(_) => sealed.start,
        // The record of the run has the number, if the jobs are few enough to be counted at once.
        None => count(visit, &wish, FIRST_COUNT).await.map_or(sealed.start, |(_, start)| start),
    };
    runs::begin(&posted, once, (action, &wish.filter.filter), start).await
}

/// Returns what is to be done, or what is wrong with the form.
async fn action(posted: &Posted, wish: &Wish, sealed: &Sealed) -> Result<BulkAction, String> {
    match wish.deed {
        Deed::Edit => edit(posted).await.map(BulkAction::Edit),
        Deed::Purge => sealed.check(posted.value("typed")).map(|()| BulkAction::Purge),
        deed => Ok(deed.action()),
    }
}

async fn edit(posted: &Posted) -> Result<JobEdit, String> {
    let said = |error: reveille::Error| error.to_string();
    let mut edit = JobEdit::new();
    if let Some(queue) = posted.filled("to_queue") {
        if !posted.visit.viewer.sees(queue) {
            return Err("You may not move jobs to a queue that you may not see.".to_owned());
        }
        edit = edit.queue(queue);
    }
    if let Some(priority) = posted.filled("to_priority") {
        edit = edit.priority(priority.parse().map_err(said)?);
    }
    edit = match posted.filled("to_due") {
        None => edit,
        Some("now") => edit.delay(Duration::ZERO),
        Some(due) => edit.at(posted.visit.admin().read_time(due).await.map_err(said)?),
    };
    edit.check().map_err(said)?;
    Ok(edit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_the_deeds_that_fit_it() {
        let of = |state| Deed::ALL.into_iter().filter(|deed| deed.fits(state)).collect::<Vec<_>>();
        assert_eq!(of(None), [Deed::Cancel, Deed::Edit]);
        assert_eq!(of(Some("dead")), [Deed::Revive, Deed::Purge]);
        assert_eq!(of(Some("failing")), [Deed::Retry, Deed::Cancel, Deed::Edit]);
        assert_eq!(of(Some("running")), [Deed::Cancel]);
        assert_eq!(of(Some("cancelled")), [Deed::Again]);
    }
}
