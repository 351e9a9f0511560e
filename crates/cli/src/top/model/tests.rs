use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use reveille::admin::OverviewList;
use serde_json::{Value, json};

use super::*;

/// Returns rows from JSON objects.
pub fn rows(rows: &[Value]) -> Vec<Row> {
    rows.iter().map(|row| Row::parse(&row.to_string()).unwrap()).collect()
}

pub fn answer(model: &mut Model, list: &[Value]) {
    model.update(Update::List(model.want(), Ok(rows(list))));
}

/// Returns a model with rows on each page.
pub fn filled() -> Model {
    let mut model = Model::new(Page::Queues);
    let head = Head {
        at: "2026-11-24T06:07:08+00:00".into(),
        sums: Sums { queues: 2, ready: 1_234_567, dead: 3, estimated: true, ..Sums::default() },
    };
    let queues = [
        json!({"queue": "mail", "ready": 1_234_567, "estimated": true, "running": 2, "dead": 3,
            "oldest_ready_seconds": 75.0}),
        json!({"queue": "evil \u{1b}[2J\n", "ready": 0, "paused": true, "mean_wait_seconds": 0.0123}),
    ];
    model.update(Update::Overview(head, rows(&queues)));
    let group = |last| json!({"queue": "mail", "kind": "card", "reason": "lost", "jobs": 3, "last_id": last});
    let waiting = |id: i64, due: f64| {
        json!({"id": id, "queue": "mail", "kind": "welcome", "priority": 2, "ready": due <= 0.0, "due_seconds": due,
            "failures": 0, "max_attempts": 20})
    };
    let answers: [(Page, Vec<Value>); 7] = [
        (Page::Running, vec![json!({"id": 7, "queue": "mail", "kind": "report", "running_seconds": 75.0})]),
        (Page::Waiting, vec![waiting(4, -90.0), waiting(2, -5.0), waiting(30, 3600.0)]),
        (
            Page::Failing,
            vec![json!({"id": 8, "queue": "mail", "kind": "welcome", "failures": 2, "max_attempts": 20,
                "next_try_seconds": -1.0, "last_error": "no luck"})],
        ),
        (Page::Dead, vec![group(9)]),
        (
            Page::Workers,
            vec![json!({"worker": 5, "host": "web-1", "pid": 42, "slots": 16, "running": 2, "alive": true,
                "queues": ["mail", "bulk"], "started_at": "2026-11-24T06:07:08+00:00", "started_seconds": 3.0})],
        ),
        (
            Page::Schedules,
            vec![json!({"name": "nightly", "timing": "0 3 * * *", "time_zone": "UTC", "kind": "report",
                "queue": "mail", "next_seconds": 3661.0, "paused": false, "catch_up": "one"})],
        ),
        (
            Page::Limits,
            vec![json!({"queue": "mail", "max_running": 5, "running": 2, "max_running_per_key": 1,
                "most_running_per_key": 1, "running_keys": 2, "rate_limit": 100, "rate_period_seconds": 1.0})],
        ),
    ];
    for (page, list) in answers {
        model.go_to(page);
        answer(&mut model, &list);
    }
    model.go_to(Page::Queues);
    model
}

fn on(page: Page) -> Model {
    let mut model = filled();
    model.go_to(page);
    model
}

pub fn key(model: &mut Model, code: KeyCode) -> Reaction {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

pub fn press(model: &mut Model, keys: &str) -> Reaction {
    keys.chars().map(|letter| key(model, KeyCode::Char(letter))).last().unwrap()
}

fn shown(model: &Model) -> Vec<Subject> {
    model.list().shown().map(|row| row.subject.clone()).collect()
}

fn jobs(ids: &[i64]) -> Vec<Subject> {
    ids.iter().map(|id| Subject::Job(*id)).collect()
}

#[test]
fn no_action_is_taken_without_a_yes() {
    for (page, letters) in [
        (Page::Queues, "p"),
        (Page::Running, "c"),
        (Page::Waiting, "rc"),
        (Page::Failing, "rc"),
        (Page::Dead, "rR"),
        (Page::Schedules, "pt"),
    ] {
        for letter in letters.chars() {
            let mut model = on(page);
            assert_eq!(press(&mut model, &letter.to_string()), Reaction::Nothing);
            let asked = model.asking.clone().unwrap();
            assert_eq!(press(&mut model, "n"), Reaction::Nothing);
            assert_eq!(model.asking, None);
            assert_eq!(press(&mut model, &format!("{letter}y")), Reaction::Act(asked));
        }
    }
}

#[test]
fn a_paused_queue_is_resumed_and_the_other_paused() {
    assert_eq!(press(&mut filled(), "py"), Reaction::Act(DatabaseAction::Pause("mail".into())));
    let evil = "evil \u{1b}[2J\n".to_owned();
    assert_eq!(press(&mut filled(), "jpy"), Reaction::Act(DatabaseAction::Resume(evil)));
}

#[test]
fn a_letter_without_a_meaning_on_its_page_asks_nothing() {
    for (page, letters) in [
        (Page::Queues, "rcRxyt"),
        (Page::Workers, "prcRt"),
        (Page::Running, "pRrt"),
        (Page::Dead, "pct"),
        (Page::Limits, "prcRt"),
    ] {
        let mut model = on(page);
        press(&mut model, letters);
        assert_eq!(model.asking, None, "{page:?}");
    }
    let mut empty = Model::new(Page::Queues);
    assert_eq!(press(&mut empty, "pyjkGgrRsS/x"), Reaction::Nothing);
    assert_eq!(key(&mut empty, KeyCode::Enter), Reaction::Nothing);
}

#[test]
fn the_mark_stays_on_its_row_when_others_come_and_go() {
    let mut model = on(Page::Waiting);
    press(&mut model, "j");
    let list = |ids: &[i64]| ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>();
    answer(&mut model, &list(&[0, 1, 4, 2]));
    assert_eq!(model.list().mark(), Some(3));
    answer(&mut model, &list(&[0]));
    assert_eq!(model.list().mark(), Some(0), "the row of the mark is gone");
    answer(&mut model, &[]);
    assert_eq!(model.list().mark(), None);
}

#[test]
fn a_question_keeps_its_job_when_rows_move() {
    let mut model = on(Page::Running);
    press(&mut model, "c");
    answer(&mut model, &[json!({"id": 1})]);
    assert_eq!(press(&mut model, "y"), Reaction::Act(DatabaseAction::Cancel(7)));
}

#[test]
fn pages_go_round_and_help_goes_away_by_any_key() {
    let mut model = filled();
    press(&mut model, "h");
    assert_eq!(model.page, Page::Limits);
    key(&mut model, KeyCode::Tab);
    assert_eq!(model.page, Page::Queues);
    for (digit, page) in ('1'..='8').zip(Page::ALL) {
        press(&mut model, &digit.to_string());
        assert_eq!(model.page, page);
    }
    press(&mut model, "2?");
    assert_eq!(model.help, Some(0));
    press(&mut model, "j");
    assert!(model.help.is_some(), "moving scrolls the help");
    assert_eq!(press(&mut model, "c"), Reaction::Nothing);
    assert_eq!((model.help, model.asking.is_none()), (None, true));
    assert_eq!(press(&mut model, "q"), Reaction::Quit);
}

#[test]
fn enter_opens_and_escape_goes_back() {
    let enter = |model: &mut Model| key(model, KeyCode::Enter);
    let mut model = filled();
    enter(&mut model);
    let want = Want::List(OverviewList::Waiting { queue: Some("mail".into()) });
    assert_eq!((model.want(), model.list().is_answered()), (want, false));
    answer(&mut model, &[json!({"id": 2}), json!({"id": 3})]);
    press(&mut model, "j");
    enter(&mut model);
    assert_eq!(model.want(), Want::Job(3));
    assert!(model.letters().is_empty(), "the state of the job is not known yet");
    let job = Row::parse(&json!({"id": 3, "state": "ready", "payload": {"n": 1}}).to_string());
    model.update(Update::Job(3, Ok(job)));
    assert_eq!(press(&mut model, "ry"), Reaction::Act(DatabaseAction::Retry(3)));
    enter(&mut model);
    assert_eq!(model.want(), Want::Job(3), "a job opens nothing");
    key(&mut model, KeyCode::Esc);
    assert_eq!(model.list().mark(), Some(1));
    key(&mut model, KeyCode::Esc);
    assert_eq!((model.want(), model.opened.len()), (Want::Queues, 0));
    assert_eq!(key(&mut model, KeyCode::Esc), Reaction::Nothing, "escape does not quit");

    let mut model = on(Page::Dead);
    enter(&mut model);
    let (queue, kind, reason) = ("mail".into(), "card".into(), "lost".into());
    assert_eq!(model.want(), Want::List(OverviewList::DeadJobs { queue, kind, reason }));

    let mut model = on(Page::Workers);
    enter(&mut model);
    assert!(matches!(model.shown(), Shown::Detail(detail) if detail.subject == Subject::Worker(5)));
    assert_eq!(model.want(), Want::List(OverviewList::Workers), "the worker's row stays fresh");
    enter(&mut model);
    assert_eq!(model.want(), Want::List(OverviewList::Running { worker: Some(5) }));
    press(&mut model, "6");
    assert_eq!(model.opened.len(), 0, "a page closes what was opened");

    let mut model = on(Page::Schedules);
    enter(&mut model);
    assert_eq!(press(&mut model, "ty"), Reaction::Act(DatabaseAction::TriggerSchedule("nightly".into())));
}

#[test]
fn an_answer_to_a_list_that_is_closed_changes_nothing() {
    let mut model = filled();
    key(&mut model, KeyCode::Enter);
    let want = model.want();
    key(&mut model, KeyCode::Esc);
    model.update(Update::List(want, Ok(rows(&[json!({"id": 1})]))));
    model.update(Update::Job(1, Ok(None)));
    assert_eq!(model.list().len(), 2);
}

#[test]
fn a_column_sorts_and_missing_values_come_last() {
    let mut model = on(Page::Waiting);
    assert_eq!(shown(&model), jobs(&[4, 2, 30]));
    press(&mut model, "S");
    assert_eq!(shown(&model), jobs(&[30, 2, 4]), "the order of the database, reversed");
    press(&mut model, "S");
    press(&mut model, "s");
    assert_eq!(shown(&model), jobs(&[30, 4, 2]), "the largest figure comes first");
    press(&mut model, "S");
    assert_eq!(shown(&model), jobs(&[2, 4, 30]));
    let due = |id: i64, due: Option<f64>| json!({"id": id, "due_seconds": due});
    answer(&mut model, &[due(1, None), due(2, Some(5.0)), due(3, Some(-5.0))]);
    press(&mut model, "sssss");
    assert_eq!((shown(&model), model.list().sorted()), (jobs(&[2, 3, 1]), (Some(5), true)));
    press(&mut model, "S");
    assert_eq!(shown(&model), jobs(&[3, 2, 1]));
    press(&mut model, "ss");
    assert_eq!((shown(&model), model.list().sorted().0.is_none()), (jobs(&[1, 2, 3]), true));
}

#[test]
fn a_filter_is_live_and_escape_clears_it() {
    let mut model = on(Page::Waiting);
    press(&mut model, "/DELAY");
    assert_eq!((shown(&model), model.is_typing), (jobs(&[30]), true));
    key(&mut model, KeyCode::Enter);
    assert_eq!((model.list().filter(), model.is_typing), ("DELAY", false));
    let ready = json!({"id": 1, "ready": true});
    answer(&mut model, &[ready, json!({"id": 2, "ready": false})]);
    assert_eq!(shown(&model), jobs(&[2]), "new rows are filtered, too");
    key(&mut model, KeyCode::Esc);
    assert_eq!(shown(&model), jobs(&[1, 2]));
    press(&mut model, "/q1?");
    assert_eq!((shown(&model).len(), model.help, model.page), (0, None, Page::Waiting), "letters are the filter's");
    for _ in 0..4 {
        key(&mut model, KeyCode::Backspace);
    }
    key(&mut model, KeyCode::Down);
    assert_eq!((model.list().filter(), model.list().mark()), ("", Some(1)));
    press(&mut model, "x");
    key(&mut model, KeyCode::Esc);
    assert_eq!((model.list().len(), model.is_typing), (2, false));
}

#[test]
fn the_keys_move_by_rows_and_screens() {
    let mut model = on(Page::Waiting);
    model.size = (80, 16);
    answer(&mut model, &(0..100).map(|id| json!({"id": id})).collect::<Vec<_>>());
    let at = |model: &Model| (model.list().mark().unwrap(), model.list().first_row(model.body_height()));
    assert_eq!((model.body_height(), at(&model)), (10, (0, 0)));
    for (code, expected) in [
        (KeyCode::PageDown, (10, 1)),
        (KeyCode::Up, (9, 1)),
        (KeyCode::End, (99, 90)),
        (KeyCode::PageUp, (89, 89)),
        (KeyCode::Down, (90, 89)),
        (KeyCode::Home, (0, 0)),
    ] {
        key(&mut model, code);
        assert_eq!(at(&model), expected, "{code:?}");
    }
}

#[test]
fn a_long_text_scrolls_to_its_end_and_no_further() {
    let mut model = on(Page::Running);
    key(&mut model, KeyCode::Enter);
    let job = Row::parse(&json!({"id": 7, "state": "running", "payload": (0..100).collect::<Vec<_>>()}).to_string());
    model.update(Update::Job(7, Ok(job)));
    let last = model.last_scroll();
    assert!(last > 50);
    let scroll = |model: &Model| matches!(model.shown(), Shown::Detail(detail) if detail.scroll == last);
    press(&mut model, "Gj");
    assert!(scroll(&model));
    press(&mut model, "k");
    assert!(!scroll(&model));
}

#[test]
fn a_refused_list_is_not_a_lost_database() {
    let mut model = on(Page::Waiting);
    model.update(Update::List(model.want(), Err("permission denied".into())));
    assert_eq!((model.lost.is_none(), model.list().refused.as_deref()), (true, Some("permission denied")));
    model.update(Update::Lost("gone".into()));
    assert_eq!(model.lost.as_deref(), Some("gone"));
    answer(&mut model, &[]);
    assert_eq!((model.lost.is_none(), model.list().refused.is_none()), (true, true));
}
