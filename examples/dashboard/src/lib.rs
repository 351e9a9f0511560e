//! A web application with its own login, which serves the dashboard of its jobs at `/ops/jobs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Form, Request, State};
use axum::http::StatusCode;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use reveille::Database;
use reveille_dashboard::{Access, Dashboard, Field, Viewer};
use serde::Deserialize;

/// A user of the application.
#[derive(Debug, Clone)]
pub struct User {
    name: String,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Admin,
    Support,
    Guest,
}

/// The users who are logged in, by the value of their cookie.
type Sessions = Arc<Mutex<HashMap<String, User>>>;

#[derive(Deserialize)]
struct Login {
    name: String,
    password: String,
}

/// Returns the application. Its dashboard ends its streams after `shutdown`, so that the server can stop gracefully.
pub fn application(database: Database, shutdown: impl Future<Output = ()> + Send + 'static) -> Router {
    let sessions = Sessions::default();
    let dashboard = Dashboard::new(database)
        // The names under which a browser reaches the application; localhost needs none.
        .hosts(["shop.example.com"])
        .label("example")
        .authorize(|request| {
            // The layer below has put the user here.
            let user = request.extensions.get::<User>()?;
            let access = match user.role {
                Role::Admin => Access::all(),
                Role::Support => Access::operator(),
                Role::Guest => Access::read_only(),
            };
            Some(Viewer::new(&user.name).access(access))
        })
        .redact(|job, field, value| {
            if field == Field::Payload && job.kind == "charge_card" && value.get("card").is_some() {
                value["card"] = "…".into();
            }
        })
        .redact_workflow(|workflow, _, value| {
            if workflow.name == "payout" {
                *value = "…".into();
            }
        })
        .shutdown(shutdown);
    let behind_login = Router::new()
        .nest("/ops/jobs", dashboard.router())
        .layer(from_fn_with_state(Arc::clone(&sessions), must_be_logged_in));
    Router::new()
        .route("/", get(|| async { Html("<a href=\"/ops/jobs\">Jobs</a>") }))
        .route("/login", get(login_page).post(log_in))
        .merge(behind_login)
        .with_state(sessions)
}

/// Passes a request on with its user, or sends the browser to the login.
async fn must_be_logged_in(State(sessions): State<Sessions>, mut request: Request, next: Next) -> Response {
    let cookies = request.headers().get(COOKIE).and_then(|cookies| cookies.to_str().ok()).unwrap_or_default();
    let session = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix("session="));
    let user =
        session.and_then(|session| sessions.lock().unwrap_or_else(PoisonError::into_inner).get(session).cloned());
    match user {
        Some(user) => {
            request.extensions_mut().insert(user);
            next.run(request).await
        }
        None => Redirect::to("/login").into_response(),
    }
}

async fn login_page() -> Html<&'static str> {
    Html(
        "<form method=\"post\"><input name=\"name\" autocomplete=\"username\">\
         <input name=\"password\" type=\"password\" autocomplete=\"current-password\">\
         <button>Log in</button></form>",
    )
}

async fn log_in(State(sessions): State<Sessions>, Form(login): Form<Login>) -> Result<Response, StatusCode> {
    // A real application has a table of users with hashes of their passwords.
    let role = match (login.name.as_str(), login.password.as_str()) {
        ("ada", "lovelace") => Role::Admin,
        ("grace", "hopper") => Role::Support,
        ("guest", "guest") => Role::Guest,
        _ => return Err(StatusCode::UNAUTHORIZED),
    };
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let session: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let cookie = format!("session={session}; Path=/; HttpOnly; SameSite=Lax");
    sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(session, User { name: login.name, role });
    Ok(([(SET_COOKIE, cookie)], Redirect::to("/ops/jobs")).into_response())
}
