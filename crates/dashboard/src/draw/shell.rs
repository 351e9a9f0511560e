//! The frame of every page: head, navigation, notices.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{parts, text};
use crate::guard::Refusal;
use crate::serve::Page;
use crate::visit::Visit;

/// The entries of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Overview,
    Jobs,
    Dead,
    Workflows,
    Kinds,
    Workers,
    Schedules,
    Enqueue,
    Actions,
}

impl Section {
    const ALL: [Section; 9] = [
        Section::Overview,
        Section::Jobs,
        Section::Dead,
        Section::Workflows,
        Section::Kinds,
        Section::Workers,
        Section::Schedules,
        Section::Enqueue,
        Section::Actions,
    ];

    fn title(self) -> &'static str {
        match self {
            Section::Overview => "Overview",
            Section::Jobs => "Jobs",
            Section::Dead => "Dead",
            Section::Workflows => "Workflows",
            Section::Kinds => "Kinds",
            Section::Workers => "Workers",
            Section::Schedules => "Schedules",
            Section::Enqueue => "Enqueue",
            Section::Actions => "Actions",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Section::Overview => "",
            Section::Jobs => "jobs",
            Section::Dead => "dead",
            Section::Workflows => "workflows",
            Section::Kinds => "kinds",
            Section::Workers => "workers",
            Section::Schedules => "schedules",
            Section::Enqueue => "enqueue",
            Section::Actions => "actions",
        }
    }
}

/// The seconds after which a browser without script loads a page again.
const RELOAD_SECONDS: u8 = 10;

pub fn page(visit: &Visit, page: &Page) -> Markup {
    let database = text::line(&visit.database);
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(visit, &format!("{} · {database}", page.title), asks_for_input(&page.body)))
            body {
                a.skip href="#live" { "Skip to the page" }
                header {
                    a.brand href=(visit.to("")) { (mark()) "Reveille" }
                    span.database title="database" { (database) }
                    @if let Some(label) = &visit.shared.label { span.label { (text::line(label)) } }
                    @if let Some(why) = visit.why_read_only { span.readonly title=(why) { "read-only" } }
                    span.grow {}
                    span #state role="status" {}
                    span.viewer title="you" { (text::line(&visit.viewer.name)) }
                }
                nav aria-label="Pages" {
                    @for section in Section::ALL.into_iter().filter(|section| visit.sees_section(*section)) {
                        @let current = (section == page.section).then_some("page");
                        a href=(visit.to(section.path())) aria-current=[current] { (section.title()) }
                    }
                }
                main {
                    @if let Some(notice) = visit.notice() { p.notice role="status" { (text::line(&notice)) } }
                    div #live { (page.body) }
                }
            }
        }
    }
}

/// The page of a request that is refused. It has no links, since the visitor may not be allowed to follow them.
pub fn refusal(refusal: &Refusal) -> Markup {
    let status = refusal.status;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (status.as_u16()) }
            }
            body { main { h1 { (status) } p { (text::within(&refusal.reason, parts::MOST_REASON).0) } } }
        }
    }
}

/// True if somebody may be filling the page in, so that it must not be loaded again by itself. A form's mark is the
/// last part of its tag, which no text can look like: in texts, `>` is escaped.
fn asks_for_input(body: &Markup) -> bool {
    [" data-still>", " data-keep>"].iter().any(|mark| body.0.contains(mark))
}

fn head(visit: &Visit, title: &str, is_still: bool) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (text::line(title)) }
            link rel="icon" type="image/svg+xml" href=(visit.to("icon.svg"));
            link rel="stylesheet" href=(visit.to("style.css"));
            script src=(visit.to("app.js")) defer {}
            @if !is_still { noscript { meta http-equiv="refresh" content=(RELOAD_SECONDS); } }
        }
    }
}

/// The mark beside the name: a bugle's bell, as in the icon.
fn mark() -> Markup {
    PreEscaped(crate::assets::MARK.to_owned())
}
