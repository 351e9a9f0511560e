//! Encrypted values and errors are shown as they are stored, are named as encrypted, and are not overwritten.

use axum::http::StatusCode;
use serde_json::json;

use crate::harness::{TestDatabase, database};
use crate::web::{DEAD, DONE, SECRET, WAITING, form, furnish, get, post, signed, site};

const ENVELOPE: &str = r#"{"reveille_encrypted":1,"algorithm":"XChaCha20-Poly1305","key":"2026-11",
"nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","ciphertext":"5eB6DPWg0sdXZhz5tsHvIMCw92S7TQ8IJWazb1c="}"#;

async fn encrypted() -> TestDatabase {
    let database = database().await;
    furnish(&database).await;
    let errors = json!([{ "at": "2026-01-01T00:00:00Z", "attempt": 1, "reason": "failed", "error": ENVELOPE }]);
    for table in ["jobs", "dead_jobs", "finished_jobs"] {
        let columns = format!("payload = '{ENVELOPE}', progress = '{ENVELOPE}', errors = '{errors}'");
        database.run(&format!("update reveille.{table} set {columns}")).await;
    }
    database.run("update reveille.finished_jobs set result = payload").await;
    database
}

#[tokio::test]
async fn the_page_of_a_job_says_what_is_encrypted_and_with_which_key() {
    let database = encrypted().await;
    let router = site(&database);
    let note = "Encrypted with the key 2026-11.";
    for (id, values) in [(WAITING, 2), (DEAD, 2), (DONE, 3)] {
        let page = get(&router, &format!("/jobs/{id}")).await;
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(page.body.matches(note).count(), values, "job {id}: {}", page.body);
        assert!(page.body.contains("5eB6DPWg0sdXZhz5tsHvIMCw92S7TQ8IJWazb1c="), "{}", page.body);
    }
}

#[tokio::test]
async fn lists_say_that_an_error_is_encrypted() {
    let database = encrypted().await;
    let router = site(&database);
    for path in ["/dead", "/jobs?state=dead", "/jobs?state=failing"] {
        let page = get(&router, path).await.body;
        assert!(page.contains("(encrypted with the key 2026-11)") && !page.contains("5eB6"), "{path}: {page}");
    }
    let group = form(&[("queue", "mail"), ("kind", "send"), ("reason", "failed")]);
    let group = get(&router, &format!("/dead/group?{group}")).await.body;
    assert!(group.contains("(encrypted with the key 2026-11)"), "{group}");
}

#[tokio::test]
async fn an_encrypted_payload_is_not_edited() {
    let database = encrypted().await;
    let router = site(&database);
    let payloads = "select jsonb_agg(payload) from (select payload from reveille.jobs where id = 1
        union all select payload from reveille.dead_jobs where id = 4) as stored";
    let before = database.value(payloads).await;
    for id in [WAITING, DEAD] {
        let action = format!("jobs/{id}/edit");
        let page = get(&router, &format!("/{action}")).await.body;
        assert!(page.contains("it is encrypted") && !page.contains("name=\"payload\""), "{page}");
        let signature = signed(SECRET, "ada", &action, 0);
        let fields = [
            ("signature", signature.as_str()),
            ("queue", "mail"),
            ("priority", "high"),
            ("max_attempts", "20"),
            ("payload", "{\"card\": \"plain\"}"),
        ];
        let answer = post(&router, &format!("/{action}"), &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    }
    assert_eq!(database.value(payloads).await, before);
    assert_eq!(database.value("select priority from reveille.jobs where id = 1").await, 1, "the rest is saved");
}

#[tokio::test]
async fn a_job_like_an_encrypted_one_gets_the_stored_payload() {
    let database = encrypted().await;
    let router = site(&database);
    let page = get(&router, &format!("/enqueue?like={DONE}")).await.body;
    assert!(page.contains("Its payload is encrypted.") && page.contains("5eB6DPWg0sdXZhz5tsHvIMCw92S7TQ8I"), "{page}");
}
