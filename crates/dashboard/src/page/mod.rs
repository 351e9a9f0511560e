//! The pages, a file a page.

pub mod action;
pub mod actions;
pub mod dead;
pub mod dead_group;
mod deaths;
pub mod enqueue;
pub mod job;
mod job_links;
mod job_steps;
pub mod jobs;
pub mod kinds;
pub mod overview;
mod overview_figures;
pub mod queue;
pub mod schedule;
pub mod schedules;
mod values;
pub mod worker;
pub mod workers;
pub mod workflow;
pub mod workflows;

use axum::extract::{FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::response::Response;
use reveille::admin::Record;
use serde::de::DeserializeOwned;

use crate::guard::Refusal;
use crate::visit::Visit;

/// Answers at an address without a page. A dashboard that is a nested service at
/// `/ops/jobs` may get the path of its first page with more than one slash.
pub async fn elsewhere(uri: Uri, visit: Visit) -> Result<Response, Refusal> {
    match uri.path().trim_matches('/') {
        "" => overview::show(visit).await,
        _ => Err(Refusal::not_found("There is no such page.")),
    }
}

/// Returns a column's value, or the type's default if the row has no value of this type in the column.
pub fn column<T: DeserializeOwned + Default>(record: &Record, column: &str) -> T {
    record.decode(column).unwrap_or_default()
}

/// Reads an id, which has nothing but digits.
fn id(text: &str) -> Result<i64, Refusal> {
    let id = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    id.ok_or_else(|| Refusal::not_found("There is no such page."))
}

/// The id in a path. The refusal of any other text does not repeat it.
pub struct Id(pub i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &S) -> Result<Id, Refusal> {
        let text = Path::<String>::from_request_parts(parts, shared).await;
        id(text.as_deref().map_or("", String::as_str)).map(Id)
    }
}
