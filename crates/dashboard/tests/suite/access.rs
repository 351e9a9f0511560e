//! What a visitor may not do is refused by its address, and what a visitor may not see stands on no page.

use axum::http::StatusCode;
use reveille_dashboard::{Access, Right, Viewer};

use crate::harness::database;
use crate::web::{
    Filled, SECRET, SECRETS, WAITING, actions, digest, form, furnish, get, of, open_stream, post, prepare, read_until,
    routes, signed,
};

/// Returns a right without which an action is refused.
fn right_for(route: &str) -> Right {
    match route {
        "/pause" | "/resume" | "/queue/pause" | "/queue/resume" | "/schedule/pause" | "/schedule/resume" => {
            Right::Pause
        }
        "/queue/settings" | "/queue/remove" | "/schedule/remove" => Right::Settings,
        "/jobs/{id}/edit" => Right::Edit,
        "/jobs/{id}/cancel" | "/bulk" | "/actions/{id}/stop" | "/workflows/{id}/cancel" => Right::Cancel,
        "/jobs/{id}/retry" | "/dead/revive" | "/workflows/{id}/retry" => Right::Revive,
        "/jobs/{id}/again" => Right::Retry,
        "/workers/{id}/stop" | "/workers/{id}/slots" => Right::StopWorkers,
        "/schedule/trigger" | "/enqueue" => Right::Enqueue,
        "/dead/purge" => Right::Purge,
        _ => panic!("the right of {route} is not known to this test"),
    }
}

#[tokio::test]
async fn an_action_is_refused_without_its_right_at_its_address_too() {
    let database = database().await;
    furnish(&database).await;
    // Who has begun a run may stop it.
    database.run("update reveille.actions set actor = 'bob'").await;
    let before = digest(&database).await;
    let ada = |access| of(&database, Viewer::new("ada").access(access));
    let (looks, operates) = (ada(Access::read_only()), ada(Access::operator()));
    for route in actions() {
        let filled = Filled::of(route, "mail");
        let signature = signed(SECRET, "ada", filled.action(), 0);
        let without = ada(Access::all().without(right_for(route)));
        let only_others = ada(Access::none().with(Right::See).with(Right::SeePayloads));
        let mut routers = vec![&looks, &without, &only_others];
        if !Access::operator().allows(right_for(route)) {
            routers.push(&operates);
        }
        for router in routers {
            let answer = post(router, &filled.path, &filled.with(&signature)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{route}: {}", answer.body);
        }
    }
    assert_eq!(digest(&database).await, before);
}

#[tokio::test]
async fn who_may_only_look_is_offered_no_form() {
    let database = database().await;
    furnish(&database).await;
    let router = of(&database, Viewer::new("ada").access(Access::read_only()));
    for (route, gets, _) in routes() {
        let path = Filled::of(route, "mail").path;
        if !gets {
            continue;
        }
        let answer = get(&router, &format!("{path}?name=mail&queue=mail&kind=send&reason=failed")).await;
        assert!(!answer.body.contains("method=\"post\""), "{path}: {}", answer.body);
        assert!(!answer.body.contains("name=\"signature\""), "{path}");
    }
}

/// Returns the addresses to which the forms of a page post, with `{id}` in place of numbers.
fn posts_of(page: &str) -> Vec<String> {
    let tags = page.split("<form").skip(1).filter_map(|form| form.split('>').next());
    let posts = tags.filter(|tag| tag.contains("method=\"post\""));
    let actions = posts.filter_map(|tag| tag.split("action=\"").nth(1)?.split('"').next());
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let in_general =
        |part: &'static str, other: &str| if is_number(other) { part.to_owned() } else { other.to_owned() };
    actions
        .map(|action| action.split('/').filter(|part| *part != ".." && *part != "."))
        .map(|parts| parts.map(|part| format!("/{}", in_general("{id}", part))).collect())
        .collect()
}

#[tokio::test]
async fn each_action_has_a_form_that_needs_no_script() {
    let database = database().await;
    furnish(&database).await;
    let mut found = std::collections::BTreeSet::new();
    for change in ["", "/queue/resume", "/resume", "/schedule/resume", "/queue/remove"] {
        prepare(&database, change).await;
        let router = of(&database, Viewer::new("ada").access(Access::all()));
        let jobs = (1..=5).map(|id| format!("/jobs/{id}"));
        let others =
            routes().into_iter().filter(|(_, gets, _)| *gets).map(|(route, ..)| Filled::of(route, "mail").path);
        for path in jobs.chain(others) {
            let query = match &*path {
                "/schedule" | "/schedule/remove" => "name=mail-nightly",
                "/bulk" => "do=cancel&queue=mail",
                _ => "name=mail&queue=mail&kind=send&reason=failed",
            };
            let mut page = get(&router, &format!("{path}?{query}")).await;
            if page.status == StatusCode::SEE_OTHER {
                // The address of the question gets the time at which it was asked.
                page = get(&router, &format!("/{}", page.header("location").trim_start_matches("../"))).await;
            }
            found.extend(posts_of(&page.body));
        }
    }
    let actions = actions().into_iter().filter(|route| !found.contains(*route)).collect::<Vec<_>>();
    assert!(actions.is_empty(), "{actions:?} are on none of the pages, which post to {found:?}");
}

/// What the queue `secret` has and the queue `mail` has not.
const SECRET_WORDS: [&str; 3] = ["secret", "hush", "Secret"];

#[tokio::test]
async fn a_visitor_of_one_queue_sees_nothing_of_another() {
    let database = database().await;
    furnish(&database).await;
    // A job of the queue has a child in the other one and waits for one there, and a worker works both.
    database
        .run(
            "update reveille.jobs set parent_id = 1 where queue = 'secret';
             insert into reveille.dependencies (waiter, on_job, label, fires_on) values (2, 6, 'secret', 'any');
             insert into reveille.workers (id, host, pid, queues, version, slots, queue_slots)
             values (3, 'both', 77, '{mail,secret}', '0.1.0', 8, '{4,4}');
             update reveille.jobs set payload = '{}' where queue = 'mail'",
        )
        .await;
    let router = of(&database, Viewer::new("ada").access(Access::all()).queues(["mail"]));
    let names = [
        form(&[("name", "secret"), ("queue", "secret"), ("kind", "hush"), ("reason", "failed")]),
        form(&[("name", "secret-nightly"), ("queue", "mail"), ("kind", "hush"), ("reason", "failed")]),
        form(&[("queue", "mail"), ("queue", "secret"), ("kind", "hush")]),
        form(&[("kind", "hush")]),
        form(&[("key", "secret-key"), ("tag", "secret-tag")]),
        form(&[("error", "secret-error"), ("state", "dead")]),
        form(&[("payload", "{\"card\": \"secret-4111\"}")]),
        form(&[("id", "6"), ("like", "6")]),
        form(&[("do", "cancel"), ("queue", "secret")]),
        form(&[("do", "cancel"), ("kind", "hush")]),
        form(&[("do", "edit"), ("to_queue", "secret")]),
        form(&[("before", "99")]),
        String::new(),
    ];
    for (route, gets, _) in routes() {
        for queue in ["mail", "secret"] {
            let path = Filled::of(route, queue).path;
            for query in names.iter().filter(|_| gets) {
                let answer = get(&router, &format!("{path}?{query}")).await;
                // A page may repeat what the visitor has asked for, but it has nothing of what is there.
                let asked = percent(query);
                for word in SECRET_WORDS.into_iter().chain(["secret-4111", "secret-host", "secret-result"]) {
                    let is_echo = asked.contains(word);
                    assert!(is_echo || !answer.body.contains(word), "{path}?{query} says {word}: {}", answer.body);
                }
                for id in SECRETS + 1..=SECRETS + 5 {
                    let link = format!("jobs/{id}\"");
                    assert!(!answer.body.contains(&link), "{path}?{query} links to job {id}");
                }
            }
        }
    }
    for id in SECRETS + 1..=SECRETS + 5 {
        for part in ["", "/payload", "/edit"] {
            let [hidden, missing] = [id, 777].map(|id| get_owned(&router, format!("/jobs/{id}{part}")));
            let (hidden, missing) = (hidden.await, missing.await);
            assert_eq!(hidden.status, StatusCode::NOT_FOUND, "{id}{part}");
            assert_eq!(hidden.body.replace(&format!("job {id}"), "job 777"), missing.body, "{id}{part}");
        }
    }
}

async fn get_owned(router: &axum::Router, path: String) -> crate::web::Answer {
    get(router, &path).await
}

fn percent(query: &str) -> String {
    form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_sums_of_a_visitor_of_one_queue_are_of_this_queue() {
    let database = database().await;
    furnish(&database).await;
    database.run("insert into reveille.jobs (queue, kind) select 'secret', 'hush' from generate_series(1, 4321)").await;
    let all = get(&of(&database, Viewer::new("ada")), "/").await.body;
    assert!(all.contains("4,322"), "{all}");
    let router = of(&database, Viewer::new("ada").queues(["mail"]));
    for path in ["/", "/kinds", "/workers", "/dead", "/schedules", "/jobs"] {
        let page = get(&router, path).await.body;
        assert!(!page.contains("4,32"), "{path}: {page}");
    }
    let (_, _, mut stream) = open_stream(&router, "/").await;
    read_until(&mut stream, "the overview", |event| {
        assert!(!event.contains("4,32") && !event.contains("secret"), "{event}");
        event.contains("mail")
    })
    .await;
}

#[tokio::test]
async fn a_visitor_of_one_queue_changes_nothing_of_another() {
    let database = database().await;
    furnish(&database).await;
    let before = digest(&database).await;
    for queues in [&["mail"][..], &[]] {
        let router = of(&database, Viewer::new("ada").access(Access::all()).queues(queues.iter().copied()));
        for route in actions() {
            let filled = Filled::of(route, "secret");
            let signature = signed(SECRET, "ada", filled.action(), 0);
            let answer = post(&router, &filled.path, &filled.with(&signature)).await;
            assert!(answer.status.is_client_error(), "{route}: {} {}", answer.status, answer.header("location"));
        }
        // Nor does it help to move a job there.
        let action = format!("jobs/{WAITING}/edit");
        let signature = signed(SECRET, "ada", &action, 0);
        let fields =
            [("signature", signature.as_str()), ("queue", "secret"), ("priority", "normal"), ("max_attempts", "20")];
        let answer = post(&router, &format!("/{action}"), &fields).await;
        assert!(answer.status.is_client_error(), "{}", answer.status);
    }
    assert_eq!(digest(&database).await, before);
}

#[tokio::test]
async fn without_the_right_to_payloads_none_is_shown_matched_or_changed() {
    let database = database().await;
    furnish(&database).await;
    let router = of(&database, Viewer::new("ada").access(Access::all().without(Right::SeePayloads)));
    let words = ["mail-4111", "mail-hash", "mail-meta", "mail-prog", "mail-result", "0af7651916cd43dd8448eb211c80319c"];
    let queries =
        ["", "name=mail&queue=mail&kind=send&reason=failed", "like=1", "kind=send", "state=completed", "do=edit"];
    for (route, gets, _) in routes() {
        for id in 1..=5 {
            let path = route.replace("{id}", &id.to_string());
            for query in queries.iter().filter(|_| gets) {
                let answer = get(&router, &format!("{path}?{query}")).await;
                for word in words {
                    assert!(!answer.body.contains(word), "{path}?{query} says {word}");
                }
            }
        }
    }
    assert_eq!(get(&router, "/jobs/1/payload").await.status, StatusCode::FORBIDDEN);
    let found = get(&router, &format!("/jobs?{}", form(&[("payload", "{\"card\": \"mail-4111\"}")]))).await;
    assert!(found.body.contains("may not filter by them") && !found.body.contains("jobs/1\""), "{}", found.body);
    assert!(!get(&router, "/jobs").await.body.contains("name=\"payload\""));

    let action = format!("jobs/{WAITING}/edit");
    let signature = signed(SECRET, "ada", &action, 0);
    let fields = [
        ("signature", signature.as_str()),
        ("queue", "mail"),
        ("priority", "high"),
        ("max_attempts", "20"),
        ("key", "mail-key"),
        ("payload", "{\"card\": \"forged\"}"),
    ];
    let answer = post(&router, &format!("/{action}"), &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    let job = database.value("select jsonb_build_array(priority, payload ->> 'card') from reveille.jobs where id = 1");
    assert_eq!(job.await, serde_json::json!([1, "mail-4111"]));
}
