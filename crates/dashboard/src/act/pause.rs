//! Pausing kinds and keys.

use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{JobRow, Pause, Record};

use crate::access::Right;
use crate::draw::{number, parts, text, time};
use crate::guard::Refusal;
use crate::page::column;
use crate::posted::Posted;
use crate::readings::Reading;
use crate::visit::Visit;

/// How long a visitor waits for jobs to be resumed.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The number of pauses that are listed.
const MOST_PAUSES: u16 = 100;

/// What a pause covers. Without a queue it covers all of them, without a kind all kinds, and without a key all keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Covered {
    queue: Option<String>,
    kind: Option<String>,
    key: Option<String>,
}

impl Covered {
    fn of(pause: &Record) -> Covered {
        let [queue, kind, key] = ["queue", "kind", "key"].map(|name| column(pause, name));
        Covered { queue, kind, key }
    }

    /// True if the pause is of a kind or a key, and jobs of the queue are among those that it holds back.
    fn holds_jobs_of(&self, queue: &str) -> bool {
        (self.kind.is_some() || self.key.is_some()) && self.queue.as_deref().is_none_or(|own| own == queue)
    }

    /// True if the pause holds back this job.
    fn holds(&self, job: &JobRow) -> bool {
        self.holds_jobs_of(&job.queue)
            && self.kind.as_ref().is_none_or(|kind| *kind == job.kind)
            && (self.key.is_none() || self.key == job.key)
    }

    /// Says it in words, such as `kind mail in queue billing`.
    pub fn words(&self) -> String {
        let part =
            |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {}", text::line(value)));
        let of_queue = match (&self.queue, self.kind.is_some() || self.key.is_some()) {
            (Some(queue), true) => format!("in queue {}", text::line(queue)),
            (Some(queue), false) => format!("queue {}", text::line(queue)),
            (None, _) => "in all queues".to_owned(),
        };
        let parts = [part("kind", &self.kind), part("key", &self.key), Some(of_queue)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// The fields of the form that ends the pause.
    fn carried(&self) -> Vec<(&'static str, &str)> {
        let fields = [("queue", &self.queue), ("kind", &self.kind), ("key", &self.key)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// Reads the latest pauses that the visitor may see.
pub async fn read(visit: &Visit) -> Reading<Vec<Record>> {
    let queues = visit.viewer.queues.clone();
    visit
        .read(format!("pauses {queues:?}"), move |admin| async move {
            admin.latest_pauses(queues.as_deref(), MOST_PAUSES).await
        })
        .await
}

/// Draws the pauses that the visitor may see, with the buttons that end them. A pause of a whole queue stands at the
/// queue, if the page lists it.
pub async fn list(visit: &Visit, listed_queues: &[String]) -> Markup {
    let is_listed = |pause: &Covered| {
        let is_of_queue = pause.kind.is_none() && pause.key.is_none();
        is_of_queue && pause.queue.as_ref().is_some_and(|queue| listed_queues.contains(queue))
    };
    parts::reading(&read(visit).await, |pauses| {
        let of_pauses = pauses.first().map_or(0, |pause| column::<u64>(pause, "of_pauses"));
        html! {
            (rows(visit, pauses, |pause| !is_listed(pause), None))
            @if of_pauses > u64::from(MOST_PAUSES) {
                p.hint { "The " (MOST_PAUSES) " latest of " (number::count(of_pauses)) " pauses of kinds and keys." }
            }
        }
    })
}

/// Draws the pauses of kinds and keys that hold back jobs of a queue.
pub async fn of_queue(visit: &Visit, queue: &str) -> Markup {
    parts::reading(&read(visit).await, |pauses| {
        rows(visit, pauses, |pause| pause.holds_jobs_of(queue), Some(("from_queue", queue)))
    })
}

/// Draws the pauses that hold back a job.
pub async fn of_job(visit: &Visit, job: &JobRow) -> Markup {
    parts::reading(&read(visit).await, |pauses| rows(visit, pauses, |pause| pause.holds(job), None))
}

/// Returns the pause of a whole kind that holds back its jobs in a queue.
pub fn of_kind(pauses: &[Record], queue: &str, kind: &str) -> Option<Covered> {
    let of_kind = |pause: &Covered| pause.kind.as_deref() == Some(kind) && pause.key.is_none();
    pauses.iter().map(Covered::of).find(|pause| of_kind(pause) && pause.holds_jobs_of(queue))
}

/// Draws the button that pauses a kind, or the jobs of a key, in a queue. `from` is the page that the visitor is led
/// back to, as a field of the form.
pub fn button(visit: &Visit, queue: &str, what: (&str, &str), from: (&str, &str)) -> Markup {
    html! {
        @if visit.may(Right::Pause) {
            (parts::button(visit, "pause", "Pause", "", &[("queue", queue), what, from]))
        }
    }
}

/// Draws the button that ends a pause.
pub fn resume_button(visit: &Visit, pause: &Covered, from: Option<(&str, &str)>) -> Markup {
    let carried: Vec<(&str, &str)> = pause.carried().into_iter().chain(from).collect();
    html! { @if visit.may(Right::Pause) { (parts::button(visit, "resume", "Resume", "", &carried)) } }
}

fn rows(visit: &Visit, pauses: &[Record], is_shown: impl Fn(&Covered) -> bool, from: Option<(&str, &str)>) -> Markup {
    let sees = |pause: &Covered| match &pause.queue {
        Some(queue) => visit.viewer.sees(queue),
        None => visit.viewer.queues.is_none(),
    };
    let pauses = pauses.iter().map(|pause| (Covered::of(pause), pause));
    let pauses: Vec<_> = pauses.filter(|(covered, _)| sees(covered) && is_shown(covered)).collect();
    html! {
        @if !pauses.is_empty() {
            h2 { "Paused" }
            ul.findings { @for (covered, pause) in &pauses { (row(visit, covered, pause, from)) } }
        }
    }
}

fn row(visit: &Visit, covered: &Covered, pause: &Record, from: Option<(&str, &str)>) -> Markup {
    let is_of_queue = covered.kind.is_none() && covered.key.is_none();
    html! {
        li {
            strong { (covered.words()) } ", since " (time::ago(pause.time("paused_at")))
            @match column::<Option<u64>>(pause, "parked") {
                Some(parked) => {
                    ": " (number::count(parked)) @if parked >= 10_000 { " or more" }
                    (if parked == 1 { " parked job " } else { " parked jobs " })
                }
                None if is_of_queue => " ",
                None => ": its parked jobs are not counted ",
            }
            (resume_button(visit, covered, from))
        }
    }
}

/// Returns the pause that a form names, if the visitor may begin and end it.
fn named(posted: &Posted) -> Result<(Covered, Pause), Refusal> {
    posted.visit.must(Right::Pause)?;
    let value = |name: &str| posted.value(name).filter(|value| !value.is_empty());
    let sees = value("queue").map_or(posted.visit.viewer.queues.is_none(), |queue| posted.visit.viewer.sees(queue));
    if !sees {
        return Err(Refusal::forbidden("You may not pause jobs of queues that you may not see. Nothing was changed."));
    }
    let covered = Covered {
        queue: value("queue").map(str::to_owned),
        kind: value("kind").map(str::to_owned),
        key: value("key").map(str::to_owned),
    };
    let mut pause = Pause::new();
    if let Some(queue) = &covered.queue {
        pause = pause.queue(queue);
    }
    if let Some(kind) = &covered.kind {
        pause = pause.kind(kind);
    }
    if let Some(key) = &covered.key {
        pause = pause.key(key);
    }
    Ok((covered, pause))
}

/// Returns the page that the form was on.
fn page_of(posted: &Posted) -> String {
    match (posted.value("from"), posted.value("from_queue")) {
        (Some("kinds"), _) => "kinds".to_owned(),
        (_, Some(queue)) => format!("queue?name={}", text::in_query(queue)),
        _ => String::new(),
    }
}

pub async fn pause(posted: Posted) -> Result<Response, Refusal> {
    let (covered, pause) = named(&posted)?;
    posted.visit.operator()?.pause(pause).await?;
    let notice = format!("Paused: {}. None of these jobs starts. Running jobs go on.", covered.words());
    Ok(posted.done(&page_of(&posted), &notice))
}

pub async fn resume(posted: Posted) -> Result<Response, Refusal> {
    let (operator, (covered, pause)) = (posted.visit.operator()?, named(&posted)?);
    let mut resuming = tokio::spawn(async move { operator.resume(pause).await });
    let notice = match tokio::time::timeout(LONGEST_WAIT, &mut resuming).await {
        Ok(resumed) => {
            resumed.unwrap_or_else(|error| Err(reveille::Error::unavailable(error.to_string())))?;
            format!("Resumed: {}.", covered.words())
        }
        // The task goes on, and so does the upkeep of any worker.
        Err(_) => format!("Being resumed: {}. There are many jobs, so it takes a while.", covered.words()),
    };
    Ok(posted.done(&page_of(&posted), &notice))
}
