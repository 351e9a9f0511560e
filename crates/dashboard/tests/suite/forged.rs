//! Nothing is changed but by a form that the dashboard made for this visitor, sent from its own pages.

use axum::http::StatusCode;
use reveille_dashboard::{Access, Dashboard, Viewer};

use crate::harness::database;
use crate::web::{
    Filled, SECRET, actions, digest, form, furnish, get, of, post, post_with, prepare, request, routes, send, signed,
    site,
};

#[tokio::test]
async fn each_action_is_done_with_its_own_form_alone() {
    for route in actions() {
        let database = database().await;
        furnish(&database).await;
        prepare(&database, route).await;
        let (router, filled, before) = (site(&database), Filled::of(route, "mail"), digest(&database).await);
        let good = signed(SECRET, "ada", filled.action(), 0);
        let other = signed(SECRET, "ada", "queue/elsewhere", 0);
        for (what, signature) in [
            ("none", String::new()),
            ("of another visitor", signed(SECRET, "eve", filled.action(), 0)),
            ("of another action", other),
            ("of the day before yesterday", signed(SECRET, "ada", filled.action(), 2)),
            ("of another dashboard", signed("another secret", "ada", filled.action(), 0)),
            ("cut", good[..62].to_owned()),
            ("of a notice", signed(SECRET, "ada", &format!("notice {}", filled.action()), 0)),
        ] {
            let answer = post(&router, &filled.path, &filled.with(&signature)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route} with the signature {what}");
        }
        for headers in [
            &[][..],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site"), ("origin", "http://localhost")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-origin")],
            &[("origin", "null")],
            &[("origin", "http://evil.example")],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://localhost"), ("origin", "http://evil.example")],
            &[("origin", "")],
        ] {
            let answer = post_with(&router, &filled.path, headers, &filled.with(&good)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route} {headers:?}");
        }
        // The way to write the address does not matter, nor does another type of content.
        let disguised = filled.path.replace("jobs/1", "jobs/%31").replace("queue/", "queue//");
        if disguised != filled.path {
            let answer = post(&router, &disguised, &filled.with(&signed(SECRET, "ada", filled.action(), 0))).await;
            assert!(answer.status.is_client_error(), "{disguised}: {}", answer.status);
        }
        let headers = [("sec-fetch-site", "same-origin"), ("content-type", "text/plain")];
        let answer = send(&router, request("POST", &filled.path, &headers, &form(&filled.with(&good)))).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{route}");
        assert_eq!(digest(&database).await, before, "{route} changed something");

        let answer = post(&router, &filled.path, &filled.with(&good)).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{route}: {}", answer.body);
        assert_ne!(digest(&database).await, before, "{route} did nothing: {}", answer.header("location"));
        let there = answer.header("location").to_owned();
        assert!(there.starts_with("../") || !there.starts_with(['/', '\\']) && !there.contains("//"), "{there}");
    }
}

#[tokio::test]
async fn the_form_of_yesterday_is_valid_and_so_is_an_old_browser() {
    let database = database().await;
    furnish(&database).await;
    let (router, filled) = (site(&database), Filled::of("/queue/pause", "mail"));
    let signature = signed(SECRET, "ada", filled.action(), 1);
    let old = [("origin", "http://localhost")];
    let answer = post_with(&router, &filled.path, &old, &filled.with(&signature)).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
}

#[tokio::test]
async fn no_get_changes_anything_at_any_address() {
    let database = database().await;
    furnish(&database).await;
    let (router, before) = (site(&database), digest(&database).await);
    for (route, gets, _) in routes() {
        let filled = Filled::of(route, "mail");
        let signature = signed(SECRET, "ada", filled.action(), 0);
        let fields = form(&filled.with(&signature));
        for (method, path) in [
            ("GET", filled.path.clone()),
            ("GET", format!("{}?{fields}", filled.path)),
            ("GET", format!("{}?_method=POST&{fields}", filled.path)),
            ("HEAD", format!("{}?{fields}", filled.path)),
        ] {
            let headers = [("sec-fetch-site", "same-origin"), ("x-http-method-override", "POST")];
            let answer = send(&router, request(method, &path, &headers, &fields)).await;
            let is_refused = answer.status == StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_refused, !gets, "{method} {path}: {}", answer.status);
            assert!(!answer.status.is_server_error(), "{method} {path}: {}", answer.body);
        }
        for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let headers = [("sec-fetch-site", "same-origin"), ("content-type", "application/x-www-form-urlencoded")];
            let answer = send(&router, request(method, &filled.path, &headers, &fields)).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {route}");
        }
    }
    assert_eq!(digest(&database).await, before);
}

#[tokio::test]
async fn without_a_visitor_everything_is_refused() {
    let database = database().await;
    furnish(&database).await;
    let blind = Viewer::new("ada").access(Access::all().without(reveille_dashboard::Right::See));
    let before = digest(&database).await;
    for router in [
        Dashboard::new(database.database.clone()).router(),
        Dashboard::new(database.database.clone()).authorize(|_| None).router(),
        of(&database, blind),
    ] {
        for (route, gets, posts) in routes() {
            let filled = Filled::of(route, "mail");
            let signature = signed(SECRET, "ada", filled.action(), 0);
            if gets {
                let answer = get(&router, &filled.path).await;
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route}");
                assert!(!answer.body.contains("mail"), "{}", answer.body);
            }
            if posts {
                let answer = post(&router, &filled.path, &filled.with(&signature)).await;
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route}");
            }
        }
        assert_eq!(get(&router, "/no/such/page").await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(digest(&database).await, before);
}

#[tokio::test]
async fn a_notice_cannot_be_forged() {
    let database = database().await;
    let router = site(&database);
    let page = async |text: &str, signature: &str| {
        get(&router, &format!("/?{}", form(&[("notice", text), ("signed", signature)]))).await.body
    };
    let text = "Call 555 & <b>pay</b>\u{202e}";
    let shown = "Call 555 &amp; &lt;b&gt;pay&lt;/b&gt;\\u{202e}";
    let signature = signed(SECRET, "ada", &format!("notice {text}"), 0);
    assert!(page(text, &signature).await.contains(shown));
    for forged in [
        String::new(),
        signed(SECRET, "eve", &format!("notice {text}"), 0),
        signed(SECRET, "ada", text, 0),
        signed(SECRET, "ada", "notice Call 556", 0),
        signed(SECRET, "ada", &format!("notice {text}"), 2),
    ] {
        assert!(!page(text, &forged).await.contains("Call 555"), "{forged}");
    }
}
