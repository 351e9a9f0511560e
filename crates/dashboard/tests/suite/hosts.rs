//! A request for a foreign host is refused, so that no foreign page can reach the dashboard under its own name.

use axum::http::StatusCode;
use reveille_dashboard::{Access, Dashboard, Viewer};

use crate::harness::database;
use crate::web::{Filled, SECRET, post_with, request, routes, send, signed, site};

#[tokio::test]
async fn a_foreign_host_is_misdirected_at_every_address() {
    let database = database().await;
    let router = site(&database);
    for (route, ..) in routes() {
        let path = Filled::of(route, "mail").path;
        for method in ["GET", "POST"] {
            let foreign = [("host", "evil.example"), ("sec-fetch-site", "same-origin")];
            let answer = send(&router, request(method, &path, &foreign, "")).await;
            assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{method} {route}");
        }
    }
}

#[tokio::test]
async fn each_host_that_a_request_names_must_be_known() {
    let database = database().await;
    let dashboard = Dashboard::new(database.database.clone()).hosts(["Ops.example.com", "10.1.2.3:7070"]);
    let router = dashboard.authorize(|_| Viewer::new("ada")).router();
    for (path, hosts, is_served) in [
        ("/", &["localhost"][..], true),
        ("/", &["LOCALHOST:1"], true),
        ("/", &["[::1]:7070"], true),
        ("/", &["ops.example.com:8443"], true),
        ("/", &["10.1.2.3:7070"], true),
        ("http://localhost/", &["localhost"], true),
        ("http://evil.example/", &["localhost"], false),
        ("http://localhost/", &["evil.example"], false),
        ("/", &["localhost", "evil.example"], false),
        ("/", &["evil.example", "localhost"], false),
        ("/", &["localhost, evil.example"], false),
        ("/", &[""], false),
        ("/", &["localhost@evil.example"], false),
        ("/", &["evil.example@localhost"], false),
        ("/", &["localhost.evil.example"], false),
        ("/", &["localhost/evil"], false),
        ("/", &["127.0.0.1.nip.io"], false),
        ("/", &["2130706433"], false),
        ("/", &["0.0.0.0"], false),
    ] {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let answer = send(&router, request("GET", path, &headers, "")).await;
        let wanted = if is_served { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST };
        assert_eq!(answer.status, wanted, "{path} {hosts:?}");
    }
}

#[tokio::test]
async fn behind_a_proxy_the_given_host_is_the_origin() {
    let database = database().await;
    let dashboard = Dashboard::new(database.database.clone()).secret(SECRET).hosts(["ops.example.com"]);
    let router = dashboard.authorize(|_| Viewer::new("ada").access(Access::all())).router();
    let filled = Filled::of("/queue/pause", "mail");
    let signature = signed(SECRET, "ada", filled.action(), 0);
    for (origin, status) in [
        ("https://ops.example.com", StatusCode::SEE_OTHER),
        ("https://ops.example.com:3000", StatusCode::FORBIDDEN),
        ("https://evil.example", StatusCode::FORBIDDEN),
    ] {
        let headers = [("host", "127.0.0.1:7070"), ("origin", origin)];
        let answer = post_with(&router, &filled.path, &headers, &filled.with(&signature)).await;
        assert_eq!(answer.status, status, "{origin}");
    }
}
