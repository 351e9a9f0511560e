//! Pausing a queue, and changing its settings.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use reveille::admin::{QueueSettings, Record, RemovedQueue};

use crate::access::Right;
use crate::draw::shell::{self, Section};
use crate::draw::{parts, text};
use crate::guard::Refusal;
use crate::posted::Posted;
use crate::serve::Page;
use crate::visit::Visit;

/// The number of characters of a wrong value that the form shows again.
const LONGEST_TYPED: usize = 256;

/// A setting of a queue, as a field of the form.
pub struct Setting {
    /// The name of the column.
    column: &'static str,
    pub label: &'static str,
    hint: &'static str,
    sort: Sort,
}

enum Sort {
    /// A whole number; empty is no limit.
    Number(fn(QueueSettings, Option<u32>) -> QueueSettings),
    /// A length of time, such as `2h`; empty is the default.
    Time(fn(QueueSettings, Option<Duration>) -> QueueSettings),
    Flag(fn(QueueSettings, bool) -> QueueSettings),
}

pub const SETTINGS: [Setting; 10] = [
    setting("max_running", "Running at most", "no limit", Sort::Number(QueueSettings::max_running)),
    setting(
        "max_running_per_key",
        "Running at most per key",
        "no limit",
        Sort::Number(QueueSettings::max_running_per_key),
    ),
    setting("rate_limit", "Starts per period", "no limit", Sort::Number(QueueSettings::rate_limit)),
    setting("rate_per_key", "Starts per key and period", "no limit", Sort::Number(QueueSettings::rate_per_key)),
    setting("rate_period", "Period", "1s", Sort::Time(QueueSettings::rate_period)),
    setting("rate_burst", "Burst", "1", Sort::Number(QueueSettings::rate_burst)),
    setting("retention", "Keep finished jobs for", "1day", Sort::Time(QueueSettings::retention)),
    setting("dead_retention", "Keep dead jobs for", "always", Sort::Time(QueueSettings::dead_retention)),
    setting("ordered", "In order per key", "", Sort::Flag(QueueSettings::ordered)),
    setting("bell", "Wake sleeping workers", "", Sort::Flag(QueueSettings::bell)),
];

const fn setting(column: &'static str, label: &'static str, hint: &'static str, sort: Sort) -> Setting {
    Setting { column, label, hint, sort }
}

impl Setting {
    /// Returns the value as it stands in the form; `None` if it is the default.
    pub fn written(&self, settings: &Record) -> Option<String> {
        match self.sort {
            Sort::Number(_) => settings.decode::<Option<i64>>(self.column).ok()?.map(|number| number.to_string()),
            Sort::Time(_) => {
                let seconds = settings.decode::<Option<f64>>(self.column).ok()??;
                Duration::try_from_secs_f64(seconds).ok().map(|time| humantime::format_duration(time).to_string())
            }
            Sort::Flag(_) => settings
                .decode::<Option<bool>>(self.column)
                .ok()?
                .map(|flag| if flag { "yes" } else { "no" }.to_owned()),
        }
    }

    /// Returns the value as it stands in the form; empty for the default.
    fn shown(&self, settings: Option<&Record>) -> String {
        let written = settings.and_then(|settings| self.written(settings)).unwrap_or_default();
        match self.sort {
            // A queue without settings has a bell, and no order.
            Sort::Flag(_) if settings.is_none() => if self.column == "bell" { "yes" } else { "no" }.to_owned(),
            _ => written,
        }
    }

    /// Returns the value that a visitor has typed, as it stands in the form. A field that the visitor has left alone
    /// has the present value, which somebody else may have changed.
    fn typed(&self, form: &Posted, now: &str) -> String {
        let value = form.value(self.column);
        let typed = match self.sort {
            Sort::Flag(_) => value.map_or("no", |_| "yes"),
            _ => value.unwrap_or_default(),
        };
        let is_unchanged = form.value(&self.before()).is_some_and(|before| before == typed.trim());
        if is_unchanged { now.to_owned() } else { typed.chars().take(LONGEST_TYPED).collect() }
    }

    /// True if upkeep deletes dead jobs by this setting.
    fn deletes_dead_jobs(&self) -> bool {
        self.column == "dead_retention"
    }

    /// The name of the hidden field with the value that the form has shown.
    fn before(&self) -> String {
        format!("was_{}", self.column)
    }

    /// Reads the form's field into the settings, if the visitor has changed the field.
    ///
    /// # Errors
    /// A refusal if the value is wrong, or if somebody else has changed the setting since the form was drawn.
    fn read(&self, settings: QueueSettings, posted: &Posted, now: &str) -> Result<QueueSettings, Refusal> {
        let wrong = |value: &str, like: &str| refused(format!("{}: {value:?} is {like}.", self.label));
        let value = posted.filled(self.column);
        let written = match self.sort {
            Sort::Flag(_) => value.map_or("no", |_| "yes"),
            _ => value.unwrap_or_default(),
        };
        match posted.value(&self.before()) {
            Some(before) if before == written => return Ok(settings),
            Some(before) if before != now => {
                let problem = format!("{}: somebody has changed this to {now:?} meanwhile.", self.label);
                return Err(refused(format!("{problem} Save again to change it all the same.")));
            }
            _ => {}
        }
        if self.deletes_dead_jobs() {
            posted.visit.must(Right::Purge)?;
        }
        Ok(match self.sort {
            Sort::Number(set) => {
                let number =
                    value.map(|value| value.parse().map_err(|_| wrong(value, "no whole number"))).transpose()?;
                set(settings, number)
            }
            Sort::Time(set) => {
                let read = |value: &str| match value {
                    "0" => Ok(Duration::ZERO),
                    _ => humantime::parse_duration(value).map_err(|_| wrong(value, "no time like 30s, 2h or 7days")),
                };
                set(settings, value.map(read).transpose()?)
            }
            Sort::Flag(set) => set(settings, value.is_some()),
        })
    }
}

fn refused(problem: String) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{problem} Nothing was changed."))
}

/// Draws the settings as a form. `typed` is the form as a visitor has sent it, if its values are to be corrected.
pub fn form(visit: &Visit, name: &str, settings: Option<&Record>, typed: Option<&Posted>) -> Markup {
    html! {
        form.fields method="post" action=(visit.to("queue/settings")) data-keep {
            (parts::signature(visit, "queue/settings"))
            input type="hidden" name="name" value=(name);
            @for setting in &SETTINGS {
                @let shown = setting.shown(settings);
                input type="hidden" name=(setting.before()) value=(shown);
                @let shown = typed.map_or_else(|| shown.clone(), |typed| setting.typed(typed, &shown));
                @match setting.sort {
                    Sort::Flag(_) => label.flag {
                        input type="checkbox" name=(setting.column) value="yes" checked[shown == "yes"];
                        (setting.label)
                    },
                    _ => label {
                        (setting.label)
                        input name=(setting.column) value=(shown) placeholder=(setting.hint) autocomplete="off"
                            readonly[setting.deletes_dead_jobs() && !visit.may(Right::Purge)];
                    },
                }
            }
            button.main type="submit" { "Save" }
        }
        p.hint {
            "A period of 1s and 5 starts per period: 5 jobs start each second, and the burst is how many start at once \
             after a time without a start. In order: the jobs of a key run one after the other. Without waking, \
             workers find new jobs at their next poll only."
        }
        (parts::button(visit, "queue/remove", "Remove the queue", "", &[("name", name)]))
        span.hint { " Removes the settings and counts of a queue that nothing uses." }
    }
}

/// Returns the queue that a form names, if the visitor may see it.
fn queue(posted: &Posted) -> Result<&str, Refusal> {
    let name = posted.value("name").filter(|name| !name.is_empty() && posted.visit.viewer.sees(name));
    // A browser changes the line breaks of what it sends, so the name would be that of another queue.
    let name = name.filter(|name| !name.contains(['\r', '\n']));
    name.ok_or_else(|| Refusal::not_found("There is no such queue. Nothing was changed."))
}

fn done(posted: &Posted, name: &str, notice: &str) -> Response {
    posted.done(&format!("queue?name={}", text::in_query(name)), notice)
}

pub async fn pause(posted: Posted) -> Result<Response, Refusal> {
    posted.visit.must(Right::Pause)?;
    let name = queue(&posted)?;
    posted.visit.operator()?.pause(name).await?;
    Ok(done(&posted, name, "The queue is paused: no further job of it starts. Running jobs go on."))
}

pub async fn resume(posted: Posted) -> Result<Response, Refusal> {
    posted.visit.must(Right::Pause)?;
    let name = queue(&posted)?;
    posted.visit.operator()?.resume(name).await?;
    Ok(done(&posted, name, "The queue is resumed."))
}

pub async fn settings(posted: Posted) -> Result<Response, Refusal> {
    posted.visit.must(Right::Settings)?;
    let name = queue(&posted)?;
    let now = posted.visit.admin().queue_settings(name).await?;
    match save(&posted, name, now.as_ref()).await {
        Err(refusal) if refusal.status == StatusCode::UNPROCESSABLE_ENTITY => {
            Ok(again(&posted, name, now.as_ref(), &refusal))
        }
        answer => answer,
    }
}

/// Shows the form again as it was filled in, with what is wrong with it.
fn again(posted: &Posted, name: &str, now: Option<&Record>, refusal: &Refusal) -> Response {
    let visit = &posted.visit;
    let body = html! {
        div data-still {
            div.bar {
                h1 { "Settings of queue " (text::line(name)) }
                a.act href=(visit.to(&format!("queue?name={}", text::in_query(name)))) { "The queue" }
            }
            (parts::problem(&refusal.reason))
            (form(visit, name, now, Some(posted)))
        }
    };
    let page = Page { title: name.to_owned(), section: Section::Overview, body };
    (refusal.status, shell::page(visit, &page)).into_response()
}

async fn save(posted: &Posted, name: &str, now: Option<&Record>) -> Result<Response, Refusal> {
    let settings = SETTINGS
        .iter()
        .try_fold(QueueSettings::new(), |settings, setting| setting.read(settings, posted, &setting.shown(now)))?;
    if settings == QueueSettings::new() {
        return Ok(done(posted, name, "No setting was changed."));
    }
    posted.visit.operator()?.set_queue(name, settings).await?;
    Ok(done(posted, name, "The settings are saved. Workers obey them from their next claim on."))
}

pub async fn remove(posted: Posted) -> Result<Response, Refusal> {
    posted.visit.must(Right::Settings)?;
    let name = queue(&posted)?;
    Ok(match posted.visit.operator()?.remove_queue(name).await? {
        RemovedQueue::Removed => posted.done("", &format!("The queue {} is removed.", text::line(name))),
        RemovedQueue::InUse(using) => {
            done(&posted, name, &format!("The queue was not removed. It is in use: {using}."))
        }
        _ => posted.done("", "Nothing is known of the queue."),
    })
}
