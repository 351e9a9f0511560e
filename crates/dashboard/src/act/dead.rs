//! Reviving and purging a group of dead jobs: the number is shown first, then a run changes all of them.

use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{BulkAction, Filter, JobCount, Start};

use super::sealed::{self, Sealed};
use crate::access::Right;
use crate::draw::parts;
use crate::draw::shell::Section;
use crate::draw::{number, text};
use crate::guard::Refusal;
use crate::once::Once;
use crate::page::dead_group::{self, Group, hash};
use crate::posted::Posted;
use crate::runs;
use crate::serve::{self, Page};
use crate::visit::Visit;

/// The longest time that is spent on counting the jobs.
const LONGEST_COUNT: Duration = Duration::from_secs(1);

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

/// What is to be done to the jobs of a group, as a form or an address says it.
struct Wish {
    deed: Deed,
    group: Group,
    /// The error's first line as it is stored, and as it may be shown.
    line: Option<(String, String)>,
    filter: Filter,
}

impl Wish {
    async fn read(visit: &Visit, deed: Deed, value: impl Fn(&str) -> Option<String>) -> Result<Wish, Refusal> {
        visit.must(deed.right())?;
        let group = Group::named(visit, value)?;
        let line = line_of(visit, &group).await?;
        let filter = group.filter(line.as_ref().map(|(stored, _)| stored.as_str()));
        let _ = visit.admin().bulk(deed.action(), &filter)?;
        Ok(Wish { deed, group, line, filter })
    }

    /// Returns the address of the page, which is also what the seal is about: the deed and the group.
    fn address(&self, further: &[(&str, &str)]) -> String {
        let further: Vec<String> =
            further.iter().map(|(name, value)| format!("&{name}={}", text::in_query(value))).collect();
        format!("dead/{}?{}{}", self.deed.name(), self.group.query(), further.concat())
    }

    /// Counts the jobs that had died by the start, which is now if `start` is `None`.
    async fn count(&self, visit: &Visit, start: Option<Start>) -> Result<(JobCount, Start), Refusal> {
        let (address, jobs) = (self.address(&[]), (self.deed.action(), self.filter.clone()));
        sealed::count(visit, &address, jobs, start, LONGEST_COUNT).await.map_err(Refusal::unavailable)
    }
}

/// The number of jobs as the page shows it, and the start at which they were counted.
struct Counted {
    jobs: u64,
    is_exact: bool,
    sealed: Sealed,
}

impl Counted {
    async fn of(visit: &Visit, wish: &Wish) -> Result<Counted, Refusal> {
        // Someone who has typed something wrong comes back to the same number.
        let sealed = Sealed::read(visit, &wish.address(&[]), |name| visit.param(name))?;
        let start = sealed.as_ref().map(|sealed| sealed.start);
        if let (Some(sealed), Some(jobs)) = (sealed, start.and_then(|start| start.matching)) {
            return Ok(Counted { jobs, is_exact: true, sealed });
        }
        let (count, counted) = wish.count(visit, start).await?;
        let sealed = Sealed::new(visit, &wish.address(&[]), counted)?;
        Ok(Counted { jobs: count.jobs, is_exact: count.is_exact, sealed })
    }

    fn number(&self) -> String {
        let or_more = if self.is_exact { "" } else { " or more" };
        format!("{}{or_more}", number::count(self.jobs))
    }
}

/// Returns the text of a group's line, as it is stored and as it may be shown.
async fn line_of(visit: &Visit, group: &Group) -> Result<Option<(String, String)>, Refusal> {
    let Some(wanted) = &group.line else { return Ok(None) };
    let errors = dead_group::read_errors(visit, group).await;
    let errors = errors.value().map_err(Refusal::unavailable)?;
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
        let wish = Wish::read(&visit, deed, |name| visit.param(name)).await?;
        let counted = Counted::of(&visit, &wish).await?;
        Ok(question(&visit, &wish, &counted))
    })
    .await
}

fn question(visit: &Visit, wish: &Wish, counted: &Counted) -> Page {
    let Wish { deed, group, line, .. } = wish;
    let what = if *deed == Deed::Revive { "Revive" } else { "Purge" };
    let jobs_are = if counted.jobs == 1 { "dead job" } else { "dead jobs" };
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
            @if counted.jobs == 0 && counted.is_exact {
                p.empty { "No dead job fits this any more." }
            } @else {
                p { (deed.meaning()) }
                (form(visit, wish, counted))
            }
            p { a href=(visit.to(&group.page())) { "Back to the group" } }
        }
    };
    Page { title, section: Section::Dead, body }
}

/// Draws the form. It carries the group and the sealed start, which fixes the jobs that can be met.
fn form(visit: &Visit, wish: &Wish, counted: &Counted) -> Markup {
    let (number, wrong) = (counted.number(), visit.wrong());
    let action = format!("dead/{}", wish.deed.name());
    let Group { queue, kind, reason, line } = &wish.group;
    let of_group = [("queue", Some(queue)), ("kind", Some(kind)), ("reason", Some(reason)), ("line", line.as_ref())];
    let of_group = of_group.into_iter().filter_map(|(name, value)| Some((name, value?.as_str())));
    html! {
        form.fields method="post" action=(visit.to(&action)) {
            (parts::signature(visit, &action))
            @for (name, value) in of_group.chain(counted.sealed.fields()) {
                input type="hidden" name=(name) value=(value);
            }
            @if wish.deed == Deed::Purge {
                (counted.sealed.confirmation(wrong.is_some()))
                button.danger type="submit" { "Purge " (number) }
            } @else {
                button.main type="submit" { "Revive " (number) }
            }
        }
        @if let Some(wrong) = wrong { p.field-error id="wrong" role="alert" { (text::shown(&wrong)) } }
    }
}

pub async fn revive(posted: Posted) -> Result<Response, Refusal> {
    act(posted, Deed::Revive).await
}

pub async fn purge(posted: Posted) -> Result<Response, Refusal> {
    act(posted, Deed::Purge).await
}

async fn act(posted: Posted, deed: Deed) -> Result<Response, Refusal> {
    let value = |name: &str| posted.value(name).map(str::to_owned);
    let wish = Wish::read(&posted.visit, deed, value).await?;
    let sealed = Sealed::read(&posted.visit, &wish.address(&[]), value)?;
    let sealed =
        sealed.ok_or_else(|| Refusal::bad_request("The form does not say when it was made. Nothing was changed."))?;
    if deed == Deed::Purge
        && let Err(wrong) = sealed.check(posted.value("typed"))
    {
        return Ok(posted.back(&wish.address(&sealed.fields()), &format!("{wrong} Nothing was purged.")));
    }
    let once = Once::of(&posted, &wish.address(&[]), Some(&sealed.seal))?;
    runs::begin(&posted, once, (deed.action(), &wish.filter), sealed.start).await
}
