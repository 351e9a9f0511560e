//! The files that pages load: one style sheet, one script, one icon. They are part of the program.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};

use crate::guard::Refusal;
use crate::guard::headers::KEPT_FILE;

/// The icon's drawing, for the head of each page.
pub const MARK: &str = include_str!("assets/icon.svg");
const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/app.js");

/// Answers with a file, by its name.
pub async fn show(uri: Uri) -> Result<Response, Refusal> {
    let (kind, content) = match uri.path().trim_start_matches('/') {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "app.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => ("image/svg+xml", MARK),
    };
    let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, KEPT_FILE)];
    Ok((headers, content).into_response())
}
