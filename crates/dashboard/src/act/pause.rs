//! Pausing kinds and keys.

use std::time::Duration;

use axum::response::Response;
use maud::{Markup, html};
use reveille::admin::{Pause, Record};

use crate::access::Right;
use crate::draw::{number, parts, text, time};
use crate::guard::Refusal;
use crate::page::column;
use crate::posted::Posted;
use crate::visit::Visit;

/// How long a visitor waits for jobs to be resumed.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The number of pauses that are listed.
const MOST_PAUSES: u16 = 100;

/// Draws the pauses of kinds and keys that the visitor may see, with the buttons that end them. A pause of a whole
/// queue stands at the queue, if the page lists it.
pub async fn list(visit: &Visit, listed_queues: &[String]) -> Markup {
    let queues = visit.viewer.queues.clone();
    let pauses = visit.read(format!("pauses {queues:?}"), move |admin| async move {
        admin.latest_pauses(queues.as_deref(), MOST_PAUSES).await
    });
    parts::reading(&*pauses.await, |pauses| {
        let of_pauses = pauses.first().map_or(0, |pause| column::<u64>(pause, "of_pauses"));
        let pauses = pauses.iter().filter(|pause| is_shown(visit, listed_queues, pause)).collect::<Vec<_>>();
        html! {
            @if !pauses.is_empty() {
                h2 { "Paused" }
                ul.findings { @for pause in &pauses { (row(visit, pause)) } }
                @if of_pauses > u64::from(MOST_PAUSES) {
                    p.hint {
                        "The " (MOST_PAUSES) " latest of " (number::count(of_pauses)) " pauses of kinds and keys."
                    }
                }
            }
        }
    })
}

fn is_shown(visit: &Visit, listed_queues: &[String], pause: &Record) -> bool {
    let is_of_queue = column::<Option<i64>>(pause, "id").is_none();
    match column::<Option<String>>(pause, "queue") {
        Some(queue) => visit.viewer.sees(&queue) && !(is_of_queue && listed_queues.contains(&queue)),
        None => visit.viewer.queues.is_none(),
    }
}

fn row(visit: &Visit, pause: &Record) -> Markup {
    let [queue, kind, key] = ["queue", "kind", "key"].map(|name| column::<Option<String>>(pause, name));
    let parked = column::<Option<u64>>(pause, "parked");
    let carried = [("queue", &queue), ("kind", &kind), ("key", &key)];
    let carried: Vec<(&str, &str)> =
        carried.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    html! {
        li {
            (words(&queue, &kind, &key)) ", since " (time::ago(pause.time("paused_at")))
            @match parked {
                Some(parked) => { ": " (number::count(parked)) @if parked >= 10_000 { " or more" } " parked jobs " }
                None if kind.is_none() && key.is_none() => " ",
                None => ": its parked jobs are not counted ",
            }
            @if visit.may(Right::Pause) { (parts::button(visit, "resume", "Resume", "", &carried)) }
        }
    }
}

/// Says what a pause covers.
fn words(queue: &Option<String>, kind: &Option<String>, key: &Option<String>) -> Markup {
    html! {
        @if let Some(kind) = kind { "kind " strong { (text::line(kind)) } " " }
        @if let Some(key) = key { "key " strong { (text::line(key)) } " " }
        @let is_of_queue = kind.is_none() && key.is_none();
        @match queue {
            Some(queue) => { @if !is_of_queue { "in " } "queue " strong { (text::line(queue)) } }
            None => "in all queues",
        }
    }
}

/// Returns the pause that a form names, if the visitor may begin and end it.
fn named(posted: &Posted) -> Result<Pause, Refusal> {
    posted.visit.must(Right::Pause)?;
    let value = |name: &str| posted.value(name).filter(|value| !value.is_empty());
    let sees = value("queue").map_or(posted.visit.viewer.queues.is_none(), |queue| posted.visit.viewer.sees(queue));
    if !sees {
        return Err(Refusal::forbidden("You may not pause jobs of queues that you may not see. Nothing was changed."));
    }
    let mut pause = Pause::new();
    if let Some(queue) = value("queue") {
        pause = pause.queue(queue);
    }
    if let Some(kind) = value("kind") {
        pause = pause.kind(kind);
    }
    if let Some(key) = value("key") {
        pause = pause.key(key);
    }
    Ok(pause)
}

pub async fn pause(posted: Posted) -> Result<Response, Refusal> {
    posted.visit.operator()?.pause(named(&posted)?).await?;
    Ok(posted.done("", "These jobs are paused: none of them starts. Running jobs go on."))
}

pub async fn resume(posted: Posted) -> Result<Response, Refusal> {
    let (operator, pause) = (posted.visit.operator()?, named(&posted)?);
    let mut resuming = tokio::spawn(async move { operator.resume(pause).await });
    let notice = match tokio::time::timeout(LONGEST_WAIT, &mut resuming).await {
        Ok(resumed) => {
            resumed.unwrap_or_else(|error| Err(reveille::Error::unavailable(error.to_string())))?;
            "These jobs are resumed."
        }
        // The task goes on, and so does the upkeep of any worker.
        Err(_) => "These jobs are being resumed. There are many, so it takes a while.",
    };
    Ok(posted.done("", notice))
}
