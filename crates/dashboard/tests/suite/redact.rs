//! What the application's redaction hides stands on no page, can be guessed by no filter, and is not overwritten.

use axum::Router;
use axum::http::StatusCode;
use reveille::admin::{BulkAction, Filter};
use reveille_dashboard::{Access, Dashboard, Field, Viewer};
use serde_json::{Value, json};

use crate::harness::{TestDatabase, database};
use crate::web::{SECRET, WAITING, form, furnish, get, post, routes, signed};

/// Hides each text that has the word `mail-` in it.
fn redacted(database: &TestDatabase) -> Router {
    fn hide(value: &mut Value) {
        match value {
            Value::String(text) if text.contains("mail-") || text.starts_with("00-") => *text = "XX".into(),
            Value::Array(values) => values.iter_mut().for_each(hide),
            Value::Object(members) => members.values_mut().for_each(hide),
            _ => {}
        }
    }
    Dashboard::new(database.database.clone())
        .secret(SECRET)
        .redact(|_, _: Field, value| hide(value))
        .authorize(|_| Viewer::new("ada").access(Access::all()))
        .router()
}

#[tokio::test]
async fn what_is_hidden_stands_on_no_page() {
    let database = database().await;
    furnish(&database).await;
    database.run("update reveille.jobs set attempts = 2, failures = 2 where id = 1").await;
    // Two changes by errors, one of which has failed with an error that quotes a job.
    database.run("alter sequence reveille.actions_id_seq restart 3").await;
    let bob = database.admin().acting_as("bob", "command").unwrap();
    for filter in [Filter::new().error("mail-error"), Filter::new().error_line("mail-error")] {
        bob.bulk(BulkAction::Revive, &filter).unwrap().begin().await.unwrap();
    }
    let failed = "update reveille.actions set error = 'cannot revive mail-error', outcome = 'failed', ended_at = now()
        where id = 4";
    database.run(failed).await;
    let router = redacted(&database);
    let words = [
        "mail-4111",
        "mail-hash",
        "mail-meta",
        "mail-prog",
        "mail-result",
        "mail-error",
        "0af7651916cd43dd8448eb211c80319c",
    ];
    let group = form(&[("name", "mail"), ("queue", "mail"), ("kind", "send"), ("reason", "failed")]);
    let queries = ["", &group, "state=dead", "state=failing", "state=completed", "like=1", "like=4", "kind=send"];
    for (route, gets, _) in routes() {
        for id in 1..=5 {
            let path = route.replace("{id}", &id.to_string());
            for query in queries.iter().filter(|_| gets) {
                let answer = get(&router, &format!("{path}?{query}")).await;
                for word in words {
                    assert!(!answer.body.contains(word), "{path}?{query} says {word}: {}", answer.body);
                }
            }
        }
    }
    assert_eq!(get(&router, "/jobs/1/payload").await.body, r#"{"card":"XX"}"#);
    assert!(get(&router, "/jobs/1").await.body.contains("redacted"));
    assert!(get(&router, "/jobs/4").await.body.contains("XX"), "the error is redacted");
    assert!(get(&router, "/jobs/2").await.body.contains("{&quot;card&quot;:&quot;XX&quot;}"), "the step is redacted");
    assert!(get(&router, "/workflows/1").await.body.contains("does not say what of a workflow may be shown"));
    let run = get(&router, "/actions/3").await.body;
    assert!(run.contains("error (hidden)") && run.contains("bob"), "{run}");
    let open = get(&crate::web::site(&database), "/actions").await.body;
    assert!(open.contains("error mail-error") && open.contains("error line mail-error"), "{open}");
}

#[tokio::test]
async fn what_is_hidden_cannot_be_found_by_a_filter() {
    let database = database().await;
    furnish(&database).await;
    let router = redacted(&database);
    for (name, value) in [("payload", "{\"card\": \"mail-4111\"}"), ("error", "mail-e")] {
        let page = get(&router, &format!("/jobs?{}", form(&[(name, value)]))).await.body;
        assert!(page.contains("may not filter by them") && !page.contains("jobs/1\""), "{page}");
    }
    let form = get(&router, "/jobs").await.body;
    assert!(!form.contains("name=\"payload\"") && !form.contains("name=\"error\""), "{form}");
}

#[tokio::test]
async fn what_is_hidden_is_not_overwritten() {
    let database = database().await;
    furnish(&database).await;
    let router = redacted(&database);
    let edit = get(&router, "/jobs/1/edit").await.body;
    assert!(!edit.contains("name=\"payload\""), "{edit}");
    let action = format!("jobs/{WAITING}/edit");
    let signature = signed(SECRET, "ada", &action, 0);
    for (priority, payload) in [("high", "{\"card\": \"XX\"}"), ("urgent", "{\"card\": \"other\"}"), ("low", "")] {
        let fields = [
            ("signature", signature.as_str()),
            ("queue", "mail"),
            ("priority", priority),
            ("max_attempts", "20"),
            ("key", "mail-key"),
            ("payload", payload),
        ];
        let answer = post(&router, &format!("/{action}"), &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    }
    let job = database.value("select jsonb_build_array(priority, payload ->> 'card') from reveille.jobs where id = 1");
    assert_eq!(job.await, json!([3, "mail-4111"]));
}

#[tokio::test]
async fn json_that_cannot_be_redacted_is_not_shown() {
    let database = database().await;
    for payload in ["repeat('[', 300) || '\"mail-deep\"' || repeat(']', 300)", "'{\"n\": 1e400, \"s\": \"mail-deep\"}'"]
    {
        database.run(&format!("insert into reveille.jobs (kind, payload) values ('k', ({payload})::jsonb)")).await;
    }
    let router = redacted(&database);
    for path in ["/jobs/1", "/jobs/1/payload", "/jobs/1/edit", "/jobs/2", "/jobs/2/payload", "/enqueue?like=2"] {
        let page = get(&router, path).await;
        assert!(page.status == StatusCode::OK && !page.body.contains("mail-deep"), "{path}: {}", page.body);
    }
}
