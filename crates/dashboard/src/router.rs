//! Which page answers at which path.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{self, MethodFilter, MethodRouter};
use futures::future::{BoxFuture, FutureExt};

use crate::guard::{self, Refusal};
use crate::shared::Shared;
use crate::{act, assets, page};

/// The largest form in bytes. A form with a payload holds 1 MiB, of which each byte may take three.
const LARGEST_FORM: usize = 64 << 10;
const LARGEST_FORM_WITH_PAYLOAD: usize = 4 << 20;

/// Returns the dashboard for an application whose state has any type.
pub fn routes<S>(shared: Arc<Shared>) -> Router<S> {
    pages(&shared).with_state(shared)
}

/// Returns the pages and forms. A function with a type parameter is compiled in the application that calls it. This one
/// has none, so the code of all pages is compiled in this crate, once and for size.
fn pages(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
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
        .route("/jobs/{id}/edit", get(act::edit::show).merge(post(act::edit::save)).layer(with_payload()))
        .route("/jobs/{id}/retry", post(act::job::retry))
        .route("/jobs/{id}/cancel", post(act::job::cancel))
        .route("/jobs/{id}/again", post(act::job::again))
        .route("/workers", get(page::workers::show))
        .route("/workers/{id}", get(page::worker::show))
        .route("/workers/{id}/stop", post(page::worker::stop))
        .route("/workers/{id}/slots", post(page::worker::set_slots))
        .route("/workflows", get(page::workflows::show))
        .route("/workflows/{id}", get(page::workflow::show))
        .route("/workflows/{id}/retry", post(act::workflow::retry))
        .route("/workflows/{id}/cancel", post(act::workflow::cancel))
        .route("/kinds", get(page::kinds::show))
        .route("/schedules", get(page::schedules::show))
        .route("/schedule", get(page::schedule::show))
        .route("/schedule/pause", post(page::schedule::pause))
        .route("/schedule/resume", post(page::schedule::resume))
        .route("/schedule/trigger", post(page::schedule::trigger))
        .route("/schedule/remove", get(page::schedule::ask_to_remove).merge(post(page::schedule::remove)))
        .route("/dead", get(page::dead::show))
        .route("/dead/group", get(page::dead_group::show))
        .route("/dead/revive", get(act::dead::ask_to_revive).merge(post(act::dead::revive)))
        .route("/dead/purge", get(act::dead::ask_to_purge).merge(post(act::dead::purge)))
        .route("/enqueue", get(page::enqueue::show).merge(post(act::enqueue::add)).layer(with_payload()))
        .route("/pause", post(act::pause::pause))
        .route("/resume", post(act::pause::resume))
        .route("/bulk", get(act::bulk::ask).merge(post(act::bulk::begin)))
        .route("/actions", get(page::actions::show))
        .route("/actions/{id}", get(page::action::show))
        .route("/actions/{id}/stop", post(page::action::stop))
        .route("/style.css", get(assets::show))
        .route("/app.js", get(assets::show))
        .route("/icon.svg", get(assets::show))
        .fallback(page::elsewhere)
        .method_not_allowed_fallback(|| async {
            Refusal::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "This address takes another method.")
        })
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .layer(from_fn_with_state(Arc::clone(shared), guard::guard))
}

/// A handler, boxed: axum's code around a handler is compiled once for each kind of argument, and not for each route.
type Boxed<T> = Arc<dyn Fn(T) -> BoxFuture<'static, Result<Response, Refusal>> + Send + Sync>;

fn boxed<T, F>(handler: fn(T) -> F) -> Boxed<T>
where
    T: 'static,
    F: Future<Output = Result<Response, Refusal>> + Send + 'static,
{
    Arc::new(move |given| handler(given).boxed())
}

fn on<M, T>(method: MethodFilter, handler: Boxed<T>) -> MethodRouter<Arc<Shared>>
where
    M: 'static,
    T: FromRequest<Arc<Shared>, M> + Send + 'static,
{
    routing::on(method, move |given: T| handler(given))
}

fn get<M, T, F>(handler: fn(T) -> F) -> MethodRouter<Arc<Shared>>
where
    M: 'static,
    T: FromRequest<Arc<Shared>, M> + Send + 'static,
    F: Future<Output = Result<Response, Refusal>> + Send + 'static,
{
    on(MethodFilter::GET, boxed(handler))
}

fn post<M, T, F>(handler: fn(T) -> F) -> MethodRouter<Arc<Shared>>
where
    M: 'static,
    T: FromRequest<Arc<Shared>, M> + Send + 'static,
    F: Future<Output = Result<Response, Refusal>> + Send + 'static,
{
    on(MethodFilter::POST, boxed(handler))
}
