//! Which page answers at which path.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use crate::guard::{self, Refusal};
use crate::shared::Shared;
use crate::{act, assets, page};

/// The largest form in bytes. A form with a payload holds 1 MiB, of which each byte may take three.
const LARGEST_FORM: usize = 64 << 10;
const LARGEST_FORM_WITH_PAYLOAD: usize = 4 << 20;

pub fn routes<S: Clone + Send + Sync + 'static>(shared: Arc<Shared>) -> Router<S> {
    let with_payload = || DefaultBodyLimit::max(LARGEST_FORM_WITH_PAYLOAD);
    Router::new()
        .route("/", get(page::overview::show))
        .route("/queue", get(page::queue::show))
        .route("/queue/pause", post(act::queue::pause))
        .route("/queue/resume", post(act::queue::resume))
        .route("/queue/settings", post(act::queue::settings))
        .route("/queue/remove", post(act::queue::remove))
        .route("/jobs", get(page::jobs::show))
        .route("/jobs/{id}", get(page::job::show))
        .route("/jobs/{id}/payload", get(page::job::payload))
        .route("/jobs/{id}/edit", get(act::edit::show).post(act::edit::save).layer(with_payload()))
        .route("/jobs/{id}/retry", post(act::job::retry))
        .route("/jobs/{id}/cancel", post(act::job::cancel))
        .route("/jobs/{id}/again", post(act::job::again))
        .route("/workers", get(page::workers::show))
        .route("/workers/{id}", get(page::worker::show))
        .route("/workers/{id}/stop", post(page::worker::stop))
        .route("/workers/{id}/slots", post(page::worker::set_slots))
        .route("/kinds", get(page::kinds::show))
        .route("/schedules", get(page::schedules::show))
        .route("/schedule", get(page::schedule::show))
        .route("/schedule/pause", post(page::schedule::pause))
        .route("/schedule/resume", post(page::schedule::resume))
        .route("/schedule/trigger", post(page::schedule::trigger))
        .route("/schedule/remove", get(page::schedule::ask_to_remove).post(page::schedule::remove))
        .route("/dead", get(page::dead::show))
        .route("/dead/group", get(page::dead_group::show))
        .route("/dead/revive", get(act::dead::ask_to_revive).post(act::dead::revive))
        .route("/dead/purge", get(act::dead::ask_to_purge).post(act::dead::purge))
        .route("/enqueue", get(page::enqueue::show).post(act::enqueue::add).layer(with_payload()))
        .route("/pause", post(act::pause::pause))
        .route("/resume", post(act::pause::resume))
        .route("/bulk", get(act::bulk::ask).post(act::bulk::begin))
        .route("/actions", get(page::actions::show))
        .route("/actions/{id}", get(page::action::show))
        .route("/actions/{id}/stop", post(page::action::stop))
        .route("/style.css", get(assets::style))
        .route("/app.js", get(assets::script))
        .route("/icon.svg", get(assets::icon))
        .fallback(page::elsewhere)
        .method_not_allowed_fallback(|| async {
            Refusal::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "This address takes another method.")
        })
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .layer(from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}
