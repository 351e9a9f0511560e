//! The dashboard works under any path of an application, and leads nowhere else.

use axum::Router;
use axum::http::StatusCode;
use reveille_dashboard::{Access, Dashboard, Viewer};

use crate::harness::{TestDatabase, database};
use crate::web::{DEAD, Filled, SECRET, furnish, get, post, signed};

fn dashboard(database: &TestDatabase) -> Dashboard {
    let dashboard = Dashboard::new(database.database.clone()).secret(SECRET);
    dashboard.authorize(|_| Viewer::new("ada").access(Access::all()))
}

/// Resolves a link as a browser does.
fn resolve(from: &str, link: &str) -> String {
    let path = from.split('?').next().unwrap();
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    let (to, query) = link.split_once('?').map_or((link, None), |(to, query)| (to, Some(query)));
    let end = to.rsplit('/').next().unwrap();
    for part in to.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    let slash = if matches!(end, "" | "." | "..") { "/" } else { "" };
    let query = query.map(|query| format!("?{}", query.replace("&amp;", "&"))).unwrap_or_default();
    format!("{}{slash}{query}", parts.join("/"))
}

fn links(page: &str) -> Vec<String> {
    let attributes = ["href=\"", "action=\"", "src=\""];
    let of = |name: &'static str| page.split(name).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    attributes.into_iter().flat_map(of).collect()
}

async fn all_links_lead_to_pages(app: &Router, base: &str, first: &str) {
    let (mut known, mut open) = (vec![first.to_owned()], vec![first.to_owned()]);
    while let Some(path) = open.pop() {
        let answer = get(app, &path).await;
        if answer.status == StatusCode::SEE_OTHER {
            open.push(resolve(&path, answer.header("location")));
            continue;
        }
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        if answer.header("content-type").starts_with("text/html") {
            for link in links(&answer.body).into_iter().filter(|link| !link.starts_with('#')) {
                assert!(!link.starts_with('/') && !link.contains(':') || link.starts_with("./"), "{path}: {link}");
                let there = resolve(&path, &link);
                assert!(there.starts_with(base), "{path} leads by {link} to {there}");
                let is_action = answer.body.contains(&format!("action=\"{link}\"")) && !link.ends_with("jobs");
                if !is_action && !known.contains(&there) && known.len() < 300 {
                    known.push(there.clone());
                    open.push(there);
                }
            }
        }
    }
    assert!(known.len() > 30, "{known:?}");
}

#[tokio::test]
async fn all_links_lead_to_pages_under_any_path() {
    let database = database().await;
    furnish(&database).await;
    let nested = Router::new().nest("/ops/jobs", dashboard(&database).router());
    all_links_lead_to_pages(&nested, "/ops/jobs", "/ops/jobs").await;
    let service = Router::new().nest_service("/ops", dashboard(&database).router::<()>());
    all_links_lead_to_pages(&service, "/ops", "/ops").await;
    all_links_lead_to_pages(&service, "/ops", "/ops/").await;
    all_links_lead_to_pages(&dashboard(&database).router(), "/", "/").await;
}

#[tokio::test]
async fn a_form_leads_back_under_any_path() {
    for (app, base) in [("/ops/jobs", true), ("/ops", false)].map(|(path, is_nest)| (is_nest, path)) {
        let database = database().await;
        furnish(&database).await;
        let pages: Router = dashboard(&database).router();
        let app = if app { Router::new().nest(base, pages) } else { Router::new().nest_service(base, pages) };
        let filled = Filled::of("/jobs/{id}/retry", "mail");
        let signature = signed(SECRET, "ada", filled.action(), 0);
        let path = format!("{base}{}", filled.path);
        let answer = post(&app, &path, &filled.with(&signature)).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        let there = resolve(&path, answer.header("location"));
        assert!(there.starts_with(&format!("{base}/jobs/{DEAD}?notice=")), "{there}");
        assert!(get(&app, &there).await.body.contains("is revived"));
    }
}

#[tokio::test]
async fn the_path_of_the_application_is_no_scheme() {
    let database = database().await;
    let app = Router::new().nest("/shops/{tenant}", dashboard(&database).router());
    for tenant in ["javascript:alert(1)", "https:", "data:text,html", "shop"] {
        let page = get(&app, &format!("/shops/{tenant}")).await;
        assert_eq!(page.status, StatusCode::OK, "{tenant}");
        for link in links(&page.body) {
            assert!(link.starts_with("./") || link.starts_with('#'), "{tenant}: {link}");
        }
    }
    for path in ["//evil.example", "//evil.example/jobs", "/\\evil.example"] {
        let Ok(_) = path.parse::<axum::http::Uri>() else { continue };
        let page = get(&dashboard(&database).router(), path).await;
        assert!(!links(&page.body).iter().any(|link| link.contains("evil")), "{path}");
    }
}
