//! Every answer carries the headers for safety.

use axum::http::StatusCode;
use axum::routing::get as handler;
use reveille_dashboard::{Dashboard, Viewer};

use crate::harness::database;
use crate::web::{Answer, Filled, furnish, get, open_stream, post, request, routes, send, site};

fn is_safe(what: &str, answer: &Answer, is_file: bool) {
    let policy = answer.header("content-security-policy");
    for part in ["default-src 'self'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{what}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{what}: {policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", if is_file { "max-age=300" } else { "no-store" }),
    ] {
        assert_eq!(answer.header(name), value, "{what}: {name}");
    }
    for part in ["style=\"", "<style", "onclick", "onload", "javascript:"] {
        assert!(is_file || !answer.body.contains(part), "{what} contains {part}");
    }
    let scripts = answer.body.matches("<script").count();
    let own = answer.body.matches("app.js\" defer></script>").count();
    assert!(is_file || scripts == own, "{what} has a foreign script");
}

#[tokio::test]
async fn every_answer_is_safe() {
    let database = database().await;
    furnish(&database).await;
    let router = site(&database);
    for (route, gets, posts) in routes() {
        let path = Filled::of(route, "mail").path;
        let is_file = path.contains('.');
        let query = if route == "/" { "" } else { "?name=mail&queue=mail&kind=send&reason=failed" };
        is_safe(route, &get(&router, &format!("{path}{query}")).await, is_file && gets);
        if posts {
            is_safe(route, &post(&router, &path, &[]).await, false);
        }
        let foreign = send(&router, request("GET", &path, &[("host", "evil.example")], "")).await;
        is_safe(route, &foreign, false);
        let blind = Dashboard::new(database.database.clone()).router();
        is_safe(route, &get(&blind, &path).await, false);
    }
    for (path, status) in [
        ("/no/such/page", StatusCode::NOT_FOUND),
        ("/jobs/99", StatusCode::NOT_FOUND),
        ("/jobs/x", StatusCode::NOT_FOUND),
        ("/jobs/%ff", StatusCode::NOT_FOUND),
        ("/queue/pause", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = get(&router, path).await;
        assert_eq!(answer.status, status, "{path}");
        is_safe(path, &answer, false);
    }
}

#[tokio::test]
async fn a_stream_and_a_nested_dashboard_are_safe_too() {
    let database = database().await;
    let (status, headers, stream) = open_stream(&site(&database), "/").await;
    assert_eq!(status, StatusCode::OK);
    drop(stream);
    let answer = Answer { status, headers, body: String::new(), took: std::time::Duration::ZERO };
    is_safe("the stream", &answer, false);
    assert_eq!(answer.header("x-accel-buffering"), "no");

    let dashboard = Dashboard::new(database.database.clone()).authorize(|_| Viewer::new("ada"));
    let app = axum::Router::new().route("/", handler(|| async { "shop" })).nest("/ops/jobs", dashboard.router());
    for path in ["/ops/jobs", "/ops/jobs/jobs", "/ops/jobs/no/such", "/ops/jobs/queue/pause"] {
        is_safe(path, &get(&app, path).await, false);
    }
    assert_eq!(get(&app, "/").await.header("content-security-policy"), "");
}
