//! What every request must pass before a page sees it: room, the host's name, the origin of a POST, the visitor.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::access::Right;
use crate::draw::shell;
use crate::shared::Shared;

pub mod form_token;
pub mod headers;
pub mod hosts;
pub mod origin;

/// The time within which a request must be sent and answered. A stream has only begun by then.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);
/// The longest query in bytes, as pages write it. They repeat it in their links, so it bounds their size.
const LONGEST_QUERY: usize = 8192;

/// A request that is not answered with a page.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    /// Says what is wrong, and what to do.
    pub reason: String,
}

impl Refusal {
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Refusal {
        Refusal { status, reason: reason.into() }
    }

    pub fn forbidden(reason: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, reason)
    }

    pub fn bad_request(reason: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, reason)
    }

    pub fn not_found(reason: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, reason)
    }
}

impl Refusal {
    pub fn unavailable(reason: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason)
    }
}

/// A change that the database has refused, or that could not be asked for.
impl From<reveille::Error> for Refusal {
    fn from(error: reveille::Error) -> Refusal {
        match () {
            () if error.is_denied() => Refusal::forbidden(error.to_string()),
            () if error.is_invalid() => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            () => Refusal::unavailable(error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, shell::refusal(&self)).into_response()
    }
}

/// Lets a request through to its page, or refuses it. Adds the headers for safety to every answer.
pub async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let answer = match check(&shared, request) {
        Ok(request) => {
            // A request that is refused takes no room from others.
            let Ok(_room) = shared.requests.try_acquire() else { return headers::added(busy().into_response()) };
            let answer = tokio::time::timeout(LONGEST_REQUEST, next.run(request)).await;
            answer.unwrap_or_else(|_| {
                let problem =
                    "The request took too long. If it was to change something, see Actions for whether it did.";
                Refusal::new(StatusCode::REQUEST_TIMEOUT, problem).into_response()
            })
        }
        Err(refusal) => refusal.into_response(),
    };
    headers::added(answer)
}

/// Returns the length of a query in a link, in which some characters take three bytes.
fn written_length(query: &str) -> usize {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"*-._+%&=".contains(&byte);
    query.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum()
}

fn busy() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "The dashboard answers too many requests at once. Try again soon.")
}

/// Returns the request with its [`Viewer`](crate::Viewer) among its extensions.
fn check(shared: &Shared, request: Request) -> Result<Request, Refusal> {
    let (mut parts, body) = request.into_parts();
    shared.hosts.check(&parts)?;
    let query = parts.uri.query().unwrap_or_default();
    if written_length(query) > LONGEST_QUERY {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "The address is too long."));
    }
    if query.contains("%00") {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "The address has a NUL, which no text in Postgres can have.",
        ));
    }
    match parts.method {
        Method::GET | Method::HEAD => {}
        Method::POST => origin::check(&parts.headers, &shared.hosts)?,
        _ => return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "The dashboard takes only GET and POST.")),
    }
    let viewer = (shared.authorize)(&parts).filter(|viewer| viewer.access.allows(Right::See));
    let viewer =
        viewer.ok_or_else(|| Refusal::forbidden("You may not see this dashboard. Log in, or ask for access."))?;
    parts.extensions.insert(viewer);
    Ok(Request::from_parts(parts, body))
}
