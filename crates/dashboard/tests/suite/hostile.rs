//! Whatever a job holds, each page shows it as text, within its size and its time.

use axum::Router;
use axum::http::StatusCode;
use reveille_dashboard::{Access, Dashboard, Viewer};
use serde_json::{Value, json};

use crate::harness::{TestDatabase, database};
use crate::web::{
    PAGE_SIZE, PAGE_TIME, SECRET, form, furnish, get, open_stream, post, read_until, routes, signed, site,
};

/// Markup, quotes that end an attribute, control characters, and characters that turn the text around.
const NASTY: &str =
    "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;\u{202e}\u{2028}\u{2029}\u{1}\u{1b}[2J\r\n\t";

/// The characters that must not reach a page from a job.
const RAW: [&str; 9] =
    ["<script>alert", "<img", "onerror=alert(1)>", "\u{202e}", "\u{2028}", "\u{2029}", "\u{1}", "\u{1b}", "\u{7f}"];

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Puts a job of each state in place, with the same odd values in all fields that can hold them.
async fn plant(database: &TestDatabase, name: &str, payload: &str, metadata: &str, errors: &Value) -> Vec<i64> {
    // All tags together have at most 16 KiB.
    let tags = (16_000 / (name.len() + 2)).min(64);
    let (text, long) = (quoted(name), quoted(&name.repeat(300)));
    let first = database.value("select coalesce(max(id), 0) + 1 from reveille.workers").await.as_i64().unwrap();
    let ids = [100 * first, 100 * first + 1, 100 * first + 2];
    let values = format!(
        "{text}, {text}, {payload}, 2::smallint, 1000000000, 1000000000, 2147483647, now(), '4000-01-01 BC', {text}, \
         array(select {text} || n from generate_series(1, {tags}) as n), {metadata}, {}::jsonb",
        quoted(&errors.to_string())
    );
    let columns = "queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, key, \
         tags, metadata, errors, id";
    database
        .run(&format!(
            "insert into reveille.queues (name) values ({text}) on conflict do nothing;
             insert into reveille.workers (id, host, pid, queues, version, slots, queue_slots)
             values ({first}, {long}, 77, array[{text}], {long}, 4, '{{4}}');
             insert into reveille.jobs ({columns}) overriding system value values ({values}, {});
             insert into reveille.dead_jobs ({columns}, reason, finished_at, run_seconds, wait_seconds)
             values ({values}, {}, 'failed', '290000-01-01', 'NaN', '-Infinity');
             insert into reveille.finished_jobs (day, {columns}, outcome, result, run_seconds, wait_seconds)
             values (3, {values}, {}, 'completed', {payload}, 'Infinity', 1e300)",
            ids[0], ids[1], ids[2]
        ))
        .await;
    plant_workflow(database, first, &text, payload).await;
    ids.to_vec()
}

/// Puts a workflow in place whose jobs wait for each other, and steps and dependencies of the planted jobs.
async fn plant_workflow(database: &TestDatabase, first: i64, text: &str, payload: &str) {
    let member = format!("left({text}, 125) || n");
    database
        .run(&format!(
            "insert into reveille.workflows (id, name, unique_key, state, jobs, dead, input, result)
             overriding system value
             select {first}, {text}, {text}, 'stalled', 200, 1,
                 case when octet_length(payload::text) <= 1048576 then payload else '1' end, payload
             from (values (({payload})::jsonb)) as given (payload);
             insert into reveille.workflow_jobs (job, workflow, name, outcome, result, ended_at)
             select
                 1000000 * {first} + n, {first}, {member}, (array['completed', 'dead', 'skipped'])[1 + n % 4],
                 case when n % 4 = 0 then to_jsonb({text}::text) end,
                 case when n % 4 <> 3 then '290000-01-01'::timestamptz end
             from generate_series(1, 200) as n;
             insert into reveille.dependencies (waiter, on_job, label, fires_on)
             select 1000000 * {first} + n, 1000000 * {first} + n - 1 - n % 7, {member}, 'any'
             from generate_series(10, 200) as n;
             insert into reveille.dependencies (waiter, on_job, label, fires_on, state)
             select 100 * {first} + n % 3, 1000000 * {first} + n, {text} || n, 'dead', 'held'
             from generate_series(1, 90) as n;
             insert into reveille.dependencies (waiter, on_job, label, fires_on, state)
             select 1000000 * {first} + n, 100 * {first} + n % 3, {text} || ' ' || n, 'cancelled', 'open'
             from generate_series(1, 90) as n;
             insert into reveille.steps (job, name, kind, value, until, outcome, attempt, reserved_at)
             select 100 * {first} + n % 3, left({text}, 60) || n, (array['step', 'sleep', 'wait'])[1 + n % 3],
                 to_jsonb(repeat({text}, 10)), '4000-01-01 BC', 'done', 1, now()
             from generate_series(1, 300) as n"
        ))
        .await;
}

/// Reads a page, and checks that it is a page of a bounded size that holds no raw text of a job.
async fn is_sound(router: &Router, path: &str) {
    let answer = get(router, path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    assert!(answer.took < PAGE_TIME, "{path} took {:?}", answer.took);
    let is_form = path.contains("/edit") || path.starts_with("/enqueue");
    let most = if is_form { 2_000_000 } else { PAGE_SIZE };
    assert!(answer.body.len() < most, "{path} has {} bytes", answer.body.len());
    // Fields of a form hold the text as it is, with its quotes and markup escaped.
    let body = without_values(&answer.body);
    for raw in RAW {
        assert!(!body.contains(raw), "{path} contains {raw:?}");
    }
}

/// Returns a page without the values that go back to the server as they are.
fn without_values(page: &str) -> String {
    let mut rest = page.to_owned();
    for (begin, end) in [("value=\"", "\""), ("data-key=\"", "\""), ("<textarea", "</textarea>")] {
        let mut parts = rest.split(begin);
        let first = parts.next().unwrap_or_default().to_owned();
        rest = parts.fold(first, |all, part| all + part.split_once(end).map_or("", |(_, after)| after));
    }
    rest
}

/// Reads every page about these jobs.
async fn all_pages_are_sound(router: &Router, ids: &[i64], name: &str) {
    let name = form(&[("name", name), ("queue", name), ("kind", name), ("reason", "failed")]);
    for (route, gets, _) in routes() {
        let is_file = route.contains('.') || route.ends_with("/payload");
        if !gets || is_file || route.contains("remove") || route.starts_with("/actions/") {
            continue;
        }
        match route.contains("{id}") {
            true if route.starts_with("/jobs") => {
                for id in ids {
                    is_sound(router, &route.replace("{id}", &id.to_string())).await;
                }
            }
            true => is_sound(router, &route.replace("{id}", &(ids[0] / 100).to_string())).await,
            // The first page of a change of many jobs leads to one that has the time of the first.
            false if route == "/bulk" => {
                let first = get(router, &format!("{route}?{}&do=cancel", name.replace("&reason=failed", ""))).await;
                assert_eq!(first.status, StatusCode::SEE_OTHER, "{}", first.body);
                is_sound(router, &format!("/{}", first.header("location"))).await;
            }
            false => is_sound(router, &format!("{route}?{name}")).await,
        }
    }
    for id in ids {
        is_sound(router, &format!("/enqueue?like={id}")).await;
    }
    for state in ["", "dead", "completed", "failing", "ready"] {
        is_sound(router, &format!("/jobs?state={state}")).await;
    }
}

#[tokio::test]
async fn markup_and_control_characters_are_shown_as_text() {
    let database = database().await;
    let json = quoted(&json!({ NASTY: [NASTY, { "deep": NASTY }] }).to_string());
    let errors = json!([{ "at": "2026-01-01T00:00:00Z", "attempt": 1, "error": NASTY }, { "error": NASTY }, NASTY, 7]);
    let router = site(&database);
    // A page's field loses a line break at its end, so the name ends with a letter.
    for name in
        [NASTY.replace(['\r', '\n'], "") + "z", "\"".repeat(128), "\u{202e}".repeat(128), "\u{10ffff}".repeat(128)]
    {
        let ids = plant(&database, &name, &json, &json, &errors).await;
        all_pages_are_sound(&router, &ids, &name).await;
    }
    let page = get(&router, "/jobs/100").await.body;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("\\u{202e}"), "{page}");
}

#[tokio::test]
async fn json_of_any_size_depth_and_number_is_shown_in_part() {
    let database = database().await;
    // A build that is not optimized reads 8 MiB slowly.
    let dashboard = Dashboard::new(database.database.clone()).statement_timeout(PAGE_TIME);
    let router = dashboard.authorize(|_| Viewer::new("ada").access(Access::all())).router();
    let error = json!({ "at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "<\u{202e}\"".repeat(2_000) });
    let errors = json!(vec![error; 100]);
    let deep = "('{\"a\":' || repeat('[', 300) || repeat(']', 300) || '}')::jsonb";
    for (name, payload) in [
        ("large", "jsonb_build_object('a', repeat('\"<', 2700000))"),
        ("deep", deep),
        ("wide", "('{\"a\":[' || repeat(repeat('[', 30) || repeat(']', 30) || ',', 3000) || '1]}')::jsonb"),
        ("number", "('{\"n\":' || repeat('9', 100000) || ', \"e\": 1e100000}')::jsonb"),
        ("many", "(select jsonb_object_agg(n, '') from generate_series(1, 100000) as n)"),
    ] {
        let metadata = if name == "large" { "jsonb_build_object('m', repeat('\"<', 60000))" } else { deep };
        let ids = plant(&database, name, payload, metadata, &errors).await;
        all_pages_are_sound(&router, &ids, name).await;
        for id in ids {
            let whole = get(&router, &format!("/jobs/{id}/payload")).await;
            let stored = "select octet_length(payload::text) from (
                    select id, payload from reveille.jobs union all select id, payload from reveille.dead_jobs
                    union all select id, payload from reveille.finished_jobs
                ) as jobs";
            assert_eq!(database.value(&format!("{stored} where id = {id}")).await, whole.body.len(), "{name}");
            assert_eq!(whole.header("content-type"), "application/json");
            assert!(whole.header("content-disposition").starts_with("attachment"));
        }
    }
}

#[tokio::test]
async fn many_jobs_with_the_longest_texts_fit_on_a_page() {
    let database = database().await;
    let text = quoted(&"\u{202e}\"<".repeat(42));
    database
        .run(&format!(
            "insert into reveille.jobs (queue, kind, key, tags, attempts, failures, errors)
             select {text}, {text}, repeat({text}, 1), array(select {text} from generate_series(1, 64)), 1, 1,
                 jsonb_build_array(jsonb_build_object('error', repeat({text}, 1000)))
             from generate_series(1, 200)"
        ))
        .await;
    let router = site(&database);
    is_sound(&router, "/jobs").await;
    is_sound(&router, "/jobs?state=failing").await;
    is_sound(&router, "/").await;
}

#[tokio::test]
async fn odd_addresses_and_forms_are_refused_or_answered_briefly() {
    let database = database().await;
    furnish(&database).await;
    let router = site(&database);
    let long = "%22".repeat(1_300);
    for path in [
        "/jobs/9223372036854775807".to_owned(),
        "/jobs/9223372036854775808".to_owned(),
        "/jobs/-9223372036854775808".to_owned(),
        "/jobs/+1/edit".to_owned(),
        "/jobs/%00".to_owned(),
        "/jobs/%ff%fe".to_owned(),
        "/jobs/1%2Fcancel".to_owned(),
        "/jobs/../../etc/passwd".to_owned(),
        "/jobs?id=99999999999999999999".to_owned(),
        "/jobs?id=%00".to_owned(),
        "/jobs?queue=%00&kind=%ff&key=%e2%80".to_owned(),
        "/jobs?payload=%7B%22a%22:%22%00%22%7D".to_owned(),
        "/jobs?payload=%7B%22a%22:%22%5Cu0000%22%7D".to_owned(),
        "/jobs?from=99999999999999999999".to_owned(),
        "/jobs?from=%00&sort=due&queue=mail".to_owned(),
        "/jobs?newer=99999999999y&older=-1s".to_owned(),
        "/jobs?state=nothing&reason=%3Cb%3E".to_owned(),
        "/queue?name=%00".to_owned(),
        "/queue?name=mail&time=%3Cb%3E".to_owned(),
        "/dead/group?queue=%00&kind=%00&reason=failed&line=%00".to_owned(),
        "/enqueue?kind=%00&like=x".to_owned(),
        "/workers/99999999999999999999".to_owned(),
        format!("/jobs?kind={long}&key={long}"),
        format!("/jobs?kind={}", "(".repeat(2_700)),
        format!("/jobs?kind={}", "(".repeat(4_000)),
        format!("/jobs?kind={}", "x".repeat(100_000)),
        format!("/{}", "a/".repeat(30_000)),
        format!("/{}", "/".repeat(60_000)),
        format!("/jobs?{}", "queue=mail&".repeat(300)),
    ] {
        let Ok(_) = path.parse::<axum::http::Uri>() else { continue };
        let answer = get(&router, &path).await;
        let path = path.chars().take(80).collect::<String>();
        assert!(answer.status.as_u16() < 500, "{path}: {} {}", answer.status, answer.body);
        assert!(answer.body.len() < PAGE_SIZE, "{path} has {} bytes", answer.body.len());
        assert!(!answer.body.contains("<b>") && !answer.body.contains('\0'), "{path}: {}", answer.body);
    }
    let signature = signed(SECRET, "ada", "queue/settings", 0);
    for (value, status) in
        [("9".repeat(60_000), 422), ("9".repeat(70_000), 413), ("-1".into(), 422), ("\0".into(), 422)]
    {
        let fields = [("signature", signature.as_str()), ("name", "mail"), ("max_running", &value)];
        let answer = post(&router, "/queue/settings", &fields).await;
        assert_eq!(answer.status, status, "{} bytes: {:.200}", value.len(), answer.body);
        assert!(answer.body.len() < PAGE_SIZE, "{} bytes", answer.body.len());
    }
    let many: Vec<_> =
        (0..100_000).map(|_| ("x", "y")).chain([("signature", signature.as_str()), ("name", "mail")]).collect();
    assert_eq!(post(&router, "/queue/settings", &many).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_name_with_odd_characters_is_acted_on_as_it_is() {
    let database = database().await;
    let router = site(&database);
    let signature = signed(SECRET, "ada", "queue/pause", 0);
    for name in [" mail ", "a\"<b>&c", "a/b?c#d%00", "\u{202e}x"] {
        let answer = post(&router, "/queue/pause", &[("signature", &signature), ("name", name)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{name}: {}", answer.body);
        let paused = format!("select paused_at is not null from reveille.queues where name = {}", quoted(name));
        assert_eq!(database.value(&paused).await, true, "{name}");
        let page = get(&router, &format!("/{}", answer.header("location").trim_start_matches("../"))).await;
        assert!(
            page.body.contains("The queue is paused") && page.body.contains("queue/resume"),
            "{name}: {}",
            page.body
        );
    }
    // Browsers send every line break as CR and LF, so a name with CR and LF may mean the queue with LF alone.
    let answer = post(&router, "/queue/pause", &[("signature", &signature), ("name", "a\r\nb")]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(database.value("select count(*) from reveille.queues").await, 4);
}

#[tokio::test]
async fn a_stream_carries_any_text_as_one_event() {
    let database = database().await;
    database.run("insert into reveille.jobs (queue, kind) values (E'a\\rb\\nc\\r\\n\\r\\nevent: x', 'k')").await;
    let router = site(&database);
    let (_, _, mut stream) = open_stream(&router, "/").await;
    read_until(&mut stream, "the page with the queue", |event| {
        event.starts_with("data: <h1>Overview") && event.contains("a\\u{d}b c") && !event.contains('\r')
    })
    .await;
}
