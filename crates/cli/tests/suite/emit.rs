//! The command emits events.

use serde_json::{Value, json};

use crate::cli::reveille;
use crate::harness::database;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_of_a_name_counts() {
    let database = database().await;
    for (arguments, expected) in [
        (&["emit", "paid:7", r#"{"cents": 990}"#][..], "emitted paid:7\n"),
        (&["emit", "paid:7", "1"], "paid:7 was emitted before; its payload stays\n"),
        (&["emit", "done"], "emitted done\n"),
    ] {
        let done = reveille(&database, arguments);
        assert_eq!((done.code, &*done.out, &*done.err), (0, expected, ""));
    }
    let answer = reveille(&database, &["emit", "more", "--json"]).out;
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), json!({"event": "more", "first": true}));
    let stored = "select jsonb_object_agg(name, payload) from reveille.events";
    assert_eq!(database.value(stored).await, json!({"paid:7": {"cents": 990}, "done": null, "more": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_stored_is_refused_in_one_line() {
    let database = database().await;
    for (arguments, why) in [(&["emit", "e", "{"][..], "not JSON"), (&["emit", ""], "must have 1 to 512 bytes")] {
        let refused = reveille(&database, arguments);
        assert!(refused.code == 2 && refused.err.contains(why) && refused.err.lines().count() == 1, "{}", refused.err);
    }
    assert_eq!(database.value("select count(*) from reveille.events").await, 0);
}
