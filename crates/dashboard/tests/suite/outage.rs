//! While the database is away, pages say so within their time. They come back by themselves.

use std::time::Duration;

use axum::http::StatusCode;
use reveille::Database;
use reveille::dev::Network;
use reveille_dashboard::{Access, Dashboard, Viewer};

use crate::harness::{database, eventually, proxy};
use crate::web::{Filled, PAGE_TIME, SECRET, furnish, get, open_stream, post, read_until, routes, signed};

/// Returns what a page needs to know which queue, group, schedule or jobs it is about.
fn query(route: &str) -> &'static str {
    match route {
        "/bulk" => "do=cancel&queue=mail",
        _ => "name=mail&queue=mail&kind=send&reason=failed",
    }
}

#[tokio::test]
async fn pages_and_streams_come_back_with_the_database() {
    let database = database().await;
    furnish(&database).await;
    let config: tokio_postgres::Config = database.address.parse().unwrap();
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let (proxy, address) = proxy(&database.address).await;
    let through = Database::connect(address).await.unwrap();
    let dashboard = Dashboard::new(through).secret(SECRET).statement_timeout(Duration::from_millis(500));
    let router = dashboard.authorize(|_| Viewer::new("ada").access(Access::all())).router();
    let (_, _, mut overview) = open_stream(&router, "/").await;
    let (_, _, mut job) = open_stream(&router, "/jobs/1").await;
    read_until(&mut overview, "the overview is there", |event| event.contains("mail")).await;
    read_until(&mut job, "the job is there", |event| event.contains("4111") && event.contains("cancel")).await;
    for network in [Network::Refuse, Network::BlackHole] {
        proxy.set(network);
        // The doctor looks seldom, and takes its time.
        let away = |event: &str| event.split("What the doctor finds").next().unwrap().contains("role=\"alert\"");
        read_until(&mut overview, "the overview says that the database is away", away).await;
        // The stream of one job still shows what was known.
        read_until(&mut job, "the job says it too", |event| away(event) && event.contains("4111")).await;
        let (_, _, mut late) = open_stream(&router, "/jobs/1").await;
        read_until(&mut late, "a late stream says it", away).await;
        for (route, gets, posts) in routes() {
            let filled = Filled::of(route, "mail");
            if gets {
                let answer = get(&router, &format!("{}?{}", filled.path, query(route))).await;
                assert!(answer.took < PAGE_TIME, "{route} took {:?}", answer.took);
                let is_known = route.contains('.') || answer.status == StatusCode::SERVICE_UNAVAILABLE;
                let says_so = answer.body.contains("role=\"alert\"") || answer.status == StatusCode::FORBIDDEN;
                assert!(is_known || says_so, "{network:?} {route}: {} {}", answer.status, answer.body);
                let tells = !password.is_empty() && answer.body.contains(&password);
                assert!(!tells && !answer.body.contains("password"), "{route}: {}", answer.body);
            }
            if posts {
                let signature = signed(SECRET, "ada", filled.action(), 0);
                let answer = post(&router, &filled.path, &filled.with(&signature)).await;
                assert!(answer.took < PAGE_TIME, "{route} took {:?}", answer.took);
                assert!(
                    answer.status.is_server_error() || answer.status.is_client_error(),
                    "{route}: {}",
                    answer.status
                );
            }
        }
        proxy.set(Network::Pass);
        let back = |event: &str| !away(event) && event.contains("cancel");
        read_until(&mut job, "the job is back, with its buttons", back).await;
        read_until(&mut late, "the late stream has all of it", |event| back(event) && event.contains("4111")).await;
        read_until(&mut overview, "the overview is back", |event| !away(event) && event.contains("mail")).await;
        eventually("pages are back", async || get(&router, "/jobs").await.body.contains("mail-key")).await;
    }
    assert_eq!(database.value("select count(*) from reveille.jobs where payload ->> 'card' like '%4111'").await, 6);
}
