//! A form that a visitor has sent.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse, Response};

use crate::draw::text;
use crate::guard::Refusal;
use crate::readings::Age;
use crate::shared::Shared;
use crate::visit::Visit;

/// The longest notice, in characters.
const LONGEST_NOTICE: usize = 240;
/// The largest number of fields of a form.
const MOST_FIELDS: usize = 64;
/// The content type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// A form whose signature is valid for its address and its visitor.
pub struct Posted {
    pub visit: Visit,
    fields: Vec<(String, String)>,
}

impl FromRequest<Arc<Shared>> for Posted {
    type Rejection = Refusal;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Posted, Refusal> {
        let Draft { posted, is_signed } = Draft::from_request(request, shared).await?;
        match is_signed {
            true => Ok(posted),
            false => Err(Refusal::forbidden(
                "The form is too old, or was not made by this dashboard for you. Nothing was changed. Load its page \
                 again.",
            )),
        }
    }
}

/// A form that is shown again if its signature is not valid, since somebody has typed much into it.
pub struct Draft {
    pub posted: Posted,
    /// True if the form may be acted on.
    pub is_signed: bool,
}

impl FromRequest<Arc<Shared>> for Draft {
    type Rejection = Refusal;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Draft, Refusal> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, shared).await?;
        // What is changed is looked at anew: it may have changed since a page has shown it.
        let visit = Visit { age: Age::New, ..visit };
        let action = parts.uri.path().trim_start_matches('/').to_owned();
        let fields = fields(Request::from_parts(parts, body), shared).await?;
        let mut posted = Posted { visit, fields };
        // A form that is shown again is still the same form.
        if let Some(once) = posted.filled("once").map(str::to_owned) {
            posted.visit.once = once;
        }
        let signature = posted.value("signature").unwrap_or_default();
        let is_signed = shared.forms.verify(&posted.visit.viewer.name, &action, signature);
        Ok(Draft { posted, is_signed })
    }
}

/// Reads the names and values of a form: at most [`MOST_FIELDS`], since each takes more memory than its bytes.
async fn fields(request: Request, shared: &Arc<Shared>) -> Result<Vec<(String, String)>, Refusal> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM)) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("A form must be sent as {FORM}.")));
    }
    let body = Bytes::from_request(request, shared).await;
    let body = body.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
    let fields: Vec<_> = form_urlencoded::parse(&body).into_owned().take(MOST_FIELDS + 1).collect();
    if fields.len() > MOST_FIELDS {
        let problem = format!("A form has at most {MOST_FIELDS} fields.");
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    Ok(fields)
}

impl Posted {
    /// Returns the first value of a field; `None` if the form does not have the field.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a field without blanks around it; `None` if nothing was filled in.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.value(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Sends the browser to a page, which shows the notice. The page is a path from the dashboard's first page.
    pub fn done(&self, page: &str, notice: &str) -> Response {
        // What the pages have read before is outdated.
        self.visit.shared.readings.forget();
        self.lead(page, "notice", notice)
    }

    /// Sends the browser back to the page of the form, which says what is wrong with it. Nothing was changed.
    pub fn back(&self, page: &str, wrong: &str) -> Response {
        self.lead(page, "wrong", wrong)
    }

    fn lead(&self, page: &str, name: &str, text: &str) -> Response {
        // The text stands in an address, which has a bound.
        let text = &text::cut(text, LONGEST_NOTICE);
        let separator = if page.contains('?') { '&' } else { '?' };
        let signature = self.visit.sign(&format!("{name} {text}"));
        let there = self.visit.to(&format!("{page}{separator}{name}={}&signed={signature}", text::in_query(text)));
        (StatusCode::SEE_OTHER, [(LOCATION, there)]).into_response()
    }

    /// Sends the browser to a page that says that it is `done`, or `unknown` if what was to be changed is gone.
    pub fn done_if(&self, is_done: bool, page: &str, done: &str, unknown: &str) -> Response {
        self.done(page, if is_done { done } else { unknown })
    }
}
