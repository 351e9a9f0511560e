//! Parts that several pages have.

use maud::{Markup, Render, html};

use super::{number, text};
use crate::once;
use crate::readings::Reading;
use crate::visit::Visit;

/// Draws what was read, or the reason for which it could not be read. The rest of the page still shows.
pub fn reading<T: 'static>(reading: &Reading<T>, draw: impl FnOnce(&T) -> Markup) -> Markup {
    match reading.value() {
        Ok(value) => draw(value),
        Err(reason) => problem(reason),
    }
}

/// The number of bytes of a page that a reason may take. It may quote a job, or what a visitor has sent.
pub const MOST_REASON: usize = 4096;

/// Draws why something cannot be shown.
pub fn problem(reason: &str) -> Markup {
    html! { p.problem role="alert" { (text::within(reason, MOST_REASON).0) } }
}

/// Draws a count with its name, as a link to the jobs that it counts.
pub fn figure(name: &str, value: &str, link: Option<String>, class: &str) -> Markup {
    html! {
        div.figure.(class) {
            dt { (name) }
            dd { @match link { Some(link) => a href=(link) { (value) }, None => (value) } }
        }
    }
}

/// Draws a count in a table; a zero is faint.
pub fn count(n: u64) -> Markup {
    html! { @if n == 0 { span.none { "0" } } @else { (number::count(n)) } }
}

/// Draws a small label, such as `paused`.
pub fn badge(text: &str, class: &str) -> Markup {
    html! { span.badge.(class) { (text) } }
}

/// The heading of a column.
pub enum Column<'a> {
    Text(&'a str),
    /// Numbers stand at the right.
    Number(&'a str),
    /// A narrow screen leaves this column out.
    Wide(&'a str),
    WideNumber(&'a str),
    /// A narrow screen shows this column in a second line of each row.
    Second(&'a str),
    SecondNumber(&'a str),
    /// A narrow screen gives this column a line of its own.
    Line(&'a str),
}

impl Column<'_> {
    /// Returns the name, and the class that the cells of the column have, too.
    fn parts(&self) -> (&str, &'static str) {
        match self {
            Column::Text(name) => (name, ""),
            Column::Number(name) => (name, "n"),
            Column::Wide(name) => (name, "wide"),
            Column::WideNumber(name) => (name, "n wide"),
            Column::Second(name) => (name, "second"),
            Column::SecondNumber(name) => (name, "n second"),
            Column::Line(name) => (name, "line"),
        }
    }
}

/// Draws a table in a frame that scrolls sideways if a word is too long. `label` names the table for a screen reader.
/// The style sheet knows tables that have 2 to 5 columns in the first line of a narrow screen.
pub fn table(label: &str, columns: &[Column<'_>], rows: impl Render) -> Markup {
    let first_line = columns.iter().filter(|column| matches!(column, Column::Text(_) | Column::Number(_))).count();
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table class=(format!("of-{first_line}")) {
                thead {
                    tr {
                        @for (name, class) in columns.iter().map(Column::parts) {
                            th class=[(!class.is_empty()).then_some(class)] scope="col" { (name) }
                        }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

/// Draws how much of something is in use, as a bar beside the numbers.
pub fn meter(used: u64, of: u64) -> Markup {
    let share = if of == 0 { 0.0 } else { (used as f64 / of as f64).min(1.0) };
    html! {
        span.meter {
            svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                rect.of width="100" height="10" rx="3" {}
                rect.used width=(format!("{:.0}", share * 100.0)) height="10" rx="3" {}
            }
            span { (number::count(used)) " / " (number::count(of)) }
        }
    }
}

/// Draws links of which one leads to what the page shows now: each with its text, its page, and whether it is this one.
pub fn tabs(visit: &Visit, label: &str, tabs: &[(&str, String, bool)]) -> Markup {
    html! {
        div.tabs role="navigation" aria-label=(label) {
            @for (text, page, is_current) in tabs {
                a href=(visit.to(page)) aria-current=[is_current.then_some("true")] { (text) }
            }
        }
    }
}

/// Draws a button that opens a question, and in it the button that does it.
pub fn confirmed(summary: &str, question: &str, button: Markup) -> Markup {
    html! {
        details.confirm {
            summary.act { (summary) "…" }
            div { p { (question) } (button) }
        }
    }
}

/// Draws a button that posts to `action`. `key` is the key that presses it, or empty; `carried` are the names and
/// values that the form carries.
///
/// The form is signed for its action and this visitor. What it carries is not signed: the handler checks whether the
/// visitor may do this to the queue, schedule or group that the form names.
pub fn button(visit: &Visit, action: &str, text: &str, key: &str, carried: &[(&str, &str)]) -> Markup {
    form_button(visit, action, text, "", key, carried)
}

/// Draws a button as [`button`] does. The form is acted on once, also if it is sent twice. The live update leaves it as
/// it is, so that it keeps its name, and tells it from the other buttons by its action.
pub fn once_button(visit: &Visit, action: &str, text: &str, key: &str, carried: &[(&str, &str)]) -> Markup {
    html! {
        form.button method="post" action=(visit.to(action)) data-keep data-key=(action) {
            (signature(visit, action))
            (once::field(visit))
            (form_fields("", text, key, carried))
        }
    }
}

/// Draws a button that posts to `action`, and stands out: `danger` for what cannot be undone.
pub fn strong_button(visit: &Visit, action: &str, text: &str, class: &str, carried: &[(&str, &str)]) -> Markup {
    form_button(visit, action, text, class, "", carried)
}

fn form_button(visit: &Visit, action: &str, text: &str, class: &str, key: &str, carried: &[(&str, &str)]) -> Markup {
    html! {
        form.button method="post" action=(visit.to(action)) {
            (signature(visit, action))
            (form_fields(class, text, key, carried))
        }
    }
}

fn form_fields(class: &str, text: &str, key: &str, carried: &[(&str, &str)]) -> Markup {
    html! {
        @for (name, value) in carried { input type="hidden" name=(name) value=(value); }
        button.(class) type="submit" data-key-press=[(!key.is_empty()).then_some(key)] { (text) }
    }
}

/// Draws the hidden field without which a form is refused. It is valid for this action and this visitor.
pub fn signature(visit: &Visit, action: &str) -> Markup {
    html! { input type="hidden" name="signature" value=(visit.sign(action)); }
}

/// Draws a link to a job.
pub fn job_link(visit: &Visit, id: i64) -> Markup {
    html! { a.id href=(visit.to(&format!("jobs/{id}"))) { (id) } }
}

/// Draws a link to a queue.
pub fn queue_link(visit: &Visit, queue: &str) -> Markup {
    html! { a href=(visit.to(&format!("queue?name={}", text::in_query(queue)))) { (text::line(queue)) } }
}
