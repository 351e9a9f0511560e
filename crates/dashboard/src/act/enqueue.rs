//! Enqueuing the job of the form.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use reveille::Error;
use reveille::job::{Enqueued, MAX_PAYLOAD, NewJob, Payload};

use crate::access::Right;
use crate::guard::Refusal;
use crate::once::Once;
use crate::page::enqueue::{Errors, FIELDS, PRIORITIES, Typed, again};
use crate::posted::Draft;
use crate::visit::Visit;

pub async fn add(draft: Draft) -> Result<Response, Refusal> {
    let Draft { posted, is_signed } = draft;
    let visit = &posted.visit;
    visit.must(Right::Enqueue)?;
    let mut typed = Typed::default();
    for name in FIELDS {
        // A browser sends line breaks as CR and LF.
        typed.set(name, posted.value(name).unwrap_or_default().replace("\r\n", "\n"));
    }
    let refused = |why: &str| Errors::from([("", format!("Nothing was enqueued: {why}"))]);
    if !is_signed {
        let errors = refused("this form was too old. Look at it once more, and send it again.");
        return Ok(again(visit, &typed, &errors, StatusCode::FORBIDDEN).await);
    }
    let job = match check(visit, &typed).await {
        Ok(job) => job,
        Err(errors) => return Ok(again(visit, &typed, &errors, StatusCode::UNPROCESSABLE_ENTITY).await),
    };
    let once = Once::of(&posted, "enqueue", posted.filled("once"))?;
    match once.operator.enqueue(&job).await {
        Ok(Enqueued { id, existed: true, .. }) => {
            Ok(posted.done(&format!("jobs/{id}"), &format!("Nothing was enqueued: job {id} has this unique key.")))
        }
        Ok(Enqueued { id, .. }) => Ok(posted.done(&format!("jobs/{id}"), &format!("Job {id} is enqueued."))),
        Err(error) if error.is_repeated() => once.refused(&posted, error).await,
        Err(error) => {
            let status =
                if error.is_invalid() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::SERVICE_UNAVAILABLE };
            Ok(again(visit, &typed, &refused(&error.to_string()), status).await)
        }
    }
}

/// Makes the job of the form, or says of each field what is wrong with it.
async fn check(visit: &Visit, typed: &Typed) -> Result<NewJob, Errors> {
    let mut errors = Errors::new();
    let mut job = named(typed, &mut errors);
    if !visit.viewer.sees(&job.queue) {
        errors.insert("queue", "You may not enqueue into this queue.".to_owned());
    }
    with_json(typed, &mut job, &mut errors);
    if let Some((_, priority)) = PRIORITIES.into_iter().find(|(name, _)| *name == typed.get("priority")) {
        job = job.priority(priority);
    } else {
        errors.insert("priority", "Choose one of the priorities.".to_owned());
    }
    let job = with_times(visit, typed, job, &mut errors).await;
    // Each field was checked by itself. This checks the job as a whole.
    if errors.is_empty()
        && let Err(error) = job.check(MAX_PAYLOAD)
    {
        errors.insert("", format!("Nothing was enqueued: {error}"));
    }
    if errors.is_empty() { Ok(job) } else { Err(errors) }
}

/// Fills in the fields that are plain text or numbers, and checks each by itself.
fn named(typed: &Typed, errors: &mut Errors) -> NewJob {
    let mut job = NewJob::new(typed.get("kind").trim(), empty());
    job.queue = typed.get("queue").trim().to_owned();
    job.key = typed.filled("key").map(str::to_owned);
    job.unique_key = typed.filled("unique_key").map(str::to_owned);
    job.tags = typed.get("tags").lines().map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    match typed.get("max_attempts").trim().parse() {
        Ok(most) => job.max_attempts = most,
        Err(_) => drop(errors.insert("max_attempts", "Write a whole number from 1 on.".to_owned())),
    }
    let mut check = |name, set: fn(&mut NewJob, &NewJob)| {
        let mut alone = NewJob::new("kind", empty());
        set(&mut alone, &job);
        if let Err(error) = alone.check(MAX_PAYLOAD) {
            errors.entry(name).or_insert_with(|| error.to_string());
        }
    };
    check("kind", |alone, job| alone.kind.clone_from(&job.kind));
    check("queue", |alone, job| alone.queue.clone_from(&job.queue));
    check("key", |alone, job| alone.key.clone_from(&job.key));
    check("unique_key", |alone, job| alone.unique_key.clone_from(&job.unique_key));
    check("tags", |alone, job| alone.tags.clone_from(&job.tags));
    check("max_attempts", |alone, job| alone.max_attempts = job.max_attempts);
    job
}

fn with_json(typed: &Typed, job: &mut NewJob, errors: &mut Errors) {
    let with_payload = || {
        let with_payload = NewJob::new("kind", Payload::parse(typed.filled("payload").unwrap_or("{}"))?);
        with_payload.check(MAX_PAYLOAD)?;
        Ok::<_, Error>(with_payload.payload)
    };
    match with_payload() {
        Ok(payload) => job.payload = payload,
        Err(error) => drop(errors.insert("payload", error.to_string())),
    }
    let Some(metadata) = typed.filled("metadata") else { return };
    let with_metadata = || {
        // The error of a text that is no JSON speaks of a payload.
        let metadata =
            Payload::parse(metadata).map_err(|error| error.to_string().replacen("payload", "metadata", 1))?;
        let with_metadata = NewJob::new("kind", empty()).metadata(&metadata).map_err(|error| error.to_string())?;
        with_metadata.check(MAX_PAYLOAD).map_err(|error| error.to_string())?;
        Ok::<_, String>(with_metadata.metadata)
    };
    match with_metadata() {
        Ok(metadata) => job.metadata = metadata,
        Err(error) => drop(errors.insert("metadata", error)),
    }
}

/// Reads the times by the database, which knows every way to write them.
async fn with_times(visit: &Visit, typed: &Typed, mut job: NewJob, errors: &mut Errors) -> NewJob {
    let admin = visit.admin();
    match (typed.filled("delay"), typed.filled("at")) {
        (Some(_), Some(_)) => drop(errors.insert("at", "Give either a delay or a due time.".to_owned())),
        (Some(delay), None) => match admin.read_duration(delay).await {
            Ok(delay) => job = job.delay(delay),
            Err(error) => drop(errors.insert("delay", error.to_string())),
        },
        (None, Some(at)) => match admin.read_time(at).await {
            Ok(at) => job = job.at(at),
            Err(error) => drop(errors.insert("at", error.to_string())),
        },
        (None, None) => {}
    }
    if let Some(timeout) = typed.filled("timeout") {
        match admin.read_duration(timeout).await {
            Ok(timeout) if timeout < Duration::from_micros(1) => {
                errors.insert("timeout", "An attempt needs at least a microsecond.".to_owned());
            }
            Ok(timeout) => job = job.timeout(timeout),
            Err(error) => drop(errors.insert("timeout", error.to_string())),
        }
    }
    job
}

fn empty() -> Payload {
    Payload::encode(&serde_json::Map::new()).unwrap_or_else(|_| unreachable!("an empty object is JSON"))
}
