//! `reveille demo --dashboard`: the first thing that a new user sees.

use crate::cli::command;
use crate::dashboard::Served;
use crate::harness::{empty_database, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_prints_a_link_to_pages_of_a_lively_mix_and_ends_at_an_interrupt() {
    let database = empty_database().await;
    let demo = Served::by(command(&["demo", "--dashboard", "--database-url", &database.address]), None);
    assert!(demo.link.starts_with("http://127.0.0.1:") && demo.link.contains("/?token="), "{}", demo.link);
    for ended in ["finished_jobs", "dead_jobs", "workflows", "schedules", "kind_counters"] {
        database.until(&format!("select exists (select from reveille.{ended})")).await;
    }
    let cookie = demo.cookie();
    let pages = ["", "jobs", "dead", "workflows", "kinds", "workers", "schedules", "enqueue", "actions"];
    for page in pages {
        let answer = demo.get(&format!("/{page}"), &[&cookie]);
        assert_eq!(answer.status, 200, "{page}: {}", answer.body);
        assert!(!answer.body.contains("role=\"alert\""), "{page}: {}", answer.body);
    }
    let lists_kinds = async || demo.get("/kinds", &[&cookie]).body.contains("send_welcome");
    eventually("the kinds of the mix are listed", lists_kinds).await;
    assert_eq!(demo.get("/", &[]).status, 403);
    demo.interrupt();
    let (code, errors) = demo.ended();
    assert_eq!(code, Some(0), "{errors:?}");
}
