//! The SQL functions take arguments as the caller means them, or refuse them. A refusal states its reason in a few
//! lines.

use serde_json::json;

use crate::harness::database;

#[tokio::test]
async fn priority_and_max_attempts_take_any_integer_type() {
    let database = database().await;
    for ty in ["smallint", "int", "bigint"] {
        let numbers = format!("priority => 0::{ty}, max_attempts => 7::{ty}");
        database.run(&format!("select reveille.enqueue(kind => '{ty}', {numbers})")).await;
        database.run(&format!("select reveille.schedule('{ty}', kind => 'k', every => '1 day', {numbers})")).await;
    }
    database.run("select reveille.enqueue(kind => 'plain', priority => 0, max_attempts => 7)").await;
    let rows = "select jsonb_agg(distinct jsonb_build_array(priority, max_attempts))";
    assert_eq!(database.value(&format!("{rows} from reveille.jobs")).await, json!([[0, 7]]));
    assert_eq!(database.value(&format!("{rows} from reveille.schedules")).await, json!([[0, 7]]));
    database.run("select reveille.enqueue(kind => 'defaults', priority => null, max_attempts => null)").await;
    let defaults = "select jsonb_build_array(priority, max_attempts) from reveille.jobs where kind = 'defaults'";
    assert_eq!(database.value(defaults).await, json!([2, 20]));
}

#[tokio::test]
async fn a_number_out_of_range_is_refused_with_the_range() {
    let database = database().await;
    let calls = ["reveille.enqueue(kind => 'k', ", "reveille.schedule('s', kind => 'k', every => '1 day', "];
    for call in calls {
        let refusal = async |number: &str| database.refusal(&format!("select {call}{number})")).await;
        for number in ["4", "-1", "65536", "9223372036854775807"] {
            let error = refusal(&format!("priority => {number}")).await;
            assert_eq!(error, format!("priority must be 0 (urgent), 1 (high), 2 (normal) or 3 (low), not {number}"));
        }
        for number in ["0", "2147483648"] {
            let error = refusal(&format!("max_attempts => {number}")).await;
            assert_eq!(error, format!("max_attempts must be 1 to 2147483647, not {number}"));
        }
    }
}

#[tokio::test]
async fn tags_of_several_dimensions_are_refused() {
    let database = database().await;
    let calls = ["reveille.enqueue(kind => 'k', ", "reveille.schedule('s', kind => 'k', every => '1 day', "];
    for call in calls {
        let error = database.refusal(&format!("select {call}tags => array[array['a', 'b'], array['c', 'd']])")).await;
        assert_eq!(error, "tags must be one list, not an array of 2 dimensions");
    }
    let insert = "insert into reveille.schedules (name, kind, every, tags) values ('s', 'k', '1 day', '{{a},{b}}')";
    assert!(database.refusal(insert).await.contains("tags_have_one_dimension"));
    database.run("select reveille.enqueue(kind => 'k', tags => array[]::text[])").await;
}

#[tokio::test]
async fn a_payload_is_measured_as_the_text_that_a_worker_gets() {
    let database = database().await;
    // Postgres compresses the repeated letters, and stores about 12 kB.
    let stored = "create temp table t as select jsonb_build_object('x', repeat('a', 1100000)) as p; \
        alter table t alter p set storage main";
    let call = "select reveille.enqueue(kind => 'bomb', payload => p) from t";
    let refusal = database.refusal(&format!("{stored}; {call}")).await;
    assert!(refusal.contains("larger than the limit of 1048576 bytes"), "{refusal}");
    database.run(&format!("{stored}; set reveille.max_payload = 1200000; {call}")).await;
    let small =
        "set reveille.max_payload = 20; select reveille.enqueue(kind => 'k', payload => '[\"123456789012345678\"]')";
    assert!(database.refusal(small).await.contains("larger than the limit of 20 bytes"));
}

#[tokio::test]
async fn an_interval_given_as_cron_is_refused_with_a_hint() {
    let database = database().await;
    let error = database.client().await;
    let error =
        error.batch_execute("select reveille.schedule('s', kind => 'k', cron => '@every 5m')").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert!(error.message().contains("give the interval as every"), "{error}");
    assert!(error.hint().unwrap().contains("every => '5 minutes'"), "{error}");
    let insert = "insert into reveille.schedules (name, kind, cron) values ('s', 'k', '@every 1h')";
    assert!(database.refusal(insert).await.contains("cron_is_not_every"));
}

#[tokio::test]
async fn a_refused_enqueue_has_at_most_two_lines_of_context() {
    let database = database().await;
    let client = database.client().await;
    for (arguments, says) in [
        ("kind => ''", "kind_has_1_to_128_characters"),
        ("kind => null", "kind must not be null"),
        ("kind => 'k', queue => ''", "queue_has_1_to_128_characters"),
        ("kind => 'k', key => ''", "key_has_1_to_512_bytes"),
        ("kind => 'k', unique_key => repeat('k', 513)", "unique_key_has_1_to_512_bytes"),
        ("kind => 'k', timeout => '-1 s'", "timeout_is_positive"),
        ("kind => 'k', tags => array[null]", "tags_are_at_most_64"),
        ("kind => 'k', metadata => '[]'", "metadata_is_an_object"),
        ("kind => 'k', available_at => 'infinity'", "times_are_finite"),
        ("kind => 'k', priority => 9", "priority must be"),
    ] {
        let error = client.batch_execute(&format!("select reveille.enqueue({arguments})")).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.message().contains(says), "{arguments}: {}", error.message());
        assert!(error.where_().unwrap().lines().count() <= 2, "{arguments}: {}", error.where_().unwrap());
    }
    client.batch_execute("insert into reveille.jobs (kind) values ('fine')").await.unwrap();
    for plain in ["insert into reveille.jobs (kind) values ('k'), ('')", "update reveille.jobs set kind = ''"] {
        let error = client.batch_execute(plain).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.message().contains("kind_has_1_to_128_characters"), "{plain}: {}", error.message());
        assert!(error.where_().unwrap().lines().count() <= 2, "{plain}: {}", error.where_().unwrap());
    }
}
