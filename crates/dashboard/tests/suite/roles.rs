//! A database's role without rights, and a standby: the pages show what can be read, and offer no more.

use axum::http::StatusCode;
use reveille::Database;
use reveille::database::grants_sql;

use crate::harness::{TestDatabase, database, eventually, host_and_port};
use crate::web::{Filled, SECRET, actions, digest, form, furnish, get, post, routes, signed, site};

/// Returns the database as a user in the role `reveille_monitor` sees it, and the name of that user.
async fn monitor(database: &TestDatabase) -> (Database, String) {
    let user = format!("monitor_{}_{:08x}", std::process::id(), fastrand::u32(..));
    database.run(&grants_sql("reveille").unwrap()).await;
    database.run(&format!("create role {user} login password 'secret' in role reveille_monitor")).await;
    let config: tokio_postgres::Config = database.address.parse().unwrap();
    let ((host, port), name) = (host_and_port(&config), config.get_dbname().unwrap());
    let address = format!("host={host} port={port} dbname={name} user={user} password=secret");
    (Database::connect(address).await.unwrap(), user)
}

#[tokio::test]
async fn a_monitor_sees_everything_but_payloads_and_changes_nothing() {
    let database = database().await;
    furnish(&database).await;
    let (seen, user) = monitor(&database).await;
    let (router, before) = (site(&seen), digest(&database).await);
    let words = ["mail-4111", "mail-meta", "mail-prog", "mail-result"];
    let group = form(&[("name", "mail"), ("queue", "mail"), ("kind", "send"), ("reason", "failed")]);
    for (route, gets, _) in routes() {
        for id in 1..=5 {
            let path = route.replace("{id}", &id.to_string());
            if !gets {
                continue;
            }
            let answer = get(&router, &format!("{path}?{group}")).await;
            assert!(!answer.status.is_server_error(), "{path}: {} {}", answer.status, answer.body);
            for word in words.into_iter().chain(["permission denied", "method=\"post\""]) {
                assert!(!answer.body.contains(word), "{path} says {word}: {}", answer.body);
            }
        }
    }
    for (path, shows) in [
        ("/", "read-only"),
        ("/", "secret"),
        ("/jobs", "mail-key"),
        ("/jobs?state=dead", "mail-error"),
        ("/jobs?state=completed", "jobs/5"),
        ("/jobs/1", "You may not see payloads"),
        ("/jobs/4", "mail-error"),
        ("/queue?name=mail", "send"),
        ("/workers", "mail-host"),
        ("/schedules", "mail-nightly"),
        ("/kinds", "send"),
        ("/actions", "Secretary"),
        ("/dead", "send"),
        ("/workflows", "mail-flow"),
        ("/workflows/1", "mail-load"),
        ("/jobs/2", "mail-step"),
        ("/jobs/2", "once completed"),
    ] {
        let page = get(&router, path).await;
        assert!(page.status == StatusCode::OK && page.body.contains(shows), "{path}: {}", page.body);
    }
    for route in actions() {
        let filled = Filled::of(route, "mail");
        let signature = signed(SECRET, "ada", filled.action(), 0);
        let answer = post(&router, &filled.path, &filled.with(&signature)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route}: {}", answer.body);
    }
    assert_eq!(digest(&database).await, before);
    drop((router, seen));
    eventually("the role is dropped", async || {
        let client = database.client().await;
        client.batch_execute(&format!("drop role {user}")).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_standby_is_shown_read_only_until_it_is_promoted() {
    let primary = reveille::dev::Server::start().unwrap();
    let origin = Database::connect(primary.url("postgres")).await.unwrap();
    origin.migrate().await.unwrap();
    let client = crate::harness::client(&primary.url("postgres")).await;
    client.batch_execute("insert into reveille.jobs (queue, kind) values ('mail', 'send')").await.unwrap();
    let standby = primary.standby().await.unwrap();
    let database = Database::connect(standby.url("postgres")).await.unwrap();
    let router = site(&database);
    eventually("the standby shows the job", async || get(&router, "/jobs").await.body.contains("send")).await;
    let group = form(&[("name", "mail"), ("queue", "mail"), ("kind", "send"), ("reason", "failed")]);
    for (route, gets, posts) in routes() {
        let filled = Filled::of(route, "mail");
        if gets {
            let answer = get(&router, &format!("{}?{group}", filled.path)).await;
            assert!(!answer.status.is_server_error(), "{route}: {} {}", answer.status, answer.body);
            assert!(!answer.body.contains("method=\"post\""), "{route}: {}", answer.body);
        }
        if posts {
            let signature = signed(SECRET, "ada", filled.action(), 0);
            let answer = post(&router, &filled.path, &filled.with(&signature)).await;
            let is_missing = answer.status == StatusCode::NOT_FOUND && route.contains("{id}");
            assert!(is_missing || answer.status == StatusCode::FORBIDDEN, "{route}: {} {}", answer.status, answer.body);
        }
    }
    assert!(get(&router, "/").await.body.contains("the database is a standby, which takes no changes"));
    let client = crate::harness::client(&standby.url("postgres")).await;
    client.batch_execute("select pg_promote()").await.unwrap();
    eventually("the buttons are there", async || get(&router, "/jobs/1").await.body.contains("jobs/1/cancel\"")).await;
}
