//! Requests as a hostile client makes them: any header, any path, with or without a form's signature.

use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, BodyDataStream, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use reveille::Database;
use reveille_dashboard::{Access, Dashboard, Viewer};
use sha2::Sha256;
use tower::ServiceExt;

use crate::harness::{TestDatabase, soon};

/// The longest time that a page may take on a busy machine: the timeouts of its statements, and some more.
pub const PAGE_TIME: Duration = Duration::from_secs(20);
/// The largest page in bytes.
pub const PAGE_SIZE: usize = 150_000;

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    pub took: Duration,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// The dashboard for a visitor who may do everything.
pub fn site(database: &Database) -> Router {
    of(database, Viewer::new("ada").access(Access::all()))
}

pub fn of(database: &Database, viewer: Viewer) -> Router {
    Dashboard::new(database.clone()).secret(SECRET).authorize(move |_| viewer.clone()).router()
}

pub const SECRET: &str = "a secret of the tests";

pub async fn send(router: &Router, request: Request<Body>) -> Answer {
    let began = Instant::now();
    let answer = soon("the dashboard answers", router.clone().oneshot(request)).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = soon("the answer ends", to_bytes(body, 64 << 20)).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, body, took: began.elapsed() }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header(header::HOST, "localhost");
    }
    request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_owned())).unwrap()
}

pub async fn get(router: &Router, path: &str) -> Answer {
    send(router, request("GET", path, &[], "")).await
}

/// Posts a form as the dashboard's own pages do.
pub async fn post(router: &Router, path: &str, fields: &[(&str, &str)]) -> Answer {
    post_with(router, path, &[("sec-fetch-site", "same-origin")], fields).await
}

pub async fn post_with(router: &Router, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
    let mut headers = headers.to_vec();
    headers.push(("content-type", "application/x-www-form-urlencoded"));
    send(router, request("POST", path, &headers, &form(fields))).await
}

pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// Opens the stream of a page.
pub async fn open_stream(router: &Router, path: &str) -> (StatusCode, HeaderMap, BodyDataStream) {
    let asked = request("GET", path, &[("accept", "text/event-stream")], "");
    let answer = soon("the stream opens", router.clone().oneshot(asked)).await.unwrap();
    let (parts, body) = answer.into_parts();
    (parts.status, parts.headers, body.into_data_stream())
}

/// Reads a stream until what the page shows fulfils the condition.
pub async fn read_until(stream: &mut BodyDataStream, what: &str, condition: impl Fn(&str) -> bool) {
    let reading = async {
        let mut text = String::new();
        while let Some(part) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&part.unwrap()));
            if text.ends_with("\n\n") && condition(&std::mem::take(&mut text).replace("\ndata: ", "\n")) {
                return;
            }
        }
        panic!("the stream ended: {what}");
    };
    soon(what, reading).await;
}

/// Signs what a form carries as the dashboard does, some days ago.
pub fn signed(secret: &str, viewer: &str, carried: &str, days_ago: u64) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    for part in [viewer, carried] {
        hmac.update(&(part.len() as u64).to_be_bytes());
        hmac.update(part.as_bytes());
    }
    let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    hmac.update(&(today - days_ago).to_be_bytes());
    hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A form for an action, filled in so that the dashboard does what it says.
pub struct Filled {
    pub path: String,
    fields: Vec<(String, String)>,
}

impl Filled {
    /// Fills in the form of a route for what [`furnish`] has put into this queue.
    pub fn of(route: &str, queue: &str) -> Filled {
        let (first, kind) = if queue == "mail" { (0, "send") } else { (SECRETS, "hush") };
        let id = match route {
            _ if route.starts_with("/workers") => WORKER + i64::from(queue != "mail"),
            _ if route.starts_with("/workflows") => WORKFLOW + i64::from(queue != "mail"),
            _ if route.starts_with("/actions") => ACTION + i64::from(queue != "mail"),
            "/jobs/{id}/retry" => first + DEAD,
            "/jobs/{id}/again" => first + DONE,
            _ => first + WAITING,
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let (what, start) = match route {
            "/bulk" => (
                format!("bulk?queue={queue}&kind={kind}&do=cancel"),
                r#"[1000,{"secs_since_epoch":4000000000,"nanos_since_epoch":0},null]"#,
            ),
            _ => (
                format!("{}?queue={queue}&kind={kind}&reason=failed", route.trim_start_matches('/')),
                r#"[1000,{"secs_since_epoch":4000000000,"nanos_since_epoch":0},1]"#,
            ),
        };
        let sealed = signed(SECRET, "ada", &format!("{what} {start}"), 0);
        let name = if route.starts_with("/schedule") { format!("{queue}-nightly") } else { queue.to_owned() };
        let (at, max_running) = (now.to_string(), "7".to_owned());
        let texts =
            [("name", name), ("queue", queue.to_owned()), ("kind", kind.to_owned()), ("at", at), ("seal", sealed)];
        let fixed = [
            ("reason", "failed"),
            ("typed", "1"),
            ("slots", "2"),
            ("do", "cancel"),
            ("start", start),
            ("once", "a form"),
            ("of", "this"),
            ("max_attempts", "5"),
            ("priority", "normal"),
            ("payload", "{\"forged\": 1}"),
        ];
        let fixed = fixed.map(|(name, value)| (name, value.to_owned()));
        let mut fields: Vec<_> = texts.into_iter().chain(fixed).chain([("max_running", max_running)]).collect();
        // These routes take a part of the names for conditions of their own.
        match route {
            "/enqueue" => fields.retain(|(name, _)| *name != "at"),
            "/bulk" => fields.retain(|(name, _)| !["at", "reason", "payload"].contains(name)),
            _ => {}
        }
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Filled { path: route.replace("{id}", &id.to_string()), fields }
    }

    /// Returns what the form signs.
    pub fn action(&self) -> &str {
        self.path.trim_start_matches('/')
    }

    pub fn with<'a>(&'a self, signature: &'a str) -> Vec<(&'a str, &'a str)> {
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        fields.chain([("signature", signature)]).collect()
    }
}

/// The routes that change something.
pub fn actions() -> Vec<&'static str> {
    routes().into_iter().filter(|(.., posts)| *posts).map(|(path, ..)| path).collect()
}

/// All paths of the router with their methods, in which `{id}` stands for a job or a worker.
pub fn routes() -> Vec<(&'static str, bool, bool)> {
    let source = include_str!("../../src/router.rs");
    let routes = source.split(".route(\"").skip(1).map(|route| {
        let (path, handlers) = route.split_once('"').unwrap();
        let handlers = handlers.split("\n        .").next().unwrap();
        (path, handlers.contains("get("), handlers.contains("post("))
    });
    let routes: Vec<_> = routes.collect();
    assert!(routes.len() > 15 && routes.iter().all(|(_, get, post)| *get || *post));
    routes
}

/// The ids of [`furnish`]: a job of each state in the queue `mail`.
pub const WAITING: i64 = 1;
pub const DEAD: i64 = 4;
pub const DONE: i64 = 5;
/// The same states in the queue `secret` have ids that are larger by this.
pub const SECRETS: i64 = 5;
pub const WORKER: i64 = 1;
pub const ACTION: i64 = 1;
pub const WORKFLOW: i64 = 1;

/// Fills a database with jobs of all states in two queues, a worker, and a schedule of each queue.
pub async fn furnish(database: &TestDatabase) {
    for (queue, kind, first) in [("mail", "send", 1), ("secret", "hush", 6)] {
        database
            .run(&FURNITURE.replace("$queue", queue).replace("$kind", kind).replace("$first", &first.to_string()))
            .await;
    }
}

const FURNITURE: &str = r#"
    insert into reveille.queues (name) values ('$queue');
    insert into reveille.workers (id, host, pid, queues, version, slots, queue_slots)
    values (($first + 4) / 5, '$queue-host', 77, array['$queue'], '0.1.0', 4, '{4}');
    insert into reveille.jobs (id, queue, kind, payload, key, tags, metadata, available_at, attempts, failures, errors)
    overriding system value
    values
        ($first, '$queue', '$kind', '{"card": "$queue-4111"}', '$queue-key', '{$queue-tag}',
            '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "m": "$queue-meta"}', now(), 1,
            1, '[{"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "$queue-error"}]'),
        (
            $first + 1, '$queue', '$kind', '{"card": "$queue-4111"}', null, null, null, now() + interval '1 day', 0, 0,
            null
        );
    insert into reveille.jobs (
        id, queue, kind, payload, attempts, reserved_at, reserved_by, progress
    )
    overriding system value
    values (
        $first + 2, '$queue', '$kind', '{"card": "$queue-4111"}', 1, now(), ($first + 4) / 5, '{"p": "$queue-prog"}'
    );
    alter sequence reveille.jobs_id_seq restart 100;
    alter sequence reveille.actions_id_seq restart 100;
    insert into reveille.actions (id, actor, source, action, target, detail, done, highest_id)
    overriding system value
    values (
        ($first + 4) / 5, case '$queue' when 'mail' then 'ada' else 'Secretary' end, 'dashboard', 'cancel',
        '{"filter": {"queue": "$queue", "payload": {"sha256": "$queue-hash"}}}',
        '{"payload": {"sha256": "$queue-hash", "bytes": 7}}', 0, 1
    );
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, reason, errors
    )
    values (
        $first + 3, '$queue', '$kind', '{"card": "$queue-4111"}', 2, 1, 1, 1, now(), now(), 'failed',
        '[{"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": "$queue-error"}]'
    );
    insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, outcome,
        result
    )
    values (
        (extract(epoch from now())::bigint / 86400 % 32)::smallint, $first + 4, '$queue', '$kind',
        '{"card": "$queue-4111"}', 2, 1, 0, 1, now(), now(), 'completed', '{"r": "$queue-result"}'
    );
    insert into reveille.workflows (id, name, unique_key, state, sealed, jobs, dead, input, result)
    overriding system value
    values (
        ($first + 4) / 5, '$queue-flow', '$queue-key', 'stalled', true, 2, 1, '{"card": "$queue-4111"}',
        '{"r": "$queue-result"}'
    );
    insert into reveille.workflow_jobs (job, workflow, name, outcome, result, ended_at)
    values
        ($first + 3, ($first + 4) / 5, '$queue-load', 'dead', null, now()),
        ($first + 4, ($first + 4) / 5, '$queue-sum', 'completed', '{"r": "$queue-result"}', now());
    update reveille.dead_jobs set linked = true where id = $first + 3;
    insert into reveille.dependencies (waiter, on_job, label, fires_on, state)
    values ($first + 1, $first, '$queue-label', 'completed', 'open');
    insert into reveille.steps (job, name, kind, value, until, outcome, attempt, reserved_at)
    values
        ($first + 1, '$queue-step', 'step', '{"card": "$queue-4111"}', null, 'done', 1, now()),
        ($first + 1, '$queue-event', 'wait', '{"m": "$queue-meta"}', now(), 'done', 1, now());
    select reveille.schedule('$queue-nightly', '$kind', cron => '0 3 * * *', payload => '{"card": "$queue-4111"}',
        queue => '$queue');
"#;

/// Makes the state in which an action has something to do.
pub async fn prepare(database: &TestDatabase, route: &str) {
    match route {
        "/queue/resume" => database.run("update reveille.queues set paused_at = now() where name = 'mail'").await,
        "/resume" => database.run("insert into reveille.pauses (queue, kind) values ('mail', 'send')").await,
        "/schedule/resume" => database.run("update reveille.schedules set paused_at = now()").await,
        "/queue/remove" => {
            let tables = ["jobs", "dead_jobs", "finished_jobs", "schedules"];
            for table in tables {
                database.run(&format!("delete from reveille.{table} where queue = 'mail'")).await;
            }
            database.run("delete from reveille.workers where 'mail' = any (queues)").await;
        }
        _ => {}
    }
}

/// Returns a digest of all that the database holds of jobs, queues and schedules.
pub async fn digest(database: &TestDatabase) -> serde_json::Value {
    let rows = |table: &str| format!("(select string_agg(t::text, '|' order by t::text) from reveille.{table} as t)");
    let tables =
        ["jobs", "dead_jobs", "finished_jobs", "queues", "schedules", "workers", "actions", "pauses", "workflows"]
            .map(rows);
    database.value(&format!("select md5(concat_ws('#', {}))", tables.join(", "))).await
}
